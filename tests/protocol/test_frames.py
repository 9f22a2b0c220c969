"""Padding, sealing, message types, and ends of messages on a stream of bytes."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from hybrid.errors import LocalProtocolError, RemoteProtocolError
from hybrid.protocol.frames import (
    MAX_CHANCE_ENDS,
    MAX_COUNTER,
    STREAM_END,
    Frame,
    MessageType,
    Opener,
    Sealer,
    StreamReader,
    nonce,
    pad,
    split_stream,
    unpad,
)
from hybrid.protocol.keys import MAX_MESSAGE_SIZE
from tests.protocol.sides import secret

KEY = secret("traffic key", 32)
END = STREAM_END


# --- message types


@given(st.sampled_from(MessageType), st.binary(max_size=50))
def test_frames_round_trip(kind: MessageType, payload: bytes) -> None:
    frame = Frame(kind, payload)
    assert frame.encode() == bytes([kind]) + payload
    assert Frame.decode(frame.encode()) == frame
    assert repr(frame) == f"<Frame {kind.name} {len(payload)} bytes>"


@pytest.mark.parametrize("kind", range(4, 256))
def test_other_types_are_refused(kind: int) -> None:
    with pytest.raises(RemoteProtocolError):
        Frame.decode(bytes([kind, 0]))


def test_an_empty_message_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        Frame.decode(b"")


# --- padding


@given(st.binary(max_size=200))
def test_padding_round_trips(message: bytes) -> None:
    padded = pad(message)
    assert len(padded) % 32 == 0
    assert 1 <= len(padded) - len(message) <= 32
    assert padded[len(message) :] == bytes(len(padded) - len(message) - 1) + padded[-1:]
    assert unpad(padded) == message


@given(st.binary(max_size=300))
def test_any_padded_bytes_give_a_value_or_a_documented_error(padded: bytes) -> None:
    try:
        message = unpad(padded)
    except RemoteProtocolError:
        assert not padded or padded[-1] + 1 > len(padded)
    else:
        assert padded.startswith(message)
        assert len(padded) == len(message) + 1 + padded[-1]


@pytest.mark.parametrize("padded", [b"", b"\x01", b"\xff", b"\x00\x02", bytes(31) + b"\x20"])
def test_impossible_padding_is_refused(padded: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        unpad(padded)


@pytest.mark.parametrize(
    ("padded", "message"),
    [
        (b"\x00", b""),
        (bytes(31) + b"\x1f", b""),
        (b"m" + bytes(255) + b"\xff", b"m"),  # a count above 31
        (b"m" + b"\x01" * 3 + b"\x03", b"m"),  # not zeros
        (b"\x01" + b"m" + bytes(30) + b"\x1e", b"\x01m"),  # 33 bytes: padded before the type was added
    ],
)
def test_padding_of_other_peers_is_taken(padded: bytes, message: bytes) -> None:
    assert unpad(padded) == message


# --- sealing


def sealed_raw(padded: bytes, counter: int = 0) -> bytes:
    return AESGCM(KEY).encrypt(bytes(8) + counter.to_bytes(4, "big"), padded, b"")


def test_the_nonce_is_eight_zeros_and_the_counter() -> None:
    assert nonce(0) == bytes(12)
    assert nonce(0x010203) == bytes(9) + b"\x01\x02\x03"
    assert Sealer(KEY, 5).seal(b"m") == sealed_raw(pad(b"m"), 5)


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_sealed_messages_open_in_order(messages: list[bytes]) -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    for message in messages:
        assert opener.open(sealer.seal(message)) == message


@given(st.binary(max_size=60), st.data())
def test_any_flipped_bit_is_refused(message: bytes, data: st.DataObject) -> None:
    ciphertext = Sealer(KEY).seal(message)
    bit = data.draw(st.integers(0, 8 * len(ciphertext) - 1))
    tampered = bytearray(ciphertext)
    tampered[bit // 8] ^= 1 << bit % 8
    opener = Opener(KEY)
    with pytest.raises(RemoteProtocolError):
        opener.open(bytes(tampered))
    assert opener.open(ciphertext) == message  # the counter moved only for what was genuine


@given(st.binary(max_size=100))
def test_any_bytes_are_refused(data: bytes) -> None:
    assert not Opener(KEY).is_next(data)
    with pytest.raises(RemoteProtocolError):
        Opener(KEY).open(data)


def test_counters_are_neither_skipped_nor_used_again() -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    first, second, third = sealer.seal(b"1"), sealer.seal(b"2"), sealer.seal(b"3")
    assert opener.open(first) == b"1"
    with pytest.raises(RemoteProtocolError):
        opener.open(first)
    with pytest.raises(RemoteProtocolError):
        opener.open(third)
    assert opener.open(second) == b"2"


def test_equal_messages_do_not_look_equal() -> None:
    sealer = Sealer(KEY)
    assert sealer.seal(b"m") != sealer.seal(b"m")


def test_another_key_or_associated_data_is_refused() -> None:
    for ciphertext in (
        Sealer(secret("another key", 32)).seal(b"m"),
        AESGCM(KEY).encrypt(bytes(12), pad(b"m"), b"\x02"),
        AESGCM(KEY).encrypt((1).to_bytes(12, "little"), pad(b"m"), b""),
    ):
        with pytest.raises(RemoteProtocolError):
            Opener(KEY).open(ciphertext)


@pytest.mark.parametrize("padded", [b"", b"\x01", bytes(31) + b"\x20"])
def test_bad_padding_under_a_good_seal_is_refused(padded: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="padding"):
        Opener(KEY).open(sealed_raw(padded))


def test_counters_end() -> None:
    last = Sealer(KEY, MAX_COUNTER).seal(b"last")
    opener = Opener(KEY, MAX_COUNTER)
    assert opener.open(last) == b"last"
    sealer = Sealer(KEY, MAX_COUNTER + 1)
    with pytest.raises(LocalProtocolError):
        sealer.seal(b"one more")
    with pytest.raises(RemoteProtocolError, match="more messages"):
        opener.open(sealed_raw(pad(b"one more"), MAX_COUNTER + 1))


def test_messages_have_a_largest_size() -> None:
    largest = MAX_MESSAGE_SIZE - 32 - 1  # padded to a multiple of 32, and a tag of 16
    ciphertext = Sealer(KEY).seal(bytes(largest))
    assert len(ciphertext) == MAX_MESSAGE_SIZE - 16
    assert len(Opener(KEY).open(ciphertext)) == largest
    sealer = Sealer(KEY)
    with pytest.raises(LocalProtocolError):
        sealer.seal(bytes(largest + 1))
    assert sealer.seal(b"m") == Sealer(KEY).seal(b"m")  # nothing was counted
    with pytest.raises(RemoteProtocolError, match="1 MiB"):
        Opener(KEY).open(sealed_raw(bytes(MAX_MESSAGE_SIZE - 15)))


def test_no_key_shows() -> None:
    assert repr(Sealer(KEY, 3)) == "<Sealer counter 3>"
    assert repr(Opener(KEY, 3)) == "<Opener counter 3>"


# --- streams


def read_all(reader: StreamReader, opener: Opener, stream: bytes, sizes: list[int]) -> list[bytes]:
    messages: list[bytes] = []
    at = 0
    while at < len(stream):
        size = sizes[len(messages) % len(sizes)] if sizes else len(stream)
        reader.feed(stream[at : at + size])
        at += size
        while (message := reader.next_message(opener)) is not None:
            messages.append(opener.open(message))
    return messages


@given(st.lists(st.binary(max_size=40), max_size=5), st.lists(st.integers(1, 70), max_size=6))
def test_a_stream_gives_its_messages_however_it_is_cut(messages: list[bytes], sizes: list[int]) -> None:
    sealer = Sealer(KEY)
    stream = b"".join(sealer.seal(message) + END for message in messages)
    assert read_all(StreamReader(), Opener(KEY), stream, sizes) == messages


def messages_with_an_end_inside() -> list[tuple[int, bytes]]:
    """Counters and messages whose ciphertext holds CR LF by chance, and one that ends with CR."""
    found = []
    for counter in range(3):
        for number in range(100_000):
            message = number.to_bytes(4, "big") + bytes(500)
            ciphertext = Sealer(KEY, counter).seal(message)
            if ciphertext.endswith(b"\r") if counter == 2 else END in ciphertext:
                found.append((counter, message))
                break
    return found


def test_an_end_inside_a_message_is_no_end() -> None:
    chosen = messages_with_an_end_inside()
    sealer = Sealer(KEY)
    ciphertexts = [sealer.seal(message) for _, message in chosen]
    assert [END in ciphertext for ciphertext in ciphertexts[:2]] == [True, True]
    assert ciphertexts[2].endswith(b"\r")
    stream = b"".join(ciphertext + END for ciphertext in ciphertexts)
    for sizes in ([], [1], [7, 64], [len(ciphertexts[0]) + 1]):
        assert read_all(StreamReader(), Opener(KEY), stream, sizes) == [message for _, message in chosen]


@given(st.lists(st.integers(1, 200), max_size=4))
def test_handshake_messages_may_hold_an_end(sizes: list[int]) -> None:
    message = secret("handshake", 30) + END + secret("more", 49)
    sealed = Sealer(KEY).seal(b"next")
    reader, opener = StreamReader(), Opener(KEY)
    stream = message + END + sealed + END
    got: list[bytes] = []
    for size in [*sizes, len(stream)]:
        reader.feed(stream[:size])
        stream = stream[size:]
        while (whole := reader.next_message(opener if got else None)) is not None:
            got.append(whole)
    assert got == [message, sealed]


@pytest.mark.parametrize("size", [0, 80, 82, 100])
def test_a_handshake_message_ends_after_81_bytes(size: int) -> None:
    reader = StreamReader()
    reader.feed(b"x" * size + END + bytes(83))
    with pytest.raises(RemoteProtocolError, match="81 bytes"):
        reader.next_message(None)


def test_too_many_ends_are_refused() -> None:
    reader, opener = StreamReader(), Opener(KEY)
    reader.feed(END * MAX_CHANCE_ENDS)
    assert reader.next_message(opener) is None
    reader.feed(END)
    with pytest.raises(RemoteProtocolError, match="any of its ends"):
        reader.next_message(opener)


def test_chance_ends_are_counted_for_each_message() -> None:
    reader = StreamReader()
    _, message = messages_with_an_end_inside()[0]
    for _ in range(MAX_CHANCE_ENDS + 10):
        reader.feed(Sealer(KEY).seal(message) + END)
        assert reader.next_message(Opener(KEY)) is not None


def test_a_stream_without_an_end_is_bounded() -> None:
    reader, opener = StreamReader(), Opener(KEY)
    reader.feed(bytes(MAX_MESSAGE_SIZE) + b"\r")
    assert reader.next_message(opener) is None
    reader.feed(b"xx")
    with pytest.raises(RemoteProtocolError, match="1 MiB"):
        reader.next_message(opener)


def test_the_largest_message_and_the_next_one_may_come_together() -> None:
    sealer = Sealer(KEY)
    largest = bytes(MAX_MESSAGE_SIZE - 32 - 1)
    stream = sealer.seal(largest) + END + sealer.seal(b"next") + END
    assert read_all(StreamReader(), Opener(KEY), stream, []) == [largest, b"next"]


@given(st.lists(st.binary(max_size=120) | st.just(END), max_size=8), st.booleans())
def test_any_stream_gives_nothing_or_a_documented_error(pieces: list[bytes], handshake: bool) -> None:
    reader, opener = StreamReader(), Opener(KEY)
    for piece in pieces:
        reader.feed(piece)
        try:
            while (message := reader.next_message(None if handshake else opener)) is not None:
                assert handshake
                assert len(message) == 81
        except RemoteProtocolError:
            return
    assert repr(reader).startswith("<StreamReader ")


@given(
    st.lists(st.binary(max_size=20).filter(lambda piece: END not in piece + b"\r" and piece[-1:] != b"\r"), max_size=4)
)
def test_split(messages: list[bytes]) -> None:
    stream = b"".join(message + END for message in messages)
    assert split_stream(stream + b"rest") == (messages, b"rest")
