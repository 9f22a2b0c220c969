"""authenticatorLargeBlobs, judged by python-fido2's LargeBlobs, and rows for what it never sends."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from fido2.ctap import CtapError
from fido2.ctap2.blob import LargeBlobs
from fido2.ctap2.pin import PinProtocol

from hybrid import cbor
from hybrid.passkeys.store import MemoryStore
from tests.passkeys.roaming_rig import PROTOCOLS, Key

LBW = 0x10
MAX = 4096
ARRAY: list[dict[int, Any]] = [{1: b"x" * 30}]
EMPTY = b"\x80" + hashlib.sha256(b"\x80").digest()[:16]


def blobs(key: Key) -> LargeBlobs:
    return LargeBlobs(key.ctap, key.protocol, key.token(LBW))


def with_hash(array: bytes) -> bytes:
    return array + hashlib.sha256(array).digest()[:16]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_read_and_write(protocol: type[PinProtocol]) -> None:
    key = Key(protocol=protocol)
    assert key.ctap.info.max_large_blob == MAX
    large_blobs = blobs(key)
    assert large_blobs.read_blob_array() == []
    one, two = bytes(32), b"\x01" * 32
    large_blobs.put_blob(one, b"first")
    large_blobs.put_blob(two, b"second" * 50)
    assert (large_blobs.get_blob(one), large_blobs.get_blob(two)) == (b"first", b"second" * 50)
    large_blobs.delete_blob(one)
    assert (large_blobs.get_blob(one), large_blobs.get_blob(two)) == (None, b"second" * 50)
    again = Key(store=key.store, pin=None)
    assert LargeBlobs(again.ctap).get_blob(two) == b"second" * 50, "it outlives the program"
    key.ctap.reset()
    assert LargeBlobs(key.ctap).read_blob_array() == []


def test_in_fragments() -> None:
    key = Key()
    large_blobs = blobs(key)
    large_blobs.max_fragment_length = 1000
    array: list[Any] = [{1: bytes(MAX - 16 - 6)}]
    assert len(cbor.encode(array)) == MAX - 16
    large_blobs.write_blob_array(array)
    assert large_blobs.read_blob_array() == array
    with pytest.raises(CtapError) as caught:
        large_blobs.write_blob_array([*array, {}])
    assert caught.value.code == CtapError.ERR.LARGE_BLOB_STORAGE_FULL
    assert large_blobs.read_blob_array() == array


def test_without_a_pin_anybody_writes() -> None:
    key = Key(pin=None)
    LargeBlobs(key.ctap).write_blob_array(ARRAY)
    assert LargeBlobs(key.ctap).read_blob_array() == ARRAY


def test_permission() -> None:
    key = Key()
    with pytest.raises(CtapError) as caught:
        LargeBlobs(key.ctap).write_blob_array(ARRAY)
    assert caught.value.code == CtapError.ERR.PUAT_REQUIRED
    for permissions in (0x01, 0x02, 0x04, 0x20):
        with pytest.raises(CtapError) as caught:
            LargeBlobs(key.ctap, key.protocol, key.token(permissions, "example.com")).write_blob_array(ARRAY)
        assert caught.value.code == CtapError.ERR.PIN_AUTH_INVALID
    assert LargeBlobs(key.ctap).read_blob_array() == []


ROWS: dict[str, tuple[dict[int, Any] | None, int]] = {
    "no members": (None, 0x02),
    "no offset": ({1: 17}, 0x02),
    "offset below nothing": ({1: 17, 3: -1}, 0x02),
    "offset is text": ({1: 17, 3: "0"}, 0x11),
    "neither get nor set": ({3: 0}, 0x02),
    "get and set": ({1: 17, 2: EMPTY, 3: 0, 4: 17}, 0x02),
    "get": ({1: 17, 3: 0}, 0x00),
    "get nothing": ({1: 0, 3: 0}, 0x00),
    "get below nothing": ({1: -1, 3: 0}, 0x02),
    "get the most": ({1: 7609 - 64, 3: 0}, 0x00),
    "get more": ({1: 7609 - 63, 3: 0}, 0x03),
    "get at the end": ({1: 1, 3: 17}, 0x00),
    "get behind the end": ({1: 1, 3: 18}, 0x02),
    "get with length": ({1: 17, 3: 0, 4: 17}, 0x02),
    "get with signature": ({1: 17, 3: 0, 5: bytes(32)}, 0x02),
    "get with protocol": ({1: 17, 3: 0, 6: 2}, 0x02),
    "set": ({2: EMPTY, 3: 0, 4: 17}, 0x00),
    "set without length": ({2: EMPTY, 3: 0}, 0x02),
    "set too little": ({2: EMPTY[:16], 3: 0, 4: 16}, 0x02),
    "set too much": ({2: EMPTY, 3: 0, 4: MAX + 1}, 0x18),
    "set more than the length": ({2: EMPTY + b"x", 3: 0, 4: 17}, 0x02),
    "set a fragment too large": ({2: bytes(7609 - 63), 3: 0, 4: 17}, 0x03),
    "set in the middle": ({2: EMPTY, 3: 17}, 0x04),
    "set in the middle with length": ({2: EMPTY, 3: 17, 4: 34}, 0x02),
    "set with a wrong hash": ({2: EMPTY[:-1] + b"\0", 3: 0, 4: 17}, 0x3D),
    "set is text": ({2: "x", 3: 0, 4: 17}, 0x11),
}


@pytest.mark.parametrize(("fields", "expected"), ROWS.values(), ids=ROWS.keys())
def test_row(fields: dict[int, Any] | None, expected: int) -> None:
    key = Key(pin=None)
    assert key.status(0x0C, fields) == expected
    assert LargeBlobs(key.ctap).read_blob_array() == []


def test_a_write_is_in_order_and_all_or_nothing() -> None:
    key = Key(pin=None, store=MemoryStore())
    array = with_hash(cbor.encode(ARRAY))
    size = len(array)
    assert key.status(0x0C, {2: array[:20], 3: 0, 4: size}) == 0
    assert key.status(0x0C, {2: array[30:], 3: 30}) == 0x04
    assert LargeBlobs(key.ctap).read_blob_array() == []
    assert key.status(0x0C, {2: array[20:], 3: 20}) == 0
    assert LargeBlobs(key.ctap).read_blob_array() == ARRAY
    assert key.status(0x0C, {2: b"", 3: size}) == 0x04, "it is finished"
    assert key.status(0x0C, {2: array[:20], 3: 0, 4: size}) == 0
    key.authenticator.power_cycle()
    assert key.status(0x0C, {2: array[20:], 3: 20}) == 0x04


def test_the_signature_covers_offset_and_fragment() -> None:
    key = Key()
    token = key.token(LBW)
    array = with_hash(cbor.encode(ARRAY))

    def write(fragment: bytes, offset: int, *, signed: bytes, signed_offset: int, **more: Any) -> int:
        message = b"\xff" * 32 + b"\x0c\x00" + signed_offset.to_bytes(4, "little") + hashlib.sha256(signed).digest()
        fields = {2: fragment, 3: offset, 5: key.protocol.authenticate(token, message), 6: 2}
        return key.status(0x0C, {**fields, **({4: len(array)} if offset == 0 else {})})

    first, second = array[:20], array[20:]
    assert write(first, 0, signed=second, signed_offset=0) == 0x33
    assert write(first, 0, signed=first, signed_offset=20) == 0x33
    assert write(first, 0, signed=first, signed_offset=0) == 0
    assert write(second, 20, signed=second, signed_offset=0) == 0x33
    assert write(second, 20, signed=second, signed_offset=20) == 0
    assert LargeBlobs(key.ctap).read_blob_array() == ARRAY
