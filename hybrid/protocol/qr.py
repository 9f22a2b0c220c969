"""The QR invitation: a CBOR map in decimal digits behind ``FIDO:/`` (CTAP 2.3 §11.5.1, "QR-initiated transactions").

Turns bytes into fields and back. Drawing and scanning codes is for adapters and user interfaces.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, TypeVar

from hybrid import cbor
from hybrid.errors import InvalidQR, LocalProtocolError, ProtocolError, QRProblem, RemoteProtocolError
from hybrid.protocol.keys import (
    EID_KEY_SIZE,
    PSK_SIZE,
    SECRET_SIZE,
    PublicKey,
    Purpose,
    compressed,
    derive,
    parse_compressed_point,
)
from hybrid.protocol.tunnel import ASSIGNED_DOMAINS, TUNNEL_ID_SIZE

SCHEME = "FIDO:/"
KNOWN_DOMAINS = len(ASSIGNED_DOMAINS)

_CHUNK_SIZE = 7
_DIGITS_OF_SIZE = {1: 3, 2: 5, 3: 8, 4: 10, 5: 13, 6: 15, 7: 17}
_SIZE_OF_DIGITS = {digits: size for size, digits in _DIGITS_OF_SIZE.items()}
_ASCII_DIGITS = frozenset("0123456789")
_T = TypeVar("_T")

_KEY_PUBLIC_KEY = 0
_KEY_SECRET = 1
_KEY_KNOWN_DOMAINS = 2
_KEY_TIMESTAMP = 3
_KEY_STATE_ASSISTED = 4
_KEY_HINT = 5
_KEY_TRANSPORTS = 6
GREASE_KEY = 65535  # clients add it at random with value 0, so that parsers stay tolerant


class Hint(StrEnum):
    """What the client is about to ask for, for the phone's first screen."""

    GET_ASSERTION = "ga"
    MAKE_CREDENTIAL = "mc"
    PRESENT_CREDENTIAL = "dcp"
    ISSUE_CREDENTIAL = "dci"


class Transport(IntEnum):
    """Data-transfer channels of CTAP 2.3."""

    WEBSOCKET = 0
    L2CAP = 1


def encode_digits(data: bytes) -> str:
    """Decimal digits: chunks of 7 bytes, little-endian, each padded to its fixed width."""
    chunks = (data[at : at + _CHUNK_SIZE] for at in range(0, len(data), _CHUNK_SIZE))
    return "".join(str(int.from_bytes(chunk, "little")).rjust(_DIGITS_OF_SIZE[len(chunk)], "0") for chunk in chunks)


def decode_digits(digits: str) -> bytes:
    """Bytes of decimal digits.

    Raises:
        InvalidQR: a character other than ASCII 0-9, an impossible length, or a group too large for its bytes.
    """
    if not _ASCII_DIGITS.issuperset(digits):
        raise InvalidQR("the code holds characters that are not digits", QRProblem.DIGITS)
    data = bytearray()
    width = _DIGITS_OF_SIZE[_CHUNK_SIZE]
    for at in range(0, len(digits), width):
        group = digits[at : at + width]
        size = _SIZE_OF_DIGITS.get(len(group))
        if size is None:
            raise InvalidQR("the code is cut off or has too many digits", QRProblem.DIGITS)
        value = int(group)
        if value >> (8 * size):
            raise InvalidQR("the code holds a number that is out of range", QRProblem.DIGITS)
        data += value.to_bytes(size, "little")
    return bytes(data)


@dataclass(frozen=True, slots=True, repr=False)
class QrInvitation:
    """What a code carries.

    `public_key`: the client's identity; `secret`: 16 bytes; `known_domains`: assigned relay domains that the client
    knows, None if not stated; `timestamp`: Unix seconds; `state_assisted`: whether the client stores links, None if
    not stated; `hint_text`: as written, None if absent; `transports`: known channels in common use, ascending, empty
    if there is none that we know; `transports_stated`: whether they are written into the code; `extra`: other keys
    to write, such as `GREASE_KEY`.
    """

    public_key: PublicKey
    secret: bytes
    known_domains: int | None = KNOWN_DOMAINS
    timestamp: int | None = None
    state_assisted: bool | None = None
    hint_text: str | None = Hint.GET_ASSERTION.value
    transports: tuple[Transport, ...] = (Transport.WEBSOCKET,)
    transports_stated: bool = False
    extra: tuple[tuple[int, int], ...] = field(default=())

    def __post_init__(self) -> None:
        if len(self.secret) != SECRET_SIZE:
            raise LocalProtocolError(f"a QR secret has {SECRET_SIZE} bytes, not {len(self.secret)}")

    def __repr__(self) -> str:
        return f"<QrInvitation {self.hint.value}>"

    @property
    def hint(self) -> Hint:
        """The hint in force: `ga` if absent or unknown."""
        return self.stated_hint or Hint.GET_ASSERTION

    @property
    def stated_hint(self) -> Hint | None:
        """The hint if one was written and is known."""
        try:
            return Hint(self.hint_text) if self.hint_text is not None else None
        except ValueError:
            return None

    @property
    def wants_link(self) -> bool:
        """Only an explicit `true` asks for linking information; absent and false both mean no."""
        return self.state_assisted is True

    def eid_key(self) -> bytes:
        """64 bytes that seal and open the advert."""
        return derive(self.secret, b"", Purpose.EID_KEY, EID_KEY_SIZE)

    def tunnel_id(self) -> bytes:
        """16 bytes. Depends on the secret alone, so that the relay cannot test guesses of the advert's nonce."""
        return derive(self.secret, b"", Purpose.TUNNEL_ID, TUNNEL_ID_SIZE)

    def psk(self, eid: bytes) -> bytes:
        """32 bytes, salted with the whole 16-byte advert plaintext: whoever did not hear the advert lacks it."""
        return derive(self.secret, eid, Purpose.PSK, PSK_SIZE)

    def knows_service(self, service_id: int) -> bool:
        """Whether the client can reach this tunnel service ("tunnel service id below 256 only if known")."""
        if service_id >= 256:
            return True
        known = KNOWN_DOMAINS if self.known_domains is None else self.known_domains
        return service_id < known

    def to_cbor(self) -> bytes:
        """Canonical CBOR map. Members that are None are left out.

        Raises:
            LocalProtocolError: it offers no channel, which readers would take for the tunnel.
        """
        if not self.transports:
            raise LocalProtocolError("an invitation offers at least one channel")
        fields: dict[int, Any] = {
            _KEY_PUBLIC_KEY: compressed(self.public_key),
            _KEY_SECRET: self.secret,
            _KEY_KNOWN_DOMAINS: self.known_domains,
            _KEY_TIMESTAMP: self.timestamp,
            _KEY_STATE_ASSISTED: self.state_assisted,
            _KEY_HINT: self.hint_text,
            _KEY_TRANSPORTS: list(self.transports) if self.transports_stated else None,
            **dict(self.extra),
        }
        return cbor.encode({key: value for key, value in fields.items() if value is not None})

    @property
    def url(self) -> str:
        """``FIDO:/`` and digits. A secret: whoever reads it can take part in the session."""
        return SCHEME + encode_digits(self.to_cbor())

    @classmethod
    def parse(cls, url: str) -> QrInvitation:
        """Read a scanned code.

        Raises:
            InvalidQR: not a FIDO code, wrong digits, malformed CBOR, a mandatory member missing or wrong, or a
                public key that is not on the curve.
        """
        scheme = url[: len(SCHEME)]
        if not scheme.isascii() or scheme.upper() != SCHEME:  # a dotless i becomes an ASCII I in upper case
            raise InvalidQR("the code does not start with FIDO:/", QRProblem.NOT_FIDO)
        digits = url[len(SCHEME) :]
        if not digits:
            raise InvalidQR("the code has no digits", QRProblem.DIGITS)
        try:
            fields = cbor.decode_map(decode_digits(digits))
        except ProtocolError as error:
            raise InvalidQR("the digits of the code do not hold a FIDO invitation", QRProblem.CBOR) from error
        return cls._from_fields(fields)

    @classmethod
    def _from_fields(cls, fields: dict[Any, Any]) -> QrInvitation:
        timestamp = fields.get(_KEY_TIMESTAMP)
        transports = fields.get(_KEY_TRANSPORTS)
        if not isinstance(transports, list):
            transports = []  # before CTAP 2.3 key 6 was a boolean of another meaning
        return cls(
            public_key=_public_key(_typed(fields, _KEY_PUBLIC_KEY, bytes)),
            secret=_sized(_typed(fields, _KEY_SECRET, bytes), SECRET_SIZE),
            known_domains=_optional(fields, _KEY_KNOWN_DOMAINS, int),
            # Nobody reads the time but us, so a strange one is no reason to refuse a code.
            timestamp=timestamp if type(timestamp) is int else None,
            state_assisted=_optional(fields, _KEY_STATE_ASSISTED, bool),
            hint_text=_optional(fields, _KEY_HINT, str),
            transports=_known_transports(transports) if transports else (Transport.WEBSOCKET,),
            transports_stated=bool(transports),
        )


def _typed(fields: dict[Any, Any], key: int, kind: type[bytes]) -> bytes:
    value = fields.get(key)
    if type(value) is not kind:
        raise InvalidQR(f"the code's member {key} is missing or of the wrong type", QRProblem.FIELD)
    return value


def _optional(fields: dict[Any, Any], key: int, kind: type[_T]) -> _T | None:
    if key not in fields:
        return None
    value = fields[key]
    if type(value) is not kind:
        raise InvalidQR(f"the code's member {key} is of the wrong type", QRProblem.FIELD)
    return value


def _sized(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise InvalidQR(f"the code's secret has {len(value)} bytes where {size} belong", QRProblem.FIELD)
    return value


def _public_key(value: bytes) -> PublicKey:
    try:
        return parse_compressed_point(value)
    except RemoteProtocolError as error:
        raise InvalidQR("the code's public key is not a point of P-256", QRProblem.KEY) from error


def _known_transports(numbers: Iterable[object]) -> tuple[Transport, ...]:
    known = {number for number in numbers if type(number) is int and number in list(Transport)}
    return tuple(Transport(number) for number in sorted(known))
