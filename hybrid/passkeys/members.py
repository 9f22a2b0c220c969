"""Reads the members of a request map, and names the status byte for whatever is not as it should be.

Missing: MISSING_PARAMETER; of the wrong type: UNEXPECTED_TYPE; not canonical CBOR: INVALID_CBOR (CTAP 2.3 §8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from hybrid import cbor
from hybrid.errors import RemoteProtocolError
from hybrid.passkeys.canonical import check_canonical
from hybrid.passkeys.rejected import Rejected
from hybrid.protocol.ctap import Status

T = TypeVar("T", int, str, bytes, bool, list[Any], dict[Any, Any])


def request_map(payload: bytes, *, lenient: bool = False) -> dict[Any, Any]:
    """Decode what follows the command byte; nothing is an empty map. Raises `Rejected`."""
    if not payload:
        return {}
    check_canonical(payload, lenient=lenient)
    try:
        value = cbor.decode(payload)
    except RemoteProtocolError:
        raise Rejected(Status.INVALID_CBOR) from None
    if not isinstance(value, dict):
        raise Rejected(Status.UNEXPECTED_TYPE)
    return value


def optional(fields: Mapping[Any, Any], key: int | str, kind: type[T]) -> T | None:
    """The member with this key, None if it is absent. Raises `Rejected`."""
    if key not in fields:
        return None
    return typed(fields[key], kind)


def required(fields: Mapping[Any, Any], key: int | str, kind: type[T]) -> T:
    """The member with this key. Raises `Rejected`."""
    if key not in fields:
        raise Rejected(Status.MISSING_PARAMETER)
    return typed(fields[key], kind)


def typed(value: Any, kind: type[T]) -> T:
    """`value`, if it is exactly of this type. Raises `Rejected`."""
    if type(value) is not kind:  # not isinstance: Python takes True for an int
        raise Rejected(Status.UNEXPECTED_TYPE)
    return value
