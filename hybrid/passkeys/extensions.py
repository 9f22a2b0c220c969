"""Extension inputs and outputs of makeCredential and getAssertion (CTAP 2.3 §12; native prf and largeBlob as phones
serve them over hybrid).

Inputs are read and checked before a person is asked. Outputs go to the signed authenticator data or, for the native
ones, to the unsigned outputs beside it; a client that finds an unknown name in the signed part drops the answer.
"""

from __future__ import annotations

import hmac
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hybrid.passkeys.members import optional, required, typed
from hybrid.passkeys.pin_protocols import PinProtocol
from hybrid.passkeys.rejected import Rejected
from hybrid.passkeys.state import AuthenticatorState
from hybrid.passkeys.store import Credential
from hybrid.protocol.ctap import Status

MAX_CRED_BLOB_SIZE = 32
MAX_LARGE_BLOB_SIZE = 4096  # compressed
MAX_INFLATED_SIZE = 1 << 20  # a size that a client claims is only believed after this much at most was inflated

_SALT_SIZE = 32

Protocols = Mapping[int, PinProtocol]


@dataclass(frozen=True, slots=True, repr=False)
class Salts:
    """One or two salts of 32 bytes, hashed by the client."""

    first: bytes
    second: bytes | None = None

    @classmethod
    def parse(cls, values: dict[Any, Any]) -> Salts:
        """Read ``{first, second?}``. Raises `Rejected`."""
        first, second = required(values, "first", bytes), optional(values, "second", bytes)
        if len(first) != _SALT_SIZE or (second is not None and len(second) != _SALT_SIZE):
            raise Rejected(Status.UNEXPECTED_TYPE)
        return cls(first, second)

    def evaluated(self, secret: bytes) -> list[bytes]:
        """The pseudo-random outputs for this passkey's secret."""
        salts = (self.first,) if self.second is None else (self.first, self.second)
        return [hmac.digest(secret, salt, "sha256") for salt in salts]


@dataclass(frozen=True, slots=True, repr=False)
class HmacSecret:
    """The encrypted input of hmac-secret and hmac-secret-mc, opened."""

    salts: Salts
    protocol: PinProtocol
    shared: bytes

    @classmethod
    def parse(cls, value: dict[Any, Any], protocols: Protocols) -> HmacSecret:
        """Read ``{1: keyAgreement, 2: saltEnc, 3: saltAuth, 4: protocol}``. Raises `Rejected`."""
        peer, salt_enc, salt_auth = required(value, 1, dict), required(value, 2, bytes), required(value, 3, bytes)
        version = optional(value, 4, int)
        protocol = protocols.get(1 if version is None else version)
        if protocol is None:
            raise Rejected(Status.INVALID_PARAMETER)
        if len(salt_enc) not in protocol.sizes(_SALT_SIZE, 2 * _SALT_SIZE) or len(salt_auth) != protocol.mac_size:
            raise Rejected(Status.INVALID_LENGTH)
        shared = protocol.decapsulate(peer)
        if not protocol.verify(shared, salt_enc, salt_auth):
            # Who names no protocol speaks CTAP 2.0 and knows this as an error of the extension.
            raise Rejected(Status.EXTENSION_FIRST if version is None else Status.PIN_AUTH_INVALID)
        salts = protocol.decrypt(shared, salt_enc)
        return cls(Salts(salts[:_SALT_SIZE], salts[_SALT_SIZE:] or None), protocol, shared)

    def sealed(self, secret: bytes) -> bytes:
        """The encrypted output."""
        return self.protocol.encrypt(self.shared, b"".join(self.salts.evaluated(secret)))


@dataclass(frozen=True, slots=True, repr=False)
class CreateInputs:
    """What makeCredential was asked beside the passkey. Absent and unsupported extensions are None or False."""

    prf: bool = False
    prf_salts: Salts | None = None
    large_blob: bool = False
    cred_protect: int | None = None
    cred_blob: bytes | None = None
    hmac_secret: bool = False
    hmac_secret_mc: HmacSecret | None = None
    large_blob_key: bool = False
    min_pin_length: bool = False
    payments: bool = False

    @classmethod
    def parse(cls, asked: Mapping[Any, Any], supported: tuple[str, ...], protocols: Protocols) -> CreateInputs:
        """Read the extensions member. Raises `Rejected`."""
        known = {name: value for name, value in asked.items() if name in supported}
        prf = optional(known, "prf", dict)
        prf_salts = None if prf is None else optional(prf, "eval", dict)
        hmac_secret = optional(known, "hmac-secret", bool) or False
        mc = optional(known, "hmac-secret-mc", dict)
        return cls(
            prf=prf is not None,
            prf_salts=None if prf_salts is None else Salts.parse(prf_salts),
            large_blob=_large_blob_support(optional(known, "largeBlob", dict)),
            cred_protect=_level(optional(known, "credProtect", int)),
            cred_blob=optional(known, "credBlob", bytes),
            hmac_secret=hmac_secret,
            hmac_secret_mc=HmacSecret.parse(mc, protocols) if mc is not None and hmac_secret else None,
            large_blob_key=_only_true(known, "largeBlobKey"),
            min_pin_length=_only_true(known, "minPinLength"),
            payments=optional(known, "thirdPartyPayment", bool) or False,
        )

    def outputs(
        self, credential: Credential, state: AuthenticatorState, *, verified: bool
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Signed and unsigned outputs for the new passkey."""
        signed: dict[str, Any] = {}
        unsigned: dict[str, Any] = {}
        if self.prf:
            unsigned["prf"] = {"enabled": True, **_prf_results(self.prf_salts, credential)}
        if self.large_blob:
            unsigned["largeBlob"] = {"supported": True}
        if self.cred_protect is not None:
            signed["credProtect"] = credential.cred_protect
        if self.cred_blob is not None:
            signed["credBlob"] = credential.cred_blob is not None
        if self.hmac_secret:
            signed["hmac-secret"] = True
        secret = _secret(credential, verified)
        if self.hmac_secret_mc is not None and secret is not None:
            signed["hmac-secret-mc"] = self.hmac_secret_mc.sealed(secret)
        if self.min_pin_length and credential.rp_id in state.min_pin_rp_ids:
            signed["minPinLength"] = state.min_pin_length
        return signed, unsigned


@dataclass(frozen=True, slots=True, repr=False)
class LargeBlobWrite:
    """A native large blob to keep: raw DEFLATE made by the client, and the size that it claims."""

    data: bytes
    original_size: int

    @property
    def fits(self) -> bool:
        """Whether it is small enough and really inflates to the claimed size."""
        if len(self.data) > MAX_LARGE_BLOB_SIZE or not 0 <= self.original_size <= MAX_INFLATED_SIZE:
            return False
        inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        try:
            inflated = inflater.decompress(self.data, self.original_size + 1)
        except zlib.error:
            return False
        return len(inflated) == self.original_size and inflater.eof and not inflater.unused_data


@dataclass(frozen=True, slots=True, repr=False)
class GetInputs:
    """What getAssertion was asked beside the signature. Absent and unsupported extensions are None or False."""

    prf_salts: Salts | None = None
    prf_by_credential: Mapping[bytes, Salts] = field(default_factory=dict)
    large_blob_read: bool = False
    large_blob_write: LargeBlobWrite | None = None
    cred_blob: bool = False
    hmac_secret: HmacSecret | None = None
    large_blob_key: bool = False
    payments: bool = False

    @classmethod
    def parse(
        cls, asked: Mapping[Any, Any], supported: tuple[str, ...], protocols: Protocols, *, present: bool
    ) -> GetInputs:
        """Read the extensions member; `present`: a person is asked. Raises `Rejected`."""
        known = {name: value for name, value in asked.items() if name in supported}
        prf = optional(known, "prf", dict) or {}
        evaluate = optional(prf, "eval", dict)
        by_credential = optional(prf, "evalByCredential", dict) or {}
        large_blob = optional(known, "largeBlob", dict)
        hmac_secret = optional(known, "hmac-secret", dict)
        if hmac_secret is not None and not present:
            raise Rejected(Status.UNSUPPORTED_OPTION)  # "hmac-secret": no secret leaves without a person
        return cls(
            prf_salts=None if evaluate is None else Salts.parse(evaluate),
            prf_by_credential={typed(k, bytes): Salts.parse(typed(v, dict)) for k, v in by_credential.items()},
            large_blob_read=large_blob is not None and _large_blob_read(large_blob),
            large_blob_write=None if large_blob is None else _large_blob_write(large_blob),
            cred_blob=optional(known, "credBlob", bool) or False,
            hmac_secret=None if hmac_secret is None else HmacSecret.parse(hmac_secret, protocols),
            large_blob_key=_only_true(known, "largeBlobKey"),
            payments=optional(known, "thirdPartyPayment", bool) or False,
        )

    def outputs(self, credential: Credential, *, verified: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """Signed and unsigned outputs for the passkey that is used; a write is reported as done."""
        signed: dict[str, Any] = {}
        unsigned: dict[str, Any] = {}
        results = _prf_results(self.prf_by_credential.get(credential.credential_id, self.prf_salts), credential)
        if results:
            unsigned["prf"] = results
        if self.large_blob_write is not None:
            unsigned["largeBlob"] = {"written": self.large_blob_write.fits}
        elif self.large_blob_read and credential.large_blob is not None:
            data, original_size = credential.large_blob
            unsigned["largeBlob"] = {"blob": data, "originalSize": original_size}
        if self.cred_blob:
            signed["credBlob"] = credential.cred_blob or b""
        secret = _secret(credential, verified)
        if self.hmac_secret is not None and secret is not None:
            signed["hmac-secret"] = self.hmac_secret.sealed(secret)
        if self.payments:
            signed["thirdPartyPayment"] = credential.payments
        return signed, unsigned


def _secret(credential: Credential, verified: bool) -> bytes | None:
    return credential.secret_uv if verified else credential.secret_no_uv


def _prf_results(salts: Salts | None, credential: Credential) -> dict[str, Any]:
    # "prf extension" (WebAuthn Level 3 §10.1.4) is the secret with user verification, whoever asks.
    if salts is None or credential.secret_uv is None:
        return {}
    return {"results": dict(zip(("first", "second"), salts.evaluated(credential.secret_uv), strict=False))}


def _level(level: int | None) -> int | None:
    if level is not None and level not in (1, 2, 3):
        raise Rejected(Status.INVALID_OPTION)
    return level


def _only_true(known: Mapping[str, Any], name: str) -> bool:
    value = optional(known, name, bool)
    if value is False:  # "largeBlobKey", "minPinLength": false is not a way to leave it out
        raise Rejected(Status.INVALID_OPTION)
    return value is True


def _large_blob_support(value: dict[Any, Any] | None) -> bool:
    if value is None:
        return False
    if required(value, "support", str) not in ("preferred", "required") or len(value) != 1:
        raise Rejected(Status.UNEXPECTED_TYPE)
    return True


def _large_blob_read(value: dict[Any, Any]) -> bool:
    read = optional(value, "read", bool)
    if read is not None and len(value) != 1:
        raise Rejected(Status.UNEXPECTED_TYPE)
    return read is True


def _large_blob_write(value: dict[Any, Any]) -> LargeBlobWrite | None:
    if "read" in value:
        return None
    write = LargeBlobWrite(required(value, "write", bytes), required(value, "originalSize", int))
    if len(value) != 2:
        raise Rejected(Status.UNEXPECTED_TYPE)
    return write
