"""The phone's answers, parsed (CTAP 2.3, "authenticatorMakeCredential" and "authenticatorGetAssertion" responses;
WebAuthn Level 3, "Authenticator Data").

Shape only: whether an answer fits its request is judged in `ceremony`. Bytes that are signed or handed on are kept as
they came. A status other than 0 is python-fido2's `CtapError`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fido2.ctap import CtapError

from hybrid import cbor
from hybrid.errors import RemoteProtocolError
from hybrid.fido2_bridge.credential_key import CredentialKey, cose_algorithm, parse_cose

MAX_CREDENTIAL_ID = 1023
_MAX_MEMBERS = 64
_MAX_USER_ID = 64
_AUTH_DATA_HEAD = 37

UP, UV, BE, BS, AT, ED = 0x01, 0x04, 0x08, 0x10, 0x40, 0x80


@dataclass(frozen=True, slots=True)
class AttestedCredential:
    """The new credential inside authenticator data. `key`: None if its algorithm is not known here."""

    aaguid: bytes
    credential_id: bytes
    algorithm: int
    key: CredentialKey | None


@dataclass(frozen=True, slots=True)
class AuthenticatorData:
    """Authenticator data. `raw`: the very bytes that the phone sent and signed."""

    raw: bytes = field(repr=False)
    rp_id_hash: bytes
    flags: int
    counter: int
    credential: AttestedCredential | None


@dataclass(frozen=True, slots=True)
class AttestationAnswer:
    """A makeCredential response. `statement`: CBOR of attStmt as it came; `unsigned`: extension outputs."""

    fmt: str
    auth_data: AuthenticatorData
    credential: AttestedCredential
    statement: bytes = field(repr=False)
    unsigned: Mapping[str, Any] = field(repr=False)

    def attestation_object(self) -> bytes:
        """Give WebAuthn's attestation object around the phone's own bytes ("Generating an Attestation Object")."""
        auth_data = cbor.encode(self.auth_data.raw)
        return (
            b"\xa3"
            + (cbor.encode("fmt") + cbor.encode(self.fmt))
            + (cbor.encode("attStmt") + self.statement)
            + (cbor.encode("authData") + auth_data)
        )


@dataclass(frozen=True, slots=True)
class AssertionAnswer:
    """A getAssertion response. `credential_id`, `user_id`: None where the phone left them out."""

    credential_id: bytes | None
    auth_data: AuthenticatorData
    signature: bytes = field(repr=False)
    user_id: bytes | None = field(repr=False)
    unsigned: Mapping[str, Any] = field(repr=False)


def parse_attestation(answer: bytes) -> AttestationAnswer:
    """Read status byte and CBOR of a makeCredential response.

    Raises:
        CtapError: the status is not 0.
        RemoteProtocolError: malformed, or without the credential it announces.
    """
    body, members = _body(answer)
    auth_data = parse_authenticator_data(_member(members, 2, bytes, "authData"))
    if auth_data.credential is None:
        raise RemoteProtocolError("the phone's answer has no attested credential")
    _member(members, 3, dict, "attStmt")
    return AttestationAnswer(
        fmt=_member(members, 1, str, "fmt"),
        auth_data=auth_data,
        credential=auth_data.credential,
        statement=_raw_member(body, 3),
        unsigned=_unsigned(members, 6),
    )


def parse_assertion(answer: bytes) -> AssertionAnswer:
    """Read status byte and CBOR of a getAssertion response.

    Raises:
        CtapError: the status is not 0.
        RemoteProtocolError: malformed.
    """
    _, members = _body(answer)
    user_id = None
    if 4 in members:
        user_id = _member(_member(members, 4, dict, "user"), "id", bytes, "user id")
        if not 1 <= len(user_id) <= _MAX_USER_ID:
            raise RemoteProtocolError("the phone's answer has a user id of illegal length")
    return AssertionAnswer(
        credential_id=_credential_id(members),
        auth_data=parse_authenticator_data(_member(members, 2, bytes, "authData")),
        signature=_member(members, 3, bytes, "signature"),
        user_id=user_id,
        unsigned=_unsigned(members, 8),
    )


def parse_authenticator_data(raw: bytes) -> AuthenticatorData:
    """Read authenticator data to its last byte.

    Raises:
        RemoteProtocolError: truncated, followed by more bytes, or with a part that its flags do not announce.
    """
    if len(raw) < _AUTH_DATA_HEAD:
        raise RemoteProtocolError("the authenticator data is too short")
    flags, counter = struct.unpack_from(">BI", raw, 32)
    rest = raw[_AUTH_DATA_HEAD:]
    credential = None
    if flags & AT:
        credential, rest = _attested_credential(rest)
    if flags & ED:
        extensions, size = cbor.decode_prefix(rest)
        if not isinstance(extensions, dict):
            raise RemoteProtocolError("the authenticator data has extensions that are not a map")
        rest = rest[size:]
    if rest:
        raise RemoteProtocolError("bytes follow the authenticator data")
    return AuthenticatorData(raw, raw[:32], flags, counter, credential)


def _attested_credential(data: bytes) -> tuple[AttestedCredential, bytes]:
    if len(data) < 18:
        raise RemoteProtocolError("the attested credential is too short")
    end = 18 + int.from_bytes(data[16:18], "big")
    credential_id = data[18:end]
    if len(data) < end or not 1 <= len(credential_id) <= MAX_CREDENTIAL_ID:
        raise RemoteProtocolError("the attested credential has an id of illegal length")
    cose, size = cbor.decode_prefix(data[end:])
    if not isinstance(cose, dict):
        raise RemoteProtocolError("the attested credential's key is not a COSE map")
    credential = AttestedCredential(data[:16], credential_id, cose_algorithm(cose), parse_cose(cose))
    return credential, data[end + size :]


def _body(answer: bytes) -> tuple[bytes, dict[Any, Any]]:
    if not answer:
        raise RemoteProtocolError("the phone's answer is empty")
    if answer[0] != CtapError.ERR.SUCCESS:
        raise CtapError(answer[0])
    body = answer[1:]
    members = cbor.decode_map(body)
    if len(members) > _MAX_MEMBERS:
        raise RemoteProtocolError("the phone's answer has too many members")
    return body, members


def _member(members: Mapping[Any, Any], key: int | str, kind: type[Any], name: str) -> Any:
    value = members.get(key)
    if not isinstance(value, kind):
        raise RemoteProtocolError(f"the phone's answer has no {name} of the right type")
    return value


def _credential_id(members: Mapping[Any, Any]) -> bytes | None:
    if 1 not in members:
        return None
    credential = _member(members, 1, dict, "credential")
    credential_id: bytes = _member(credential, "id", bytes, "credential id")
    if credential.get("type") != "public-key" or not 1 <= len(credential_id) <= MAX_CREDENTIAL_ID:
        raise RemoteProtocolError("the phone's answer has a credential of unknown type or illegal length")
    return credential_id


def _unsigned(members: Mapping[Any, Any], key: int) -> Mapping[str, Any]:
    outputs: Mapping[str, Any] = {} if key not in members else _member(members, key, dict, "extension outputs")
    return outputs


def _raw_member(body: bytes, wanted: int) -> bytes:
    """Slice one value out of a map that is known to decode and to have it: re-encoding could change its bytes."""
    position = 1 + {24: 1, 25: 2, 26: 4, 27: 8}.get(body[0] & 0x1F, 0)
    while True:
        key, size = cbor.decode_prefix(body[position:])
        position += size
        _, size = cbor.decode_prefix(body[position:])
        if key == wanted:
            return body[position : position + size]
        position += size
