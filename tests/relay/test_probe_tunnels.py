"""The relay's tunnels and frames, tried by a stranger with raw sockets: who gets in, what arrives, which code."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from .probe_rig import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Ended,
    Peer,
    RelayProcess,
    closing,
    frame,
    new_path,
    running,
    still_works,
    tunnel_id,
    works,
)
from .tls import Certificate

pytestmark = pytest.mark.slow  # most of it starts processes, or takes many examples

MESSAGE, TOTAL, EARLY = 128 * 1024, 1024 * 1024, 64 * 1024


@pytest.fixture(scope="module")
def plain() -> Iterator[RelayProcess]:
    with running() as relay:
        yield relay


@pytest.fixture(scope="module")
def over_tls(certificate: Certificate) -> Iterator[RelayProcess]:
    files = ("--cert", str(certificate.cert), "--key", str(certificate.key))
    with running(*files, tls=certificate.client_context()) as relay:
        yield relay


@pytest.fixture(params=["plain", "tls"])
def relay(request: pytest.FixtureRequest) -> Iterator[RelayProcess]:
    relay: RelayProcess = request.getfixturevalue("plain" if request.param == "plain" else "over_tls")
    yield relay
    relay.close_all()


@pytest.fixture
def pair(relay: RelayProcess) -> tuple[Peer, Peer]:
    return relay.pair()


# ---- who gets in


def test_a_taken_id_is_refused_and_its_owner_notices_nothing(relay: RelayProcess) -> None:
    tunnel = tunnel_id()
    owner, routing_id = relay.owner(tunnel)
    assert relay.status(new_path(tunnel)) == 409
    assert relay.status(new_path(tunnel.upper())) == 409
    guest = relay.join(routing_id, tunnel)
    still_works(owner, guest)
    assert relay.status(new_path(tunnel)) == 409
    still_works(owner, guest)


def test_a_third_party_is_refused_and_the_pair_notices_nothing(relay: RelayProcess) -> None:
    tunnel = tunnel_id()
    owner, routing_id = relay.owner(tunnel)
    guest = relay.join(routing_id, tunnel)
    assert relay.status(f"/cable/connect/{routing_id}/{tunnel}") == 404
    still_works(owner, guest)


def test_a_wrong_routing_id_is_refused_and_the_tunnel_stays(relay: RelayProcess) -> None:
    tunnel = tunnel_id()
    owner, routing_id = relay.owner(tunnel)
    for bit in range(24):
        assert relay.status(f"/cable/connect/{int(routing_id, 16) ^ (1 << bit):06x}/{tunnel}") in (404, 502)
    still_works(owner, relay.join(routing_id, tunnel))


def test_hexadecimal_digits_have_no_case(relay: RelayProcess) -> None:
    tunnel = tunnel_id()
    owner, routing_id = relay.owner(tunnel.upper())
    still_works(owner, relay.join(routing_id.lower(), tunnel))


def test_an_ended_owner_never_ends_a_later_tunnel_of_the_same_id(relay: RelayProcess) -> None:
    tunnel = tunnel_id()
    first, _ = relay.owner(tunnel)
    first.send(closing(1000))
    assert first.close_code() == 1000
    second, routing_id = relay.owner(tunnel)
    first.close()
    works(relay)
    still_works(second, relay.join(routing_id, tunnel))


def test_an_owner_who_left_takes_the_tunnel_along(relay: RelayProcess) -> None:
    tunnel = tunnel_id()
    owner, routing_id = relay.owner(tunnel)
    owner.send(closing(1000))
    assert owner.close_code() == 1000
    assert relay.status(f"/cable/connect/{routing_id}/{tunnel}") == 404


def test_an_ended_pair_is_consumed(relay: RelayProcess) -> None:
    tunnel = tunnel_id()
    owner, routing_id = relay.owner(tunnel)
    guest = relay.join(routing_id, tunnel)
    guest.send(closing(1000))
    assert owner.close_code() == 1000
    assert relay.status(f"/cable/connect/{routing_id}/{tunnel}") == 404
    assert relay.status(new_path(tunnel)) == 101


# ---- what arrives


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 9, 124, 125, 126, 127, 65535, 65536, MESSAGE])
def test_messages_of_every_kind_of_length(pair: tuple[Peer, Peer], size: int) -> None:
    owner, guest = pair
    message = (bytes(range(251)) * (size // 251 + 1))[:size]
    owner.send(frame(BINARY, message))
    assert guest.message() == message
    guest.send(frame(BINARY, message, mask=b"\x00\xff\x80\x01"))
    assert owner.message() == message


def test_frames_cut_anywhere(pair: tuple[Peer, Peer]) -> None:
    owner, guest = pair
    data = frame(BINARY, b"a" * 130) + frame(PING, b"p") + frame(BINARY, b"b" * 3) + frame(BINARY, b"")
    for byte in data:
        owner.send(bytes([byte]))
    assert [guest.message(), guest.message(), guest.message()] == [b"a" * 130, b"b" * 3, b""]
    assert owner.frame() == (PONG, b"p")


def test_fragments_are_put_together(pair: tuple[Peer, Peer]) -> None:
    owner, guest = pair
    parts = [bytes([number]) * (number % 5) for number in range(200)]
    owner.send(frame(BINARY, b"", fin=False))
    for part in parts:
        owner.send(frame(CONTINUATION, part, fin=False), frame(PING, b""))
    owner.send(frame(CONTINUATION, b"end"))
    assert guest.message() == b"".join(parts) + b"end"
    owner.send(frame(BINARY, b"x" * (MESSAGE - 1), fin=False), frame(CONTINUATION, b"y"))
    assert guest.message() == b"x" * (MESSAGE - 1) + b"y"
    still_works(owner, guest)


def test_pings_are_answered_and_nobody_else_hears_of_them(pair: tuple[Peer, Peer]) -> None:
    owner, guest = pair
    for number in range(130):
        owner.send(frame(PING, bytes([number]) * (number % 126)), frame(PONG, b"nobody asked"))
        assert owner.frame() == (PONG, bytes([number]) * (number % 126))
    owner.send(frame(BINARY, b"x"))
    assert guest.frame() == (BINARY, b"x")


def test_early_messages_wait_in_order(relay: RelayProcess) -> None:
    tunnel = tunnel_id()
    owner, routing_id = relay.owner(tunnel)
    early = [bytes([number]) * (EARLY // 8) for number in range(8)]
    owner.send(*(frame(BINARY, message) for message in early))
    guest = relay.join(routing_id, tunnel)
    assert [guest.message() for _ in early] == early
    still_works(owner, guest)


def test_both_sides_have_their_own_counts(pair: tuple[Peer, Peer]) -> None:
    owner, guest = pair
    for side, other in ((owner, guest), (guest, owner)):
        messages = [bytes([number]) * (TOTAL // 64) for number in range(64)]
        for message in messages:
            side.send(frame(BINARY, message))
            assert other.message() == message
    owner.send(frame(PING, b"still"))
    assert owner.frame() == (PONG, b"still")
    owner.send(frame(BINARY, b""))
    assert (owner.close_code(), guest.close_code()) == (1008, 1008)


# ---- which code


LEGAL_UNTIL_THEN = frame(BINARY, b"before")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(BINARY, b"x", mask=None), 1002, id="unmasked"),
        pytest.param(frame(BINARY, b"", mask=None), 1002, id="unmasked and empty"),
        pytest.param(frame(PING, b"", mask=None), 1002, id="unmasked ping"),
        pytest.param(frame(BINARY, bytes(MESSAGE), mask=None)[:2], 1002, id="unmasked, seen from its first bytes"),
        pytest.param(frame(BINARY, b"x", bits=0x40), 1002, id="reserved bit 1"),
        pytest.param(frame(BINARY, b"x", bits=0x20), 1002, id="reserved bit 2"),
        pytest.param(frame(BINARY, b"x", bits=0x10), 1002, id="reserved bit 3"),
        pytest.param(frame(PING, b"x", bits=0x40), 1002, id="reserved bit in a ping"),
        pytest.param(frame(BINARY, bytes(200), bits=0x40)[:2], 1002, id="reserved bit, seen from its first bytes"),
        *(pytest.param(frame(opcode, b"x"), 1002, id=f"opcode {opcode}") for opcode in (3, 4, 5, 6, 7, 11, 12, 15)),
        pytest.param(frame(PING, b"x", fin=False), 1002, id="ping in fragments"),
        pytest.param(frame(CLOSE, b"\x03\xe8", fin=False), 1002, id="close in fragments"),
        pytest.param(frame(PING, bytes(126)), 1002, id="long ping"),
        pytest.param(frame(PING, bytes(126))[:2], 1002, id="long ping, seen from its first bytes"),
        pytest.param(frame(CONTINUATION, b"x"), 1002, id="continuation of nothing"),
        pytest.param(frame(BINARY, b"x", fin=False) + frame(BINARY, b"y"), 1002, id="message inside a message"),
        pytest.param(frame(CLOSE, b"\x03"), 1002, id="half a close code"),
        pytest.param(closing(999), 1002, id="close code 999"),
        pytest.param(closing(1005), 1002, id="close code 1005"),
        pytest.param(closing(1006), 1002, id="close code 1006"),
        pytest.param(closing(5000), 1002, id="close code 5000"),
        pytest.param(frame(TEXT, b"text"), 1003, id="text"),
        pytest.param(frame(TEXT, b"te", fin=False), 1003, id="text in fragments"),
        pytest.param(frame(TEXT, bytes(MESSAGE))[:2], 1003, id="text, seen from its first bytes"),
        pytest.param(frame(BINARY, bytes(MESSAGE + 1)), 1009, id="long message"),
        pytest.param(frame(BINARY, bytes(MESSAGE + 1))[:10], 1009, id="long message, seen from its length"),
        pytest.param(b"\x82\xff" + b"\x7f" + b"\xff" * 7, 1009, id="longest message"),
        pytest.param(
            frame(BINARY, bytes(MESSAGE), fin=False) + frame(CONTINUATION, b"x")[:2], 1009, id="long in fragments"
        ),
        pytest.param(frame(BINARY, b"x") * 64, 1008, id="one message too many"),
        pytest.param(frame(BINARY, bytes(MESSAGE)) * 7 + frame(BINARY, bytes(MESSAGE - 5)), 1008, id="byte too many"),
    ],
)
def test_broken_rules_are_told_to_both(pair: tuple[Peer, Peer], data: bytes, code: int) -> None:
    owner, guest = pair
    owner.send(LEGAL_UNTIL_THEN, data)
    assert guest.message() == b"before"
    assert guest.close_code() == code
    assert owner.close_code() == code
    guest.send(closing(code))
    guest.until_end()  # the relay ends it, and nobody hangs


def test_a_length_with_its_highest_bit_is_refused(pair: tuple[Peer, Peer]) -> None:
    owner, guest = pair
    owner.send(b"\x82\xff" + b"\xff" * 8)
    assert guest.close_code() == owner.close_code()


@pytest.mark.parametrize("length", [b"\xfe\x00\x05", b"\xff" + struct.pack("!Q", 5)], ids=["16 bits", "64 bits"])
def test_a_length_that_is_longer_than_it_has_to_be(pair: tuple[Peer, Peer], length: bytes) -> None:
    """RFC 6455 5.2 forbids it; a relay may refuse it or understand it, not more."""
    owner, guest = pair
    owner.send(b"\x82" + length + bytes(4) + b"hello")
    opcode, payload = guest.frame()
    assert (opcode, payload) in ((BINARY, b"hello"), (CLOSE, struct.pack("!H", 1002)))


@pytest.mark.parametrize(
    ("early", "code"),
    [
        pytest.param([b"x"] * 9, 1008, id="one message too many"),
        pytest.param([bytes(EARLY), b"x"], 1008, id="one byte too many"),
        pytest.param([bytes(EARLY + 1)], 1008, id="one byte too many at once"),
        pytest.param([bytes(MESSAGE + 1)], 1009, id="too long for anybody"),
    ],
)
def test_too_much_too_early(relay: RelayProcess, early: list[bytes], code: int) -> None:
    tunnel = tunnel_id()
    owner, routing_id = relay.owner(tunnel)
    owner.send(*(frame(BINARY, message) for message in early))
    assert owner.close_code() == code
    assert relay.status(f"/cable/connect/{routing_id}/{tunnel}") == 404


@pytest.mark.parametrize(
    "close",
    [frame(CLOSE), closing(1000), closing(1001), closing(1000, b"done"), closing(3000), closing(4999, b"x" * 123)],
    ids=["empty", "1000", "1001", "with a reason", "3000", "longest"],
)
def test_who_leaves_is_answered_and_the_other_hears_1000(pair: tuple[Peer, Peer], close: bytes) -> None:
    owner, guest = pair
    guest.send(close)
    assert owner.close_code() == 1000
    guest.close_code()
    guest.until_end()  # the server ends the connection, RFC 6455 7.1.1
    owner.send(closing(1000))
    owner.until_end()


def test_the_other_side_hears_of_a_close_before_the_connection_ends(pair: tuple[Peer, Peer]) -> None:
    owner, guest = pair
    guest.send(closing(1000))
    assert owner.close_code() == 1000  # and nobody has closed a socket yet


def test_nothing_after_a_close_counts(pair: tuple[Peer, Peer]) -> None:
    owner, guest = pair
    guest.send(frame(BINARY, b"last"), closing(1000), frame(BINARY, b"after"), frame(TEXT, b"after"), b"\xff" * 99)
    assert owner.message() == b"last"
    assert owner.frame() == (CLOSE, struct.pack("!H", 1000))


@pytest.mark.parametrize("way", ["end", "reset", "half"])
@pytest.mark.parametrize("who", ["owner", "guest"])
def test_who_vanishes_is_told_with_1001(plain: RelayProcess, who: str, way: str) -> None:
    owner, guest = plain.pair()
    one, other = (owner, guest) if who == "owner" else (guest, owner)
    one.send(frame(BINARY, b"whole"), frame(BINARY, b"never whole")[:9])
    assert other.message() == b"whole"
    {"end": one.close, "reset": one.reset, "half": one.half_close}[way]()
    assert other.close_code() == 1001
    other.send(closing(1001))
    other.until_end()


def test_a_tls_peer_that_vanishes(over_tls: RelayProcess) -> None:
    owner, guest = over_tls.pair()
    guest.reset()
    assert owner.close_code() == 1001


def test_what_was_sent_just_before_a_close_all_arrives(pair: tuple[Peer, Peer]) -> None:
    owner, guest = pair
    messages = [bytes([number]) * 16000 for number in range(60)]
    owner.send(*(frame(BINARY, message) for message in messages), closing(1000))
    assert [guest.message() for _ in messages] == messages
    assert guest.close_code() == 1000


def test_what_was_sent_just_before_an_end_all_arrives(plain: RelayProcess) -> None:
    owner, guest = plain.pair()
    messages = [bytes([number]) * 16000 for number in range(60)]
    owner.send(*(frame(BINARY, message) for message in messages))
    owner.half_close()
    assert [guest.message() for _ in messages] == messages
    assert guest.close_code() == 1001


def test_what_the_other_side_sent_into_a_close_harms_nobody(pair: tuple[Peer, Peer]) -> None:
    owner, guest = pair
    for _ in range(20):
        owner.send(frame(BINARY, bytes(1000)))
    guest.send(closing(1000))
    for _ in range(20):
        owner.send(frame(BINARY, bytes(1000)))
    assert owner.close_code() == 1000


def test_many_tunnels_never_mix(relay: RelayProcess) -> None:
    pairs = [relay.pair() for _ in range(20)]
    for number, (owner, guest) in enumerate(pairs):
        owner.send(frame(BINARY, b"%d" % number))
        guest.send(frame(BINARY, b"-%d" % number))
    for number, (owner, guest) in enumerate(pairs):
        assert guest.message() == b"%d" % number
        assert owner.message() == b"-%d" % number


def test_a_close_while_waiting_is_answered(relay: RelayProcess) -> None:
    owner, _ = relay.owner(tunnel_id())
    owner.send(closing(1000))
    assert owner.close_code() == 1000
    with pytest.raises(Ended):
        owner.frame()
