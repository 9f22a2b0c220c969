"""The relay's bounds and what it tells its observer, with a hand-cranked clock and no sockets."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest

from hybrid.protocol.tunnel import Connect, New
from tunnel_server.observing import Outcome, Unobserved
from tunnel_server.relay import Action, Close, Code, Drop, Forward, Limits, Open, Refuse, Relay

from .test_relay import GUEST, OTHER_ID, OWNER, ROUTING_ID, THIRD, TUNNEL_ID, Bench, both

A, B = "192.0.2.1", "192.0.2.2"


def tunnel_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, -math.inf])
def test_a_limit_is_a_number_above_zero(value: float) -> None:
    for limit in fields(Limits):
        changed: dict[str, Any] = {limit.name: value}
        with pytest.raises(ValueError, match=f"the limit {limit.name} is {value}"):
            Limits(**changed)


def test_new_tunnels_a_minute() -> None:
    bench = Bench(Limits(new_per_minute=3, per_address=100))
    for number in range(3):
        assert bench.ask(number, New(tunnel_id(number)), A) == [Open(number, ROUTING_ID)]
    assert bench.ask(3, New(tunnel_id(3)), A) == [Refuse(3, 429, 20)]
    assert bench.ask(4, New(tunnel_id(4)), B) == [Open(4, ROUTING_ID)], "another address"
    assert bench.ask(5, New(tunnel_id(5))) == [Open(5, ROUTING_ID)], "no address"
    assert bench.ask(6, Connect(ROUTING_ID, tunnel_id(0)), A) == [Open(6, None)], "joining is not creating"
    for connection in range(7):
        bench.relay.gone(connection, bench.time)
    bench.time += 19.5
    assert bench.ask(7, New(tunnel_id(7)), A) == [Refuse(7, 429, 1)]
    bench.time += 0.5
    assert bench.ask(8, New(tunnel_id(8)), A) == [Open(8, ROUTING_ID)]


def test_ids_that_are_taken_count_too() -> None:
    bench = Bench(Limits(new_per_minute=2))
    bench.ask(1, New(TUNNEL_ID), A)
    assert bench.ask(2, New(TUNNEL_ID), A) == [Refuse(2, 409)]
    assert bench.ask(3, New(OTHER_ID), A) == [Refuse(3, 429, 30)]


def test_tunnels_at_once() -> None:
    bench = Bench(Limits(tunnels=2))
    bench.pair()
    bench.new(THIRD, OTHER_ID)
    assert bench.new(4, tunnel_id(4)) == [Refuse(4, 503, 5)]
    bench.relay.left(OWNER, bench.time)
    assert bench.new(5, tunnel_id(5)) == [Open(5, ROUTING_ID)]


def test_a_proxy_tells_the_address_later() -> None:
    bench = Bench(Limits(per_address=1, new_per_minute=1))
    bench.arrive(OWNER)
    assert bench.relay.identified(OWNER, A, bench.time) == []
    assert bench.relay.asked(OWNER, New(TUNNEL_ID), bench.time) == [Open(OWNER, ROUTING_ID)]
    bench.arrive(GUEST)
    assert bench.relay.identified(GUEST, A, bench.time) == []
    assert bench.relay.asked(GUEST, New(OTHER_ID), bench.time) == [Refuse(GUEST, 429, 5)]
    bench.arrive(THIRD)
    assert bench.relay.identified(THIRD, A, bench.time) == [Drop(THIRD)], "not even worth an answer"
    for connection in (OWNER, GUEST, THIRD):
        bench.relay.gone(connection, bench.time)
    bench.arrive(5)
    bench.relay.identified(5, A, bench.time)
    [refusal] = bench.relay.asked(5, New(OTHER_ID), bench.time)
    assert refusal == Refuse(5, 429, 60), "its one tunnel of this minute is spent; its connections are not"


def test_an_address_is_told_once_and_before_the_request() -> None:
    bench = Bench(Limits(per_address=1))
    bench.arrive(OWNER, A)
    bench.relay.identified(OWNER, B, bench.time)
    assert bench.ask(GUEST, New(TUNNEL_ID), B) == [Open(GUEST, ROUTING_ID)]
    bench.relay.identified(GUEST, A, bench.time)
    bench.relay.identified(99, A, bench.time)
    bench.relay.gone(OWNER, bench.time)
    assert bench.ask(THIRD, New(OTHER_ID), A) == [Open(THIRD, ROUTING_ID)]


def test_a_stalled_reader_is_cut() -> None:
    bench = Bench()
    bench.pair()
    assert bench.relay.stalled(GUEST, 0, bench.time) == []
    bench.after(20)
    bench.relay.stalled(GUEST, 0, bench.time)  # still the same stall
    assert bench.after(9.9) == []
    assert bench.after(0.1) == [Close(OWNER, Code.LIMIT), Drop(GUEST)]
    assert bench.relay.tunnels == 0


def test_a_reader_that_catches_up_is_not() -> None:
    bench = Bench()
    bench.pair()
    bench.relay.stalled(GUEST, 0, bench.time)
    bench.after(29)
    assert bench.relay.unstalled(GUEST, bench.time) == []
    assert bench.after(29) == []
    bench.relay.stalled(GUEST, 0, bench.time)
    assert bench.after(29) == []
    assert bench.relay.gone(GUEST, bench.time) == [Close(OWNER, Code.VANISHED)]
    assert bench.after(1) == []
    bench.relay.stalled(GUEST, 0, bench.time)  # nobody any more
    bench.relay.gone(OWNER, bench.time)
    assert bench.relay.next_deadline() is None


def test_what_stalled_readers_leave_in_memory_is_bounded_for_all_together() -> None:
    bench = Bench(Limits(buffered=100))
    bench.pair()
    bench.new(THIRD, OTHER_ID)
    assert bench.relay.stalled(THIRD, 60, bench.time) == []
    assert bench.relay.stalled(THIRD, 70, bench.time) == []
    assert bench.relay.stalled(GUEST, 31, bench.time) == [Close(OWNER, Code.LIMIT), Drop(GUEST)]
    assert bench.relay.unfinished(OWNER, 40, 30, bench.time) == [], "it is not cut for what was dropped just now"
    bench.relay.unfinished(OWNER, 0, 0, bench.time)
    bench.relay.gone(GUEST, bench.time)
    assert bench.relay.buffered == 70
    bench.relay.unstalled(THIRD, bench.time)
    assert bench.relay.buffered == 0
    assert bench.relay.tunnels == 1


def test_a_join_handed_over_lives_as_long_as_a_tunnel() -> None:
    bench = Bench(Limits(connections=1))
    bench.arrive(OWNER)
    assert not bench.relay.refuses(OWNER)
    bench.relay.handed_over(OWNER, bench.time)
    bench.relay.drain(bench.time)
    assert not bench.relay.drained, "it is waited for"
    bench.arrive(GUEST)
    assert bench.relay.refuses(GUEST), "it counts"
    bench.relay.gone(GUEST, bench.time)
    assert bench.relay.asked(OWNER, New(TUNNEL_ID), bench.time) == [], "its one request is made"
    assert bench.after(599.9) == []
    assert bench.after(0.1) == [Drop(OWNER)]
    bench.relay.gone(OWNER, bench.time)
    assert bench.relay.drained


def test_early_bytes_of_all_together() -> None:
    bench = Bench(Limits(buffered=100))
    bench.new()
    bench.new(THIRD, OTHER_ID)
    assert bench.say(OWNER, bytes(60)) == []
    assert bench.say(THIRD, bytes(41)) == [Close(THIRD, Code.LIMIT)]
    assert bench.relay.buffered == 60
    assert bench.say(OWNER, bytes(40)) == []
    bench.connect()
    assert bench.relay.buffered == 0
    assert bench.say(OWNER, bytes(101)) == [Forward(GUEST, bytes(101))], "what is not kept does not count"


def unfinished(bench: Bench, connection: int, announced: int, held: int) -> list[Action]:
    return bench.relay.unfinished(connection, announced, held, bench.time)


def test_unfinished_bytes_of_all_together() -> None:
    bench = Bench(Limits(buffered=100))
    bench.pair()
    bench.new(THIRD, OTHER_ID)
    assert unfinished(bench, OWNER, 1000, 60) == []
    assert unfinished(bench, OWNER, 1000, 70) == []
    assert bench.relay.buffered == 70
    assert unfinished(bench, THIRD, 1000, 31) == [Close(THIRD, Code.LIMIT)]
    assert bench.relay.buffered == 101, "until it goes"
    assert unfinished(bench, THIRD, 1000, 40) == [Drop(THIRD)]
    bench.relay.gone(THIRD, bench.time)
    assert unfinished(bench, GUEST, 1000, 30) == []
    assert unfinished(bench, OWNER, 0, 0) == []
    assert bench.relay.buffered == 30
    bench.relay.gone(GUEST, bench.time)
    assert bench.relay.buffered == 0
    assert unfinished(bench, GUEST, 0, 5) == [], "nobody any more"


def test_what_a_message_would_break_ends_the_tunnel_at_its_header() -> None:
    bench = Bench(Limits(total=100, early_bytes=50))
    bench.new()
    bench.say(OWNER, bytes(30))
    assert unfinished(bench, OWNER, 20, 1) == []
    assert unfinished(bench, OWNER, 21, 1) == [Close(OWNER, Code.LIMIT)]
    bench = Bench(Limits(total=100, early_bytes=50))
    bench.pair()
    bench.say(OWNER, bytes(30))
    assert unfinished(bench, OWNER, 70, 1) == []
    assert unfinished(bench, OWNER, 71, 1) == both(Code.LIMIT)


def test_the_short_way_is_the_long_one() -> None:
    """`forwards` answers only where `message` would forward, and counts alike."""
    limits = Limits(message=10, messages=3, total=25)
    for sizes in ([10, 10, 5], [10, 10, 6], [1, 1, 1, 1], [11], [0, 0, 0]):
        short, long = Bench(limits), Bench(limits)
        for bench in (short, long):
            assert bench.relay.forwards(OWNER, 1, bench.time) is None
            bench.new()
            assert bench.relay.forwards(OWNER, 1, bench.time) is None, "nobody there yet"
            bench.connect()
        for size in sizes:
            peer = short.relay.forwards(OWNER, size, short.time)
            if peer is None:
                assert short.say(OWNER, bytes(size)) == long.say(OWNER, bytes(size)) != []
            else:
                assert long.say(OWNER, bytes(size)) == [Forward(peer, bytes(size))]
            short.time += 170  # the idle time starts again each time
            long.time += 170
        for name in ("forwarded_messages", "forwarded_bytes", "tunnels"):
            assert getattr(short.relay, name) == getattr(long.relay, name)
        assert short.relay.next_deadline() == long.relay.next_deadline()


def test_the_short_way_waits_for_a_timer_that_has_struck() -> None:
    bench = Bench()
    bench.pair()
    bench.time += 180
    assert bench.relay.forwards(OWNER, 1, bench.time) is None
    assert bench.say(OWNER) == both(Code.LIMIT)


def test_no_timer_strikes_before_the_alarm() -> None:
    bench = Bench()
    assert bench.relay.alarm == math.inf
    bench.pair()
    assert bench.relay.alarm == 1010, "the silence of the head, which is over; early is allowed, late is not"
    assert bench.after(10) == []
    assert bench.relay.alarm == bench.relay.next_deadline() == 1180
    bench.relay.left(OWNER, bench.time)
    assert bench.relay.alarm == bench.relay.next_deadline() == 1020


class Notes(Unobserved):
    def __init__(self) -> None:
        self.ended: list[tuple[Outcome, float]] = []
        self.handshakes: list[float] = []
        self.upgrades: list[float] = []

    def handshake_done(self, seconds: float) -> None:
        self.handshakes.append(seconds)

    def upgraded(self, seconds: float) -> None:
        self.upgrades.append(seconds)

    def tunnel_ended(self, outcome: Outcome, seconds: float) -> None:
        self.ended.append((outcome, seconds))


def test_times_of_handshakes_and_answers_count_from_the_arrival() -> None:
    notes, bench = Notes(), Bench()
    relay = bench.relay = Relay(ROUTING_ID, Limits(), notes)
    for connection, target in (
        (OWNER, New(TUNNEL_ID)),
        (GUEST, Connect(ROUTING_ID, TUNNEL_ID)),
        (THIRD, New(TUNNEL_ID)),
    ):
        bench.arrive(connection)
        bench.time += 2
        relay.secured(connection, bench.time)
        bench.time += 1
        relay.asked(connection, target, bench.time)
    assert notes.handshakes == [2, 2, 2]
    assert notes.upgrades == [3, 3], "the third one was refused"
    bench.arrive(4)
    bench.after(10)
    relay.secured(4, bench.time)
    assert notes.handshakes == [2, 2, 2], "too late"


@pytest.mark.parametrize(
    ("joined", "how", "outcome"),
    [
        (True, "left", Outcome.JOINED),
        (True, "vanished", Outcome.VANISHED),
        (True, "gone", Outcome.VANISHED),
        (True, "idle", Outcome.EXPIRED),
        (True, "text", Outcome.ERRORED),
        (True, "size", Outcome.LIMITED),
        (True, "count", Outcome.LIMITED),
        (True, "stall", Outcome.LIMITED),
        (True, "stop", Outcome.STOPPED),
        (False, "left", Outcome.ABANDONED),
        (False, "gone", Outcome.ABANDONED),
        (False, "idle", Outcome.LONELY),
        (False, "text", Outcome.ERRORED),
        (False, "count", Outcome.LIMITED),
        (False, "stop", Outcome.STOPPED),
    ],
)
def test_outcomes(joined: bool, how: str, outcome: Outcome) -> None:
    notes, bench = Notes(), Bench()
    relay = bench.relay = Relay(ROUTING_ID, Limits(), notes)
    bench.new()
    assert (relay.pending, relay.joined) == (1, 0)
    if joined:
        bench.connect()
        assert (relay.pending, relay.joined) == (0, 1)
    bench.time += 3
    match how:
        case "left":
            relay.left(OWNER, bench.time)
        case "vanished":
            relay.vanished(OWNER, bench.time)
        case "gone":
            relay.gone(OWNER, bench.time)
        case "idle":
            bench.after(197)
        case "text":
            relay.broke_rules(OWNER, Code.TEXT, bench.time)
        case "size":
            relay.broke_rules(OWNER, Code.SIZE, bench.time)
        case "count":
            for _ in range(65):
                bench.say(OWNER)
        case "stall":
            relay.stalled(OWNER, 0, bench.time)
            bench.after(30)
        case "stop":
            relay.stop(bench.time)
    [(told, seconds)] = notes.ended
    assert told is outcome
    assert seconds == {"idle": 200, "stall": 33}.get(how, 3)
    assert (relay.pending, relay.joined, relay.tunnels) == (0, 0, 0)
    for connection in (OWNER, GUEST):
        relay.gone(connection, bench.time)
    assert len(notes.ended) == 1, "told once"


def test_what_was_forwarded_is_counted() -> None:
    bench = Bench()
    bench.new()
    bench.say(OWNER, b"early")
    assert bench.relay.forwarded_messages == 0
    bench.connect()
    bench.say(GUEST, b"answer")
    assert (bench.relay.forwarded_messages, bench.relay.forwarded_bytes) == (2, 11)


def test_frames_of_one_side() -> None:
    bench = Bench(Limits(frames=5))
    bench.pair()
    assert bench.relay.read(OWNER, 5, bench.time) == []
    assert bench.relay.read(GUEST, 5, bench.time) == []
    assert bench.relay.read(GUEST, 1, bench.time) == both(Code.LIMIT)
    assert bench.relay.read(OWNER, 0, bench.time) == []
    assert bench.relay.read(OWNER, 1, bench.time) == [Drop(OWNER)], "who floods on is not waited for"
    bench.relay.gone(OWNER, bench.time)
    assert bench.relay.read(OWNER, 9, bench.time) == [], "nobody any more"
    bench.new(THIRD, OTHER_ID)
    assert bench.relay.read(THIRD, 6, bench.time) == [Close(THIRD, Code.LIMIT)]
