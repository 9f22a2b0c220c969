"""The post-handshake message of both revisions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid import cbor
from hybrid.errors import RemoteProtocolError
from hybrid.protocol.ctap import PostHandshake, pad_revision_0, unpad_revision_0
from tests.protocol.sides import GET_INFO


def decoded(fields: dict[Any, Any]) -> PostHandshake:
    return PostHandshake.decode(cbor.encode(fields))


@given(st.binary(max_size=60), st.lists(st.text(max_size=6).filter(lambda feature: feature != "ctap"), max_size=3))
def test_messages_round_trip(get_info: bytes, others: list[str]) -> None:
    message = PostHandshake(get_info, (*others, "ctap"))
    assert PostHandshake.decode(message.encode()) == message
    without = PostHandshake(None, tuple(others))
    assert PostHandshake.decode(without.encode()) == without


def test_no_feature_list_means_ctap() -> None:
    assert decoded({1: GET_INFO}) == PostHandshake(GET_INFO, ("ctap",))


def test_features_keep_their_order_and_other_entries_are_dropped() -> None:
    message = decoded({1: GET_INFO, 3: ["x", 1, "dc", b"ctap", "ctap", ["y"], None, "x"]})
    assert message.features == ("x", "dc", "ctap", "x")


def test_unknown_keys_and_padding_are_ignored() -> None:
    assert decoded({0: bytes(9), 1: GET_INFO, 9: "new", "x": 1, -1: 2}) == decoded({1: GET_INFO})


def test_linking_is_taken_whenever_it_is_a_map() -> None:
    assert decoded({1: GET_INFO, 2: {1: b"c"}}).linking == {1: b"c"}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {1: {}},  # getInfo as a map, not as bytes
        {1: "text"},
        {1: None},
        {1: None, 3: ["dc"]},
        {1: GET_INFO, 3: "ctap"},
        {1: GET_INFO, 3: None},
        {1: GET_INFO, 3: {"ctap": 1}},
        {3: ["ctap"]},  # announced, but missing
        {3: ["dc", "ctap"]},
        {1: GET_INFO, 3: ["dc"]},  # there, but not announced
        {1: GET_INFO, 3: []},
        {1: GET_INFO, 3: [b"ctap"]},
        {1: GET_INFO, 2: [1]},
        {1: GET_INFO, 2: b""},
        {1: GET_INFO, 2: None},
    ],
)
def test_contradictions_are_refused(fields: dict[Any, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        decoded(fields)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x00", b"\xa1", bytes(32), b"\xa0\x00"])
def test_what_is_no_map_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        PostHandshake.decode(data)


@given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda data: cbor.encode({1: data}) + data))
def test_any_bytes_give_a_message_or_a_documented_error(data: bytes) -> None:
    try:
        message = PostHandshake.decode(data)
    except RemoteProtocolError:
        return
    assert ("ctap" in message.features) == (message.get_info is not None)


def test_repr_has_no_content() -> None:
    assert repr(decoded({1: GET_INFO})) == "<PostHandshake revision 1 ctap>"


# --- revision 0


@given(st.integers(0, 1100))
def test_revision_0_is_detected_and_its_padding_taken_off(size: int) -> None:
    encoded = cbor.encode({1: bytes(size)})
    padded = pad_revision_0(encoded)
    assert len(padded) % 512 == 0
    assert unpad_revision_0(padded) == encoded
    message = PostHandshake.decode(padded)
    assert (message.revision, message.get_info, message.features) == (0, bytes(size), ("ctap",))


def test_the_older_one_byte_count_is_taken_as_well() -> None:
    encoded = cbor.encode({1: GET_INFO})
    zeros = 255 - len(encoded)
    padded = encoded + bytes(zeros) + bytes([zeros])
    assert unpad_revision_0(padded) == encoded
    assert PostHandshake.decode(padded).revision == 0


@pytest.mark.parametrize(
    "padded",
    [b"", b"\x00", b"\xff" * 512, bytes(512), b"\xa0" + bytes(509) + b"\xff\xff", b"\x80" + bytes(509) + b"\xfd\x01"],
)
def test_impossible_padding_of_revision_0_is_refused(padded: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        unpad_revision_0(padded)


@given(st.binary(max_size=300))
def test_any_padded_bytes_give_a_map_or_a_documented_error(padded: bytes) -> None:
    try:
        cbor.decode_map(unpad_revision_0(padded))
    except RemoteProtocolError:
        return
