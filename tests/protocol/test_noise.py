"""Both handshakes: whatever differs between the sides, and any flipped bit, ends them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid.errors import HandshakeFailed, LocalProtocolError
from hybrid.protocol.keys import HANDSHAKE_MESSAGE_SIZE, uncompressed
from hybrid.protocol.noise import CipherState, Initiator, Pattern, Responder
from tests.protocol.sides import CLIENT_EPHEMERAL, CLIENT_IDENTITY, PHONE_EPHEMERAL, PHONE_IDENTITY, key, secret

PATTERNS = pytest.mark.parametrize("pattern", list(Pattern))
PROLOGUES = {Pattern.KN_PSK0: b"\x01", Pattern.NK_PSK0: b"\x00"}
PSK = secret("psk", 32)


def initiator(pattern: Pattern, **change: Any) -> Initiator:
    static = CLIENT_IDENTITY if pattern is Pattern.KN_PSK0 else PHONE_IDENTITY.public_key()
    how = {"prologue": PROLOGUES[pattern], "psk": PSK, "static": static, "ephemeral": CLIENT_EPHEMERAL}
    return Initiator(pattern, **{**how, **change})


def responder(pattern: Pattern, **change: Any) -> Responder:
    static = CLIENT_IDENTITY.public_key() if pattern is Pattern.KN_PSK0 else PHONE_IDENTITY
    how = {"prologue": PROLOGUES[pattern], "psk": PSK, "static": static, "ephemeral": PHONE_EPHEMERAL}
    return Responder(pattern, **{**how, **change})


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ (1 << bit % 8)]) + data[bit // 8 + 1 :]


@PATTERNS
def test_both_sides_agree(pattern: Pattern) -> None:
    client = initiator(pattern)
    message_1 = client.write_message_1()
    message_2, phone_keys = responder(pattern).answer(message_1)
    client_keys = client.read_message_2(message_2)
    assert client_keys == phone_keys
    assert len(message_1) == len(message_2) == HANDSHAKE_MESSAGE_SIZE == 81
    assert len({client_keys.client_to_phone, client_keys.phone_to_client, client_keys.handshake_hash}) == 3


@PATTERNS
@given(bit=st.integers(0, 8 * HANDSHAKE_MESSAGE_SIZE - 1))
def test_any_flipped_bit_of_message_1_is_refused(pattern: Pattern, bit: int) -> None:
    message_1 = initiator(pattern).write_message_1()
    phone = responder(pattern)
    with pytest.raises(HandshakeFailed):
        phone.answer(flipped(message_1, bit))
    with pytest.raises(LocalProtocolError):
        phone.answer(message_1)  # no retry on the same state


@PATTERNS
@given(bit=st.integers(0, 8 * HANDSHAKE_MESSAGE_SIZE - 1))
def test_any_flipped_bit_of_message_2_is_refused(pattern: Pattern, bit: int) -> None:
    client = initiator(pattern)
    message_2, _ = responder(pattern).answer(client.write_message_1())
    with pytest.raises(HandshakeFailed):
        client.read_message_2(flipped(message_2, bit))
    with pytest.raises(LocalProtocolError):
        client.read_message_2(message_2)  # no retry on the same state


@PATTERNS
@pytest.mark.parametrize(
    "change",
    [
        {"prologue": b"\x02"},
        {"prologue": b""},
        {"psk": secret("another psk", 32)},
        {"psk": bytes(32)},
    ],
)
def test_what_both_must_know_is_checked(pattern: Pattern, change: dict[str, bytes]) -> None:
    with pytest.raises(HandshakeFailed):
        responder(pattern, **change).answer(initiator(pattern).write_message_1())


def test_prologues_do_not_mix() -> None:
    for pattern in Pattern:
        swapped = b"\x00" if PROLOGUES[pattern] == b"\x01" else b"\x01"
        with pytest.raises(HandshakeFailed):
            responder(pattern, prologue=swapped).answer(initiator(pattern).write_message_1())


def test_a_client_with_another_identity_is_refused() -> None:
    other = key("somebody else")
    with pytest.raises(HandshakeFailed):
        responder(Pattern.KN_PSK0, static=other.public_key()).answer(initiator(Pattern.KN_PSK0).write_message_1())
    # One that claims the right public key, but lacks its private half, cannot read message 2.
    client = initiator(Pattern.KN_PSK0)
    client._own_static = other
    message_2, _ = responder(Pattern.KN_PSK0).answer(client.write_message_1())
    with pytest.raises(HandshakeFailed):
        client.read_message_2(message_2)


def test_a_phone_with_another_identity_is_refused() -> None:
    other = key("somebody else")
    message_1 = initiator(Pattern.NK_PSK0, static=other.public_key()).write_message_1()
    with pytest.raises(HandshakeFailed):
        responder(Pattern.NK_PSK0).answer(message_1)


def test_patterns_do_not_mix() -> None:
    shared = {"prologue": b"\x00", "psk": PSK}
    with pytest.raises(HandshakeFailed):
        responder(Pattern.NK_PSK0, **shared).answer(initiator(Pattern.KN_PSK0, **shared).write_message_1())
    with pytest.raises(HandshakeFailed):
        responder(Pattern.KN_PSK0, **shared).answer(initiator(Pattern.NK_PSK0, **shared).write_message_1())


@PATTERNS
@pytest.mark.parametrize("change", [-81, -66, -16, -1, 1, 16, 81])
def test_other_lengths_are_refused(pattern: Pattern, change: int) -> None:
    client = initiator(pattern)
    message_1 = client.write_message_1()
    with pytest.raises(HandshakeFailed, match="81 belong"):
        responder(pattern).answer((message_1 + bytes(81))[: 81 + change])
    message_2, _ = responder(pattern).answer(message_1)
    with pytest.raises(HandshakeFailed, match="81 belong"):
        client.read_message_2((message_2 + bytes(81))[: 81 + change])


@PATTERNS
def test_points_are_uncompressed_and_on_the_curve(pattern: Pattern) -> None:
    tag = bytes(16)
    good = uncompressed(PHONE_EPHEMERAL.public_key())
    for point in (bytes(65), b"\x04" + bytes(64), b"\x06" + good[1:], b"\x02" + good[1:], b"\x04" + b"\xff" * 64):
        with pytest.raises(HandshakeFailed, match="point"):
            responder(pattern).answer(point + tag)
        client = initiator(pattern)
        client.write_message_1()
        with pytest.raises(HandshakeFailed, match="point"):
            client.read_message_2(point + tag)


@PATTERNS
@given(data=st.binary(max_size=100) | st.binary(min_size=81, max_size=81))
def test_any_bytes_are_refused(pattern: Pattern, data: bytes) -> None:
    with pytest.raises(HandshakeFailed):
        responder(pattern).answer(data)
    client = initiator(pattern)
    with pytest.raises(LocalProtocolError):
        client.read_message_2(data)
    client.write_message_1()
    with pytest.raises(HandshakeFailed):
        client.read_message_2(data)


def test_the_nonce_counts_up_and_stays_on_failure() -> None:
    sender, receiver = CipherState(PSK), CipherState(PSK)
    first, second = sender.encrypt(b"", b"h"), sender.encrypt(b"", b"h")
    assert first != second
    for wrong in (second, flipped(first, 0)):
        with pytest.raises(HandshakeFailed):
            receiver.decrypt(wrong, b"h")
    receiver.decrypt(first, b"h")
    with pytest.raises(HandshakeFailed):
        receiver.decrypt(first, b"h")
    receiver.decrypt(second, b"h")


def test_each_pattern_takes_its_own_kind_of_key() -> None:
    public, private = PHONE_IDENTITY.public_key(), PHONE_IDENTITY
    for make in (
        lambda: initiator(Pattern.KN_PSK0, static=public),
        lambda: initiator(Pattern.NK_PSK0, static=private),
        lambda: responder(Pattern.KN_PSK0, static=private),
        lambda: responder(Pattern.NK_PSK0, static=public),
    ):
        with pytest.raises(LocalProtocolError):
            make()


def test_no_secret_shows() -> None:
    client = initiator(Pattern.KN_PSK0)
    _, keys = responder(Pattern.KN_PSK0).answer(client.write_message_1())
    assert repr(keys) == "<TrafficKeys>"
    assert repr(client) == "<Initiator>"
    assert repr(responder(Pattern.KN_PSK0)) == "<Responder>"
    assert repr(CipherState(PSK)) == "<CipherState counter 0>"
    assert repr(client._symmetric) == "<SymmetricState>"
