"""What a client asks: makeCredential and getAssertion requests as typed values (CTAP 2.3 §6.1 and §6.2).

Turns a CBOR map into values and names the status byte for whatever is not one. Decides nothing about passkeys;
extension inputs stay as they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hybrid.passkeys.consent import shown_rp_id
from hybrid.passkeys.members import optional, required, typed
from hybrid.passkeys.profiles import Profile
from hybrid.passkeys.rejected import Rejected
from hybrid.protocol.ctap import Status

PUBLIC_KEY = "public-key"

_OPTIONS = ("rk", "up", "uv")
_HASH_SIZE = 32
_MAX_USER_ID_SIZE = 64
_MAX_RP_ID_SIZE = 253  # the longest domain name


@dataclass(frozen=True, slots=True)
class PinUvAuth:
    """pinUvAuthParam and pinUvAuthProtocol of a request; `param` is None if absent, which differs from empty."""

    param: bytes | None = field(default=None, repr=False)
    protocol: int | None = None

    @classmethod
    def of(cls, fields: Mapping[Any, Any], *, param: int, protocol: int) -> PinUvAuth:
        """Read the two members with these keys. Raises `Rejected`."""
        return cls(optional(fields, param, bytes), optional(fields, protocol, int))


@dataclass(frozen=True, slots=True)
class MakeCredentialRequest:
    """A well-formed makeCredential request.

    `algorithms` and `exclude` hold entries of type "public-key" only, in the client's order. Absent names are empty.
    """

    client_data_hash: bytes
    rp_id: str
    rp_name: str
    user_id: bytes = field(repr=False)
    user_name: str
    user_display_name: str
    user_icon: str | None
    algorithms: tuple[int, ...]
    exclude: tuple[bytes, ...]
    extensions: Mapping[Any, Any] = field(repr=False)
    options: Mapping[str, bool]
    auth: PinUvAuth
    enterprise_attestation: int | None
    attestation_formats: tuple[str, ...]

    @classmethod
    def parse(cls, fields: Mapping[Any, Any], profile: Profile) -> MakeCredentialRequest:
        """Read the request map. Raises `Rejected`."""
        client_data_hash = _hash(fields, 1)
        rp = required(fields, 2, dict)
        rp_id = _rp_id(rp, "id")
        user = required(fields, 3, dict)
        user_id = required(user, "id", bytes)
        if not 1 <= len(user_id) <= _MAX_USER_ID_SIZE:
            raise Rejected(Status.UNEXPECTED_TYPE)
        optional(rp, "icon", str)  # gone from WebAuthn, but its type is still checked
        names = {f"rp.{name}" for name in rp} | {f"user.{name}" for name in user}
        if profile.required_names - names:
            raise Rejected(Status.MISSING_PARAMETER)
        return cls(
            client_data_hash=client_data_hash,
            rp_id=rp_id,
            rp_name=optional(rp, "name", str) or "",
            user_id=user_id,
            user_name=optional(user, "name", str) or "",
            user_display_name=optional(user, "displayName", str) or "",
            user_icon=optional(user, "icon", str),
            algorithms=_algorithms(required(fields, 4, list)),
            exclude=_credential_ids(fields, 5, profile),
            extensions=optional(fields, 6, dict) or {},
            options=_options(fields, 7),
            auth=PinUvAuth.of(fields, param=8, protocol=9),
            enterprise_attestation=optional(fields, 10, int),
            attestation_formats=tuple(typed(name, str) for name in optional(fields, 11, list) or []),
        )


@dataclass(frozen=True, slots=True)
class GetAssertionRequest:
    """A well-formed getAssertion request.

    `allow` is None if the list was absent or empty; an empty tuple means that it named only unknown types.
    """

    rp_id: str
    client_data_hash: bytes
    allow: tuple[bytes, ...] | None
    extensions: Mapping[Any, Any] = field(repr=False)
    options: Mapping[str, bool]
    auth: PinUvAuth

    @classmethod
    def parse(cls, fields: Mapping[Any, Any], profile: Profile) -> GetAssertionRequest:
        """Read the request map. Raises `Rejected`."""
        rp_id = _rp_id(fields, 1)
        client_data_hash = _hash(fields, 2)
        allow = _credential_ids(fields, 3, profile)
        return cls(
            rp_id=rp_id,
            client_data_hash=client_data_hash,
            allow=allow if fields.get(3) else None,
            extensions=optional(fields, 4, dict) or {},
            options=_options(fields, 5),
            auth=PinUvAuth.of(fields, param=6, protocol=7),
        )


def descriptor_id(descriptor: Mapping[Any, Any]) -> bytes | None:
    """The id in a PublicKeyCredentialDescriptor, None if it is of an unknown type. Raises `Rejected`."""
    credential_id = required(descriptor, "id", bytes)
    kind = required(descriptor, "type", str)
    for transport in optional(descriptor, "transports", list) or []:
        typed(transport, str)
    return credential_id if kind == PUBLIC_KEY else None


def _hash(fields: Mapping[Any, Any], key: int) -> bytes:
    value = required(fields, key, bytes)
    if len(value) != _HASH_SIZE:
        raise Rejected(Status.UNEXPECTED_TYPE)
    return value


def _rp_id(fields: Mapping[Any, Any], key: int | str) -> str:
    value = required(fields, key, str)
    if len(value.encode()) > _MAX_RP_ID_SIZE:
        raise Rejected(Status.REQUEST_TOO_LARGE)
    if not shown_rp_id(value):
        raise Rejected(Status.INVALID_PARAMETER)  # a person could not be told which site it is
    return value


def _options(fields: Mapping[Any, Any], key: int) -> dict[str, bool]:
    options = optional(fields, key, dict) or {}
    # Unknown ones count as absent, whatever they hold.
    return {name: typed(value, bool) for name, value in options.items() if typed(name, str) in _OPTIONS}


def _algorithms(entries: list[Any]) -> tuple[int, ...]:
    found = []
    for entry in entries:  # to the end: a malformed entry counts even after a match
        algorithm = required(typed(entry, dict), "alg", int)
        if required(entry, "type", str) == PUBLIC_KEY:
            found.append(algorithm)
    return tuple(found)


def _credential_ids(fields: Mapping[Any, Any], key: int, profile: Profile) -> tuple[bytes, ...]:
    entries = optional(fields, key, list) or []
    if len(entries) > profile.max_list_length:
        raise Rejected(Status.REQUEST_TOO_LARGE)
    found = []
    for entry in entries:
        credential_id = descriptor_id(typed(entry, dict))
        if credential_id is None:
            continue
        if len(credential_id) > profile.max_credential_id_size:
            raise Rejected(Status.REQUEST_TOO_LARGE)
        found.append(credential_id)
    return tuple(found)
