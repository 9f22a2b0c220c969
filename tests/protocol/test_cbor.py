"""CBOR: strict where peers must be, tolerant where they differ, canonical on the way out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid import cbor
from hybrid.errors import RemoteProtocolError

KEYS = st.integers(-(2**64), 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=8)
VALUES = st.recursive(
    KEYS | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


@given(VALUES.filter(lambda value: depth(value) <= cbor.MAX_DEPTH))
def test_what_is_encoded_decodes(value: Any) -> None:
    assert cbor.decode(cbor.encode(value)) == value


@given(VALUES.filter(lambda value: depth(value) <= cbor.MAX_DEPTH), st.binary(min_size=1, max_size=5))
def test_a_prefix_ends_where_its_value_ends(value: Any, rest: bytes) -> None:
    encoded = cbor.encode(value)
    assert cbor.decode_prefix(encoded + rest) == (value, len(encoded))
    with pytest.raises(RemoteProtocolError):
        cbor.decode(encoded + rest)


@given(st.binary(max_size=64))
def test_any_bytes_give_a_value_or_a_documented_error(data: bytes) -> None:
    try:
        value, size = cbor.decode_prefix(data)
    except RemoteProtocolError:
        return
    assert 0 < size <= len(data)
    cbor.encode(value)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        # CTAP 2.3 §8, "Message Encoding": keys by major type, then length, then bytes
        ({"aa": 1, "b": 2, 24: 3, -1: 4, 1: 5, b"z": 6}, "a601051818032004417a0661620262616101"),
        ({256: 0, 24: 0, 255: 0}, "a318180018ff0019010000"),
        ({"outer": {"type": 1, "alg": 2}}, "a1656f75746572a263616c67026474797065 01".replace(" ", "")),
        ([{2: 0, 1: 0}], "81a201000200"),
        ((1, 2), "820102"),
        ({}, "a0"),
    ],
)
def test_out_is_canonical(value: Any, encoded: str) -> None:
    assert cbor.encode(value).hex() == encoded


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        ("a202000100", {1: 0, 2: 0}),  # unsorted
        ("1801", 1),  # long form
        ("5801ff", b"\xff"),
        ("b80101f5", {1: True}),
        ("fb3ff0000000000000", 1.0),
    ],
)
def test_in_is_tolerant_where_peers_differ(encoded: str, value: Any) -> None:
    assert cbor.decode(bytes.fromhex(encoded)) == value


@pytest.mark.parametrize(
    "encoded",
    [
        "",  # nothing
        "18",  # truncated
        "58ff00",
        "a101",
        "0000",  # bytes follow
        "a201000100",  # a key twice
        "a20100180100",  # a key twice, once in long form
        "a2616101616102",
        "a1a10100a2010001 00".replace(" ", ""),  # a map as a key
        "9fff",  # indefinite
        "5f41ffff",
        "7f6161ff",
        "bf0100ff",
        "ff",
        "1c",  # reserved
        "f818",
        "62c328",  # not UTF-8
        "63eda080",  # a surrogate
        "5bffffffffffffffff",  # huge lengths cost nothing
        "9b7fffffffffffffff",
        "bb0000010000000000",
    ],
)
def test_in_refuses(encoded: str) -> None:
    with pytest.raises(RemoteProtocolError):
        cbor.decode(bytes.fromhex(encoded))


@pytest.mark.parametrize(
    "tag", [0, 1, 2, 3, 4, 5, 24, 25, 28, 29, 30, 37, 100, 256, 258, 260, 1004, 43000, 55799, 2**63]
)
@pytest.mark.parametrize("content", ["00", "40", "60", "80", "820101", "a0", "6a323032302d30312d3031"])
def test_in_refuses_every_tag(tag: int, content: str) -> None:
    head = bytes([0xC0 | tag]) if tag < 24 else b"\xdb" + tag.to_bytes(8, "big")
    with pytest.raises(RemoteProtocolError):
        cbor.decode(head + bytes.fromhex(content))


@pytest.mark.parametrize("key", ["f5", "f6", "f7", "f93c00", "80", "a0", "8101"])
def test_keys_are_integers_text_or_bytes(key: str) -> None:
    with pytest.raises(RemoteProtocolError):
        cbor.decode(bytes.fromhex(f"a1{key}00"))
    with pytest.raises(RemoteProtocolError):
        cbor.decode(bytes.fromhex(f"81a101a1{key}00"))


def test_depth_is_bounded() -> None:
    cbor.decode(b"\x81" * cbor.MAX_DEPTH + b"\x00")
    for levels in (cbor.MAX_DEPTH + 1, 100_000):
        with pytest.raises(RemoteProtocolError):
            cbor.decode(b"\x81" * levels + b"\x00")


@pytest.mark.parametrize("encoded", ["80", "00", "f6", "40"])
def test_a_map_is_a_map(encoded: str) -> None:
    assert cbor.decode_map(b"\xa0") == {}
    with pytest.raises(RemoteProtocolError):
        cbor.decode_map(bytes.fromhex(encoded))
