"""CTAP over hybrid: command and status bytes, and the post-handshake message (CTAP 2.3 §11.5.1, "data transfer").

The phone's first encrypted message carries its getInfo response and what it can do. Requests are only named here;
what they contain is a matter of the two ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from hybrid import cbor
from hybrid.errors import RemoteProtocolError

FEATURE_CTAP = "ctap"
FEATURE_DIGITAL_CREDENTIALS = "dc"
REVISION_0_GRANULARITY = 512


class Command(IntEnum):
    """First byte of a CTAP2 request. Phones serve the first three."""

    MAKE_CREDENTIAL = 0x01
    GET_ASSERTION = 0x02
    GET_INFO = 0x04
    CLIENT_PIN = 0x06
    RESET = 0x07
    GET_NEXT_ASSERTION = 0x08
    CREDENTIAL_MANAGEMENT = 0x0A
    SELECTION = 0x0B
    LARGE_BLOBS = 0x0C
    CONFIG = 0x0D


class Status(IntEnum):
    """First byte of a CTAP2 response, as far as we act on it (CTAP 2.3 §8.2, "Status codes")."""

    OK = 0x00
    INVALID_COMMAND = 0x01
    INVALID_PARAMETER = 0x02
    INVALID_LENGTH = 0x03
    INVALID_SEQ = 0x04
    UNEXPECTED_TYPE = 0x11
    INVALID_CBOR = 0x12
    MISSING_PARAMETER = 0x14
    LARGE_BLOB_STORAGE_FULL = 0x18
    CREDENTIAL_EXCLUDED = 0x19
    UNSUPPORTED_ALGORITHM = 0x26
    OPERATION_DENIED = 0x27
    KEY_STORE_FULL = 0x28
    UNSUPPORTED_OPTION = 0x2B
    INVALID_OPTION = 0x2C
    KEEPALIVE_CANCEL = 0x2D
    NO_CREDENTIALS = 0x2E
    USER_ACTION_TIMEOUT = 0x2F
    NOT_ALLOWED = 0x30
    PIN_INVALID = 0x31
    PIN_BLOCKED = 0x32
    PIN_AUTH_INVALID = 0x33
    PIN_AUTH_BLOCKED = 0x34
    PIN_NOT_SET = 0x35
    PUAT_REQUIRED = 0x36
    PIN_POLICY_VIOLATION = 0x37
    REQUEST_TOO_LARGE = 0x39
    ACTION_TIMEOUT = 0x3A
    INTEGRITY_FAILURE = 0x3D
    INVALID_SUBCOMMAND = 0x3E
    UNAUTHORIZED_PERMISSION = 0x40
    OTHER = 0x7F
    EXTENSION_FIRST = 0xE0


@dataclass(frozen=True, slots=True, repr=False)
class PostHandshake:
    """The post-handshake message.

    `get_info`: CBOR of the getInfo response map, None if the phone does not speak CTAP; `features`: as announced, in
    received order, unknown ones included; `linking`: the linking map of a revision 0 phone; `revision`: 0 or 1.
    """

    get_info: bytes | None
    features: tuple[str, ...]
    linking: dict[Any, Any] | None = None
    revision: int = 1

    def __repr__(self) -> str:
        return f"<PostHandshake revision {self.revision} {' '.join(self.features)}>"

    def encode(self, *, list_features: bool = True) -> bytes:
        """Canonical CBOR, padded in revision 0. Without the list readers take CTAP alone for granted."""
        fields: dict[int, Any] = {3: list(self.features)} if list_features else {}
        if self.get_info is not None:
            fields[1] = self.get_info
        encoded = cbor.encode(fields)
        return encoded if self.revision else pad_revision_0(encoded)

    @classmethod
    def decode(cls, data: bytes) -> PostHandshake:
        """Read the message of a phone of either revision.

        A CBOR map that ends exactly at the end of the message is revision 1; otherwise the padded form of revision 0
        is tried ("hybrid transports", revisions; Chromium does the same).

        Raises:
            RemoteProtocolError: neither form; or features and getInfo contradict each other.
        """
        try:
            fields, revision = cbor.decode_map(data), 1
        except RemoteProtocolError:
            fields, revision = cbor.decode_map(unpad_revision_0(data)), 0
        features = fields.get(3, [FEATURE_CTAP])
        get_info = fields.get(1)
        linking = fields.get(2)
        if not isinstance(features, list):
            raise RemoteProtocolError("the phone's feature list is no list")
        if 1 in fields and not isinstance(get_info, bytes):
            raise RemoteProtocolError("the phone's getInfo is no byte string")
        if 2 in fields and not isinstance(linking, dict):
            raise RemoteProtocolError("the phone's linking information is no map")
        if (FEATURE_CTAP in features) != (get_info is not None):
            raise RemoteProtocolError("the phone's features and its getInfo contradict each other")
        return cls(get_info, tuple(f for f in features if isinstance(f, str)), linking, revision)


def pad_revision_0(message: bytes) -> bytes:
    """Padding of historic post-handshake messages: zeros and a 16-bit little-endian count, to a multiple of 512."""
    zeros = -(len(message) + 2) % REVISION_0_GRANULARITY
    return message + bytes(zeros) + zeros.to_bytes(2, "little")


def unpad_revision_0(padded: bytes) -> bytes:
    """CBOR map of a historic post-handshake message; the 16-bit count first, then the still older one-byte count.

    Raises:
        RemoteProtocolError: neither count leaves exactly one CBOR map.
    """
    for count_size in (2, 1):
        if len(padded) < count_size:
            continue
        size = len(padded) - count_size - int.from_bytes(padded[-count_size:], "little")
        if size <= 0:
            continue
        try:
            cbor.decode_map(padded[:size])
        except RemoteProtocolError:
            continue
        return padded[:size]
    raise RemoteProtocolError("the post-handshake message is neither a CBOR map nor a padded one")
