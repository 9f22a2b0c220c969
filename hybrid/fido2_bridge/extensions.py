"""prf, largeBlob and credProps between a website and a phone (WebAuthn Level 3, "Defined Extensions").

Over hybrid there is no PIN/UV protocol, so `prf` and `largeBlob` go to the phone under their own names when its getInfo
lists them, in clear inside the tunnel: prf salts already hashed, blobs already deflated. `credProps` never leaves the
client. Other extensions are ignored. Secrets (prf results) stay out of every repr.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hybrid.errors import RefusalReason, RemoteProtocolError, RequestRefused, ResponseRejected
from hybrid.fido2_bridge.options import AssertionOptions, RegistrationOptions, read_bytes

PRF_SIZE = 32
MAX_BLOB = 1 << 20  # inflated; a phone's blob of a few bytes can claim to be gigabytes

_RAW_DEFLATE = -15
_SUPPORT = ("preferred", "required")


@dataclass(frozen=True, slots=True, repr=False)
class PrfSalts:
    """One or two salts for the phone, hashed from the website's inputs."""

    first: bytes
    second: bytes | None

    def __repr__(self) -> str:
        return f"<PrfSalts {1 if self.second is None else 2}>"

    def to_cbor(self) -> dict[str, bytes]:
        return {"first": self.first} if self.second is None else {"first": self.first, "second": self.second}


@dataclass(frozen=True, slots=True)
class RegistrationExtensions:
    """What a registration asks of extensions: prf at all, `prf_eval` its salts, largeBlob support, credProps."""

    prf: bool
    prf_eval: PrfSalts | None
    blob_support: str | None
    cred_props: bool

    def request(self, offered: frozenset[str]) -> dict[str, Any]:
        """Extensions member of makeCredential for a phone whose getInfo lists `offered`.

        Raises:
            RequestRefused: the website requires large blob storage and the phone has none.
        """
        wire: dict[str, Any] = {}
        if self.prf and "prf" in offered:
            wire["prf"] = {"eval": self.prf_eval.to_cbor()} if self.prf_eval else {}
        if self.blob_support and "largeBlob" in offered:
            wire["largeBlob"] = {"support": self.blob_support}
        elif self.blob_support == "required":
            raise _refused("the website requires large blob storage and this phone offers none")
        return wire

    def results(self, sent: Mapping[str, Any], unsigned: Mapping[str, Any]) -> dict[str, Any]:
        """Client extension results, from the phone's unsigned outputs.

        Raises:
            RemoteProtocolError: an output of the wrong shape.
            ResponseRejected: no large blob storage although it was required.
        """
        results: dict[str, Any] = {}
        if self.prf:
            output = _output(sent, unsigned, "prf")
            results["prf"] = {"enabled": _flag(output, "enabled")} | _prf_results(output, self.prf_eval)
        if self.blob_support:
            supported = _flag(_output(sent, unsigned, "largeBlob"), "supported")
            if self.blob_support == "required" and not supported:
                raise ResponseRejected("the passkey has no large blob storage", "large-blob")
            results["largeBlob"] = {"supported": supported}
        if self.cred_props:
            results["credProps"] = {"rk": True}  # phones create discoverable credentials only
        return results


@dataclass(frozen=True, slots=True)
class AssertionExtensions:
    """What a sign-in asks of extensions: prf salts, in general and by credential id, and a blob to read or write."""

    prf: bool
    prf_eval: PrfSalts | None
    prf_by_credential: Mapping[bytes, PrfSalts]
    blob_read: bool
    blob_write: bytes | None = field(repr=False)

    def request(self, offered: frozenset[str]) -> dict[str, Any]:
        """Extensions member of getAssertion for a phone whose getInfo lists `offered`."""
        wire: dict[str, Any] = {}
        if (self.prf_eval or self.prf_by_credential) and "prf" in offered:
            wire["prf"] = {}
            if self.prf_eval:
                wire["prf"]["eval"] = self.prf_eval.to_cbor()
            if self.prf_by_credential:
                salts = {name: salts.to_cbor() for name, salts in self.prf_by_credential.items()}
                wire["prf"]["evalByCredential"] = salts
        if "largeBlob" in offered:
            if self.blob_read:
                wire["largeBlob"] = {"read": True}
            elif self.blob_write is not None:
                deflate = zlib.compressobj(wbits=_RAW_DEFLATE)
                packed = deflate.compress(self.blob_write) + deflate.flush()
                wire["largeBlob"] = {"write": packed, "originalSize": len(self.blob_write)}
        return wire

    def results(self, sent: Mapping[str, Any], unsigned: Mapping[str, Any], credential_id: bytes) -> dict[str, Any]:
        """Client extension results, from the phone's unsigned outputs for the credential it chose.

        Raises:
            RemoteProtocolError: an output of the wrong shape.
        """
        results: dict[str, Any] = {}
        if self.prf:
            salts = self.prf_by_credential.get(credential_id, self.prf_eval)
            results["prf"] = _prf_results(_output(sent, unsigned, "prf"), salts)
        if self.blob_read:
            results["largeBlob"] = _read_blob(_output(sent, unsigned, "largeBlob"))
        elif self.blob_write is not None:
            results["largeBlob"] = {"written": _flag(_output(sent, unsigned, "largeBlob"), "written")}
        return results


def registration_extensions(options: RegistrationOptions) -> RegistrationExtensions:
    """Read the extension inputs of a registration.

    Raises:
        RequestRefused: members that only a sign-in may have, or of the wrong type. `OPTIONS`.
    """
    prf = _input(options.extensions, "prf")
    if prf and prf.get("evalByCredential") is not None:
        raise _refused("prf.evalByCredential is for signing in, not for a new passkey")
    blob = _input(options.extensions, "largeBlob")
    if blob and (blob.get("read") is not None or blob.get("write") is not None):
        raise _refused("largeBlob.read and .write are for signing in, not for a new passkey")
    support = blob.get("support", "preferred") if blob is not None else None
    if support is not None and support not in _SUPPORT:
        raise _refused("largeBlob.support is neither preferred nor required")
    return RegistrationExtensions(
        prf=prf is not None,
        prf_eval=_salts(prf.get("eval")) if prf else None,
        blob_support=support,
        cred_props=options.extensions.get("credProps") is True,
    )


def assertion_extensions(options: AssertionOptions) -> AssertionExtensions:
    """Read the extension inputs of a sign-in.

    Raises:
        RequestRefused: salts for credentials outside the allow list, reading and writing at once, writing for more
            than one credential, or members of the wrong type. `OPTIONS`.
    """
    prf = _input(options.extensions, "prf")
    blob = _input(options.extensions, "largeBlob") or {}
    if blob.get("support") is not None:
        raise _refused("largeBlob.support is for a new passkey, not for signing in")
    read, write = blob.get("read"), blob.get("write")
    if read is not None and not isinstance(read, bool):
        raise _refused("largeBlob.read is not a boolean")
    if write is not None:
        if read is not None:
            raise _refused("largeBlob.read and .write cannot be asked at once")
        if len(options.allow) != 1:
            raise _refused("largeBlob.write needs exactly one credential in allowCredentials")
    return AssertionExtensions(
        prf=prf is not None,
        prf_eval=_salts(prf.get("eval")) if prf else None,
        prf_by_credential=_salts_by_credential(prf, options.allow) if prf else {},
        blob_read=bool(read),
        blob_write=None if write is None else read_bytes(write, "largeBlob.write"),
    )


def _salts_by_credential(prf: Mapping[str, Any], allow: tuple[bytes, ...]) -> dict[bytes, PrfSalts]:
    entries = _input(prf, "evalByCredential") or {}
    salts = {}
    for name, values in entries.items():
        credential_id = read_bytes(name, "a key of prf.evalByCredential")
        if credential_id not in allow:
            raise _refused("prf.evalByCredential names a credential that allowCredentials does not")
        entry = _salts(values)
        if entry is None:
            raise _refused("an entry of prf.evalByCredential has no first")
        salts[credential_id] = entry
    return salts


def _salts(values: Any) -> PrfSalts | None:
    if values is None:
        return None
    if not isinstance(values, Mapping) or values.get("first") is None:
        raise _refused("prf salts have no first")
    second = values.get("second")
    return PrfSalts(_hashed(values["first"]), None if second is None else _hashed(second))


def _hashed(value: Any) -> bytes:
    # Hashing here keeps websites apart from other users of the phone's secret ("prf", client extension processing).
    return hashlib.sha256(b"WebAuthn PRF\x00" + read_bytes(value, "a prf salt")).digest()


def _input(members: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = members.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise _refused(f"the extension input {name} is not an object")
    return value


def _output(sent: Mapping[str, Any], unsigned: Mapping[str, Any], name: str) -> Mapping[Any, Any]:
    """Give the phone's output, empty if it gave none or was not asked."""
    value = unsigned.get(name, {}) if name in sent else {}
    if not isinstance(value, dict):
        raise RemoteProtocolError(f"the phone's {name} output is not a map")
    return value


def _flag(output: Mapping[Any, Any], name: str) -> bool:
    value = output.get(name, False)
    if not isinstance(value, bool):
        raise RemoteProtocolError(f"the phone's extension output {name} is not a boolean")
    return value


def _prf_results(output: Mapping[Any, Any], salts: PrfSalts | None) -> dict[str, Any]:
    results = output.get("results", {})
    if not isinstance(results, dict):
        raise RemoteProtocolError("the phone's prf results are not a map")
    if not results:
        return {}
    expected = set() if salts is None else set(salts.to_cbor())
    fits = set(results) == expected and all(
        isinstance(value, bytes) and len(value) == PRF_SIZE for value in results.values()
    )
    if not fits:
        raise RemoteProtocolError("the phone's prf results do not fit what was asked")
    return {"results": {name: results[name] for name in ("first", "second") if name in results}}


def _read_blob(output: Mapping[Any, Any]) -> dict[str, Any]:
    if "blob" not in output:
        return {}
    packed, size = output["blob"], output.get("originalSize")
    if not isinstance(packed, bytes) or type(size) is not int or size < 0:
        raise RemoteProtocolError("the phone's large blob has the wrong shape")
    # The content was stored by whichever client wrote it: a bad one is no blob, not a failed sign-in.
    inflate = zlib.decompressobj(wbits=_RAW_DEFLATE)
    try:
        blob = inflate.decompress(packed, MAX_BLOB + 1)
    except zlib.error:
        return {}
    if not inflate.eof or len(blob) != size or len(blob) > MAX_BLOB:
        return {}
    return {"blob": blob}


def _refused(message: str) -> RequestRefused:
    return RequestRefused(message, RefusalReason.OPTIONS)
