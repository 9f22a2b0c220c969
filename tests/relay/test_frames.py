"""WebSocket frames: examples of RFC 6455, every rule that a header can break, `websockets` as a second opinion."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from tunnel_server.frames import (
    Closing,
    Code,
    Event,
    FrameReader,
    Message,
    Ping,
    Violation,
    close_frame,
    header,
    whole_close,
    whole_message,
    xor,
)
from tunnel_server.masking import unmask

from .foreign_frames import Reading, check_agreement, theirs

LIMIT = 1 << 17
MASK = bytes.fromhex("37fa213d")  # of the examples in RFC 6455 section 5.7
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, bits: int = 0, mask: bytes | None = MASK) -> bytes:
    """Bytes of a client frame, legal or not."""
    size = len(payload)
    second = 0x80 if mask is not None else 0
    if size < 126:
        head = bytes([fin << 7 | bits | opcode, second | size])
    elif size < 65536:
        head = bytes([fin << 7 | bits | opcode, second | 126]) + struct.pack("!H", size)
    else:
        head = bytes([fin << 7 | bits | opcode, second | 127]) + struct.pack("!Q", size)
    return head + (b"" if mask is None else mask) + (payload if mask is None else xor(payload, mask))


def read(*pieces: bytes, limit: int = LIMIT) -> list[Event]:
    reader = FrameReader(limit)
    return [event for piece in pieces for event in reader.feed(piece)]


def one_by_one(data: bytes) -> Iterator[bytes]:
    for number in range(len(data)):
        yield data[number : number + 1]


def test_examples_of_the_standard() -> None:
    """RFC 6455 section 5.7; its text frames with the opcode of binary ones, because text is refused."""
    hello = bytes.fromhex("8285 37fa213d 7f9f4d5158")
    assert read(hello) == [Message(5, bytes.fromhex("8205") + b"Hello")]
    assert whole_message(hello, LIMIT) == (5, bytes.fromhex("8205") + b"Hello")
    assert read(bytes.fromhex("8985 37fa213d 7f9f4d5158")) == [Ping(bytes.fromhex("8a05 48656c6c6f"))]
    assert header(256) == bytes.fromhex("827e0100")
    assert header(65536) == bytes.fromhex("827f0000000000010000")
    assert close_frame(Code.LEFT) == bytes.fromhex("880203e8")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, LIMIT])
@pytest.mark.parametrize("mask", [MASK, bytes(4), b"\xff\x00\x00\x01"])
def test_every_form_of_length(size: int, mask: bytes) -> None:
    payload = bytes(number & 0xFF for number in range(size))
    data = frame(BINARY, payload, mask=mask)
    expected = Frame(Opcode.BINARY, payload).serialize(mask=False)
    for remove in (xor, unmask):
        assert whole_message(data, LIMIT, remove) == (size, expected)
        assert FrameReader(LIMIT, remove).feed(data) == [Message(size, expected)]
    assert read(data[:1], data[1:-1], data[-1:]) == [Message(size, expected)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        frame(BINARY, b"x")[:-1],
        frame(BINARY, b"x") + b"\x82",
        frame(BINARY, b"x", mask=None),
        frame(BINARY, b"x" * 5, mask=None),  # as long as a masked one
        frame(BINARY, bytes(126))[:-1],
        frame(BINARY, bytes(126)) + b"x",
        frame(BINARY, bytes(65536))[:-1],
        frame(BINARY, b"x", fin=False),
        frame(BINARY, b"x", bits=0x40),
        frame(TEXT, b"x"),
        frame(CLOSE),
        frame(PING, b"x"),
        frame(CONTINUATION, b"x"),
        b"\x82\xfe\x00\x05" + MASK + b"12345",  # a long form for a short length
        b"\x82\xff" + (130).to_bytes(8, "big") + MASK + bytes(130),
        frame(BINARY, bytes(101)),
        frame(BINARY, bytes(200)),
        frame(BINARY, bytes(70000)),
    ],
)
def test_the_short_way_takes_nothing_else(data: bytes) -> None:
    assert whole_message(data, 100) is None


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x0f\xa0reason", b"\x03\xe9" + b"x" * 123])
def test_the_short_way_for_a_close(payload: bytes) -> None:
    data = frame(CLOSE, payload)
    expected = bytes([0x88, len(payload)]) + payload
    for remove in (xor, unmask):
        assert whole_close(data, remove) == expected
    assert read(data) == [Closing(expected)]
    for other in (data[:-1], data + b"x", frame(CLOSE, payload, mask=None), frame(PING, payload)):
        assert whole_close(other) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        frame(CLOSE, b"x"),
        frame(CLOSE, b"\x03\xed"),  # 1005
        frame(CLOSE, b"\x03\xe8\xff"),
        frame(CLOSE, fin=False),
        frame(CLOSE, bits=0x40),
        frame(CLOSE, b"\x03\xe8" + bytes(124)),
    ],
)
def test_the_short_way_takes_no_other_close(data: bytes) -> None:
    assert whole_close(data) is None


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"\x82\x00", 1002),  # no mask
        (b"\x82\x7d", 1002),
        (b"\xc2\x80", 1002),  # reserved bits
        (b"\xa2\x80", 1002),
        (b"\x92\x80", 1002),
        *((bytes([0x80 | opcode, 0x80]), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        (b"\x80\x80", 1002),  # the rest of nothing
        (b"\x00\x80", 1002),
        (b"\x09\x80", 1002),  # control frames in pieces, or long
        (b"\x08\x80", 1002),
        (b"\x8a\xfe", 1002),
        (b"\x88\xff", 1002),
        (b"\x81\x80", 1003),
        (b"\x01\xff", 1003),
        (b"\x82\xfe\x00\x7d", 1002),  # more bytes for a length than it needs
        (b"\x82\xff" + (65535).to_bytes(8, "big"), 1002),
        (b"\x82\xff" + (LIMIT + 1).to_bytes(8, "big"), 1009),
        (b"\x82\xff" + b"\xff" * 8, 1009),
    ],
)
def test_refused_at_the_header(head: bytes, code: int) -> None:
    """As soon as the header says so: one byte less is not refused yet."""
    assert read(head) == [Violation(Code(code))]
    assert read(head[:-1]) == []
    assert read(frame(BINARY, b"before") + head)[1:] == [Violation(Code(code))]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(BINARY, b"a", fin=False) + frame(BINARY, b"b"), 1002),
        (frame(BINARY, b"a", fin=False) + frame(TEXT), 1003),
        (frame(BINARY, bytes(LIMIT), fin=False) + frame(CONTINUATION, b"x")[:2], 1009),
        (frame(BINARY, bytes(LIMIT // 2), fin=False) + frame(CONTINUATION, bytes(LIMIT // 2 + 1))[:10], 1009),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007),
        *((frame(CLOSE, struct.pack("!H", bad)), 1002) for bad in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000)),
    ],
)
def test_refused_later(data: bytes, code: int) -> None:
    assert read(data) == read(*one_by_one(data)) == [Violation(Code(code))]


@pytest.mark.parametrize("payload", [b"", *(struct.pack("!H", good) for good in (1000, 1001, 1011, 1014, 3000, 4999))])
def test_close_is_answered_alike(payload: bytes) -> None:
    payload += "gute Nacht ✓".encode() if payload else b""
    answer = bytes([0x88, len(payload)]) + payload
    assert read(frame(CLOSE, payload)) == [Closing(answer)]


def test_nothing_is_read_after_the_end() -> None:
    for last in (frame(CLOSE), b"\xff\xff"):
        reader = FrameReader(LIMIT)
        assert len(reader.feed(last + frame(BINARY, b"x"))) == 1
        assert reader.feed(frame(BINARY, b"x")) == []
        assert (reader.held, reader.empty) == (0, False)


def test_fragments_are_put_together_around_control_frames() -> None:
    data = frame(BINARY, b"a", fin=False) + frame(PING, b"?") + frame(CONTINUATION, b"", fin=False)
    data += frame(PONG, b"!") + frame(CONTINUATION, b"bc") + frame(BINARY) + frame(BINARY, fin=False)
    data += frame(CONTINUATION)
    expected = [Ping(b"\x8a\x01?"), Message(3, b"\x82\x03abc"), Message(0, b"\x82\x00"), Message(0, b"\x82\x00")]
    assert read(data) == read(*one_by_one(data)) == expected


def test_what_is_held_and_announced() -> None:
    reader = FrameReader(LIMIT)
    assert (reader.held, reader.announced, reader.empty) == (0, 0, True)
    reader.feed(frame(BINARY, bytes(1000))[:508])
    assert (reader.held, reader.announced, reader.empty) == (508, 1000, False)
    reader.feed(frame(BINARY, bytes(1000))[508:])
    assert (reader.held, reader.announced, reader.empty) == (0, 0, True)
    reader.feed(frame(BINARY, bytes(70), fin=False) + frame(CONTINUATION, bytes(100))[:16])
    assert (reader.held, reader.announced, reader.empty) == (86, 170, False)
    reader.feed(frame(CONTINUATION, bytes(100))[16:])
    assert (reader.held, reader.announced, reader.empty) == (0, 0, True)


@given(data=st.binary(max_size=300), mask=st.binary(min_size=4, max_size=4))
def test_masking_is_its_own_inverse(data: bytes, mask: bytes) -> None:
    assert xor(xor(data, mask), mask) == data
    assert xor(data, mask) == unmask(data, mask) == bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


FRAMES = st.builds(
    frame,
    st.sampled_from([BINARY] * 6 + [CONTINUATION] * 4 + [PING, PONG, CLOSE, TEXT, 3, 11]),
    st.one_of(
        st.binary(max_size=8),
        st.sampled_from([b"\x03\xe8", b"\x03\xe8bye", b"\x0f\xa0\xff", bytes(125), bytes(126), bytes(500)]),
    ),
    fin=st.sampled_from([True, True, False]),
    bits=st.sampled_from([0] * 12 + [0x10, 0x20, 0x40]),
    mask=st.one_of(st.binary(min_size=4, max_size=4), st.sampled_from([MASK] * 12 + [None])),
)


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    return [data[start:end] for start, end in pairwise(ends)]


@given(frames=st.lists(FRAMES, max_size=12), cuts=st.lists(st.integers(0, 400), max_size=20))
def test_websockets_reads_the_same(frames: list[bytes], cuts: list[int]) -> None:
    data = b"".join(frames)
    check_agreement(data, in_pieces(data, cuts), 600)


def test_the_comparison_can_fail() -> None:
    assert theirs([frame(BINARY, b"abc")], 600) == Reading([b"abc"])
    assert theirs([frame(CLOSE)], 600).end == 1005
    assert theirs([frame(BINARY, bytes(601))], 600).end == 1009
    assert theirs([frame(BINARY, b"x", mask=None)], 600).end == 1002
