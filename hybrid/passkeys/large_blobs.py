"""authenticatorLargeBlobs: one array for all sites, read and written in fragments (CTAP 2.3 §6.10).

The content is encrypted by clients with the keys of passkeys; here it is bytes with a hash at the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybrid.passkeys.members import optional
from hybrid.passkeys.pin import ClientPin, Permission
from hybrid.passkeys.rejected import Rejected
from hybrid.passkeys.requests import PinUvAuth
from hybrid.passkeys.state import StateKeeper
from hybrid.passkeys.store import CredentialStore
from hybrid.protocol.ctap import Command, Status

MAX_ARRAY_SIZE = 4096  # with its hash; 1024 at least

_SETTING = "large-blobs"
_HASH_SIZE = 16
_MIN_SIZE = 1 + _HASH_SIZE
_MESSAGE_OVERHEAD = 64


@dataclass(slots=True)
class _Write:
    size: int
    received: bytearray


class LargeBlobs:
    """The array of one authenticator, and the write that is under way."""

    def __init__(self, store: CredentialStore, state: StateKeeper, pin: ClientPin, max_message_size: int) -> None:
        self._store = store
        self._state = state
        self._pin = pin
        self._max_fragment = max_message_size - _MESSAGE_OVERHEAD
        self._write: _Write | None = None

    def power_cycle(self) -> None:
        """Forget a write that is under way."""
        self._write = None

    def forget(self) -> None:
        """Be as new."""
        self._write = None
        self._store.keep_setting(_SETTING, None)

    def answer(self, fields: Mapping[Any, Any]) -> dict[int, Any]:
        """Serve authenticatorLargeBlobs. Raises `Rejected`."""
        get, fragment = optional(fields, 1, int), optional(fields, 2, bytes)
        offset, length = optional(fields, 3, int), optional(fields, 4, int)
        auth = PinUvAuth.of(fields, param=5, protocol=6)
        if offset is None or offset < 0 or (get is None) == (fragment is None):
            raise Rejected(Status.INVALID_PARAMETER)
        if fragment is not None:
            self._set(fragment, offset, length, auth)
            return {}
        assert get is not None
        if get < 0 or length is not None or auth.param is not None or auth.protocol is not None:
            raise Rejected(Status.INVALID_PARAMETER)
        if get > self._max_fragment:
            raise Rejected(Status.INVALID_LENGTH)
        array = self._array()
        if offset > len(array):
            raise Rejected(Status.INVALID_PARAMETER)
        return {1: array[offset : offset + get]}

    def _array(self) -> bytes:
        return self._store.setting(_SETTING) or _with_hash(b"\x80")

    def _set(self, fragment: bytes, offset: int, length: int | None, auth: PinUvAuth) -> None:
        if len(fragment) > self._max_fragment:
            raise Rejected(Status.INVALID_LENGTH)
        if offset == 0:
            if length is None or length < _MIN_SIZE:
                raise Rejected(Status.INVALID_PARAMETER)
            if length > MAX_ARRAY_SIZE:
                raise Rejected(Status.LARGE_BLOB_STORAGE_FULL)
            self._write = _Write(length, bytearray())
        elif length is not None:
            raise Rejected(Status.INVALID_PARAMETER)
        write = self._write
        if write is None or offset != len(write.received):
            raise Rejected(Status.INVALID_SEQ)
        self._check_permission(fragment, offset, auth)
        if len(write.received) + len(fragment) > write.size:
            raise Rejected(Status.INVALID_PARAMETER)
        write.received += fragment
        if len(write.received) == write.size:
            self._write = None
            array = bytes(write.received)
            if array != _with_hash(array[:-_HASH_SIZE]):
                raise Rejected(Status.INTEGRITY_FAILURE)
            self._store.keep_setting(_SETTING, array)

    def _check_permission(self, fragment: bytes, offset: int, auth: PinUvAuth) -> None:
        if not self._pin.is_set and not self._state.now.always_uv:
            return
        if auth.param is None:
            raise Rejected(Status.PUAT_REQUIRED)
        message = b"\xff" * 32 + bytes([Command.LARGE_BLOBS, 0]) + offset.to_bytes(4, "little")
        self._pin.verify(auth, message + hashlib.sha256(fragment).digest(), Permission.LARGE_BLOB_WRITE)


def _with_hash(array: bytes) -> bytes:
    return array + hashlib.sha256(array).digest()[:_HASH_SIZE]
