"""Looks over the bytes of a request before anything is built from them (CTAP 2.3 §8, "Message Encoding").

One value has one encoding there: definite lengths, shortest integers, sorted and unique keys, valid UTF-8, no tags, no
floats, nothing after the value. Walks the bytes without making a single object of them, so that neither depth nor
counts cost memory. Not a decoder: that is `hybrid.cbor`.
"""

from __future__ import annotations

from hybrid.cbor import MAX_DEPTH
from hybrid.passkeys.rejected import Rejected
from hybrid.protocol.ctap import Status

MAX_ITEMS = 20_000  # values in one request; 64 credential ids with all their members are some 600

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_KEY_TYPES = (_UNSIGNED, _NEGATIVE, _BYTES, _TEXT)
_FALSE, _NULL = 20, 22
_LENGTH_FOLLOWS = {24: 1, 25: 2, 26: 4, 27: 8}


def check_canonical(data: bytes, *, lenient: bool = False) -> None:
    """Raise `Rejected` with INVALID_CBOR unless `data` is one canonical value.

    `lenient` lets maps pass whose keys are not sorted, as some clients send them.
    """
    walk = _Walk(data, lenient)
    if walk.value(0, 0) != len(data):
        raise Rejected(Status.INVALID_CBOR)


class _Walk:
    def __init__(self, data: bytes, lenient: bool) -> None:
        self._data = data
        self._lenient = lenient
        self._items = 0

    def value(self, at: int, depth: int) -> int:
        """Check the value that starts at `at`, inside `depth` others, and give where it ends."""
        self._items += 1
        if self._items > MAX_ITEMS:
            raise Rejected(Status.INVALID_CBOR)
        major, argument, at = self._head(at)
        if major in (_UNSIGNED, _NEGATIVE):
            return at
        if major in (_BYTES, _TEXT):
            return self._string(major, at, argument)
        if major == _SIMPLE:
            if not _FALSE <= argument <= _NULL:
                raise Rejected(Status.INVALID_CBOR)
            return at
        if major == _TAG or depth >= MAX_DEPTH:
            raise Rejected(Status.INVALID_CBOR)
        if major == _ARRAY:
            for _ in range(argument):
                at = self.value(at, depth + 1)
            return at
        return self._map(at, argument, depth + 1)

    def _head(self, at: int) -> tuple[int, int, int]:
        """Major type, argument, and where what follows starts."""
        if at >= len(self._data):
            raise Rejected(Status.INVALID_CBOR)
        major, low = self._data[at] >> 5, self._data[at] & 0x1F
        at += 1
        if low < 24:
            return major, low, at
        size = _LENGTH_FOLLOWS.get(low)
        # Simple values with more bytes are floats or unassigned; low 28 to 30 mean nothing, 31 an indefinite length.
        if size is None or major == _SIMPLE or at + size > len(self._data):
            raise Rejected(Status.INVALID_CBOR)
        argument = int.from_bytes(self._data[at : at + size], "big")
        shortest = argument >= 24 if size == 1 else argument >> (4 * size)
        if not shortest:
            raise Rejected(Status.INVALID_CBOR)
        return major, argument, at + size

    def _string(self, major: int, at: int, size: int) -> int:
        end = at + size
        if end > len(self._data):
            raise Rejected(Status.INVALID_CBOR)
        if major == _TEXT:
            try:
                self._data[at:end].decode()
            except UnicodeDecodeError:
                raise Rejected(Status.INVALID_CBOR) from None
        return end

    def _map(self, at: int, size: int, depth: int) -> int:
        last: tuple[int, int, bytes] | None = None
        seen: set[bytes] = set()
        for _ in range(size):
            start = at
            if at >= len(self._data) or self._data[at] >> 5 not in _KEY_TYPES:
                raise Rejected(Status.INVALID_CBOR)
            at = self.value(at, depth)
            key = self._data[start:at]
            rank = key[0] >> 5, len(key), key
            if self._lenient:
                if key in seen:
                    raise Rejected(Status.INVALID_CBOR)
                seen.add(key)
            elif last is not None and rank <= last:
                raise Rejected(Status.INVALID_CBOR)
            last = rank
            at = self.value(at, depth)
        return at
