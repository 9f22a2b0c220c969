"""What a client asks: makeCredential and getAssertion requests as typed values (CTAP 2.3 §6.1 and §6.2).

Turns CBOR into values and names the status byte for whatever is not one. Decides nothing about passkeys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hybrid import cbor
from hybrid.errors import RemoteProtocolError
from hybrid.protocol.ctap import Status

MAX_MESSAGE_SIZE = 1 << 20
MAX_LIST_LENGTH = 64
MAX_CREDENTIAL_ID_SIZE = 1023

PUBLIC_KEY = "public-key"

_HASH_SIZE = 32
_MAX_USER_ID_SIZE = 64
_MAX_RP_ID_SIZE = 253  # the longest domain name


class Rejected(Exception):
    """This request is answered with `status` and nothing else. Never leaves the engine."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


@dataclass(frozen=True, slots=True)
class MakeCredentialRequest:
    """A well-formed makeCredential request.

    `algorithms` and `exclude` hold entries of type "public-key" only, in the client's order. Absent names are empty.
    `pin_uv_auth_param` is None if absent, which differs from empty.
    """

    client_data_hash: bytes
    rp_id: str
    rp_name: str
    user_id: bytes = field(repr=False)
    user_name: str
    user_display_name: str
    algorithms: tuple[int, ...]
    exclude: tuple[bytes, ...]
    options: Mapping[str, bool]
    pin_uv_auth_param: bytes | None

    @classmethod
    def parse(cls, payload: bytes) -> MakeCredentialRequest:
        """Read the bytes after the command byte. Raises `Rejected`."""
        fields = _fields(payload)
        client_data_hash = _hash(fields, 1)
        rp = _required(fields, 2, dict)
        rp_id = _rp_id(rp, "id")
        user = _required(fields, 3, dict)
        user_id = _required(user, "id", bytes)
        if not 1 <= len(user_id) <= _MAX_USER_ID_SIZE:
            raise Rejected(Status.UNEXPECTED_TYPE)
        for entity in (rp, user):
            _optional(entity, "icon", str)  # gone from WebAuthn, but its type is still checked
        algorithms = _algorithms(_required(fields, 4, list))
        exclude = _credential_ids(fields, 5)
        _optional(fields, 6, dict)
        options = _options(fields, 7)
        pin_uv_auth_param = _optional(fields, 8, bytes)
        _optional(fields, 9, int)
        return cls(
            client_data_hash=client_data_hash,
            rp_id=rp_id,
            rp_name=_optional(rp, "name", str) or "",
            user_id=user_id,
            user_name=_optional(user, "name", str) or "",
            user_display_name=_optional(user, "displayName", str) or "",
            algorithms=algorithms,
            exclude=exclude,
            options=options,
            pin_uv_auth_param=pin_uv_auth_param,
        )


@dataclass(frozen=True, slots=True)
class GetAssertionRequest:
    """A well-formed getAssertion request.

    `allow` is None if the list was absent or empty; an empty tuple means that it named only unknown types.
    """

    rp_id: str
    client_data_hash: bytes
    allow: tuple[bytes, ...] | None
    pin_uv_auth_param: bytes | None

    @classmethod
    def parse(cls, payload: bytes) -> GetAssertionRequest:
        """Read the bytes after the command byte. Raises `Rejected`."""
        fields = _fields(payload)
        rp_id = _rp_id(fields, 1)
        client_data_hash = _hash(fields, 2)
        allow = _credential_ids(fields, 3)
        _optional(fields, 4, dict)
        _options(fields, 5)
        pin_uv_auth_param = _optional(fields, 6, bytes)
        _optional(fields, 7, int)
        return cls(
            rp_id=rp_id,
            client_data_hash=client_data_hash,
            allow=allow if fields.get(3) else None,
            pin_uv_auth_param=pin_uv_auth_param,
        )


def _fields(payload: bytes) -> dict[Any, Any]:
    if not payload:
        return {}
    try:
        value = cbor.decode(payload)
    except RemoteProtocolError:
        raise Rejected(Status.INVALID_CBOR) from None
    # "Message Encoding" (CTAP 2.3 §8): one value has one encoding, so a request must equal its own re-encoding.
    if not _is_plain(value) or cbor.encode(value) != payload:
        raise Rejected(Status.INVALID_CBOR)
    if not isinstance(value, dict):
        raise Rejected(Status.UNEXPECTED_TYPE)
    return value


def _is_plain(value: Any) -> bool:
    """Whether `value` holds none of CBOR's floats, undefined and unassigned simple values."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or type(value) in (int, str, bytes, bool)


def _optional(fields: Mapping[Any, Any], key: int | str, kind: type) -> Any:
    if key not in fields:
        return None
    value = fields[key]
    if type(value) is not kind:  # not isinstance: Python takes True for an int
        raise Rejected(Status.UNEXPECTED_TYPE)
    return value


def _required(fields: Mapping[Any, Any], key: int | str, kind: type) -> Any:
    if key not in fields:
        raise Rejected(Status.MISSING_PARAMETER)
    return _optional(fields, key, kind)


def _hash(fields: Mapping[Any, Any], key: int) -> bytes:
    value: bytes = _required(fields, key, bytes)
    if len(value) != _HASH_SIZE:
        raise Rejected(Status.UNEXPECTED_TYPE)
    return value


def _rp_id(fields: Mapping[Any, Any], key: int | str) -> str:
    value: str = _required(fields, key, str)
    if len(value.encode()) > _MAX_RP_ID_SIZE:
        raise Rejected(Status.REQUEST_TOO_LARGE)
    return value


def _options(fields: Mapping[Any, Any], key: int) -> dict[str, bool]:
    options: dict[Any, Any] = _optional(fields, key, dict) or {}
    if any(type(name) is not str or type(value) is not bool for name, value in options.items()):
        raise Rejected(Status.UNEXPECTED_TYPE)
    return options


def _algorithms(entries: list[Any]) -> tuple[int, ...]:
    found = []
    for entry in entries:  # to the end: a malformed entry counts even after a match
        if not isinstance(entry, dict):
            raise Rejected(Status.UNEXPECTED_TYPE)
        algorithm: int = _required(entry, "alg", int)
        if _required(entry, "type", str) == PUBLIC_KEY:
            found.append(algorithm)
    return tuple(found)


def _credential_ids(fields: Mapping[Any, Any], key: int) -> tuple[bytes, ...]:
    entries = _optional(fields, key, list) or []
    if len(entries) > MAX_LIST_LENGTH:
        raise Rejected(Status.REQUEST_TOO_LARGE)
    found = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise Rejected(Status.UNEXPECTED_TYPE)
        credential_id: bytes = _required(entry, "id", bytes)
        kind = _required(entry, "type", str)
        transports = _optional(entry, "transports", list) or []
        if any(type(transport) is not str for transport in transports):
            raise Rejected(Status.UNEXPECTED_TYPE)
        if len(credential_id) > MAX_CREDENTIAL_ID_SIZE:
            raise Rejected(Status.REQUEST_TOO_LARGE)
        if kind == PUBLIC_KEY:
            found.append(credential_id)
    return tuple(found)
