"""The relay's decisions, with a hand-cranked clock and no sockets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybrid.protocol.tunnel import Connect, Contact, New, Target
from tunnel_server.relay import (
    Action,
    Close,
    Code,
    Drop,
    Forward,
    Limits,
    Open,
    Refuse,
    Relay,
    address_group,
)

ROUTING_ID = bytes.fromhex("0A0B0C")
TUNNEL_ID = bytes(range(16))
OTHER_ID = bytes(16)
LIMITS = Limits()
OWNER, GUEST, THIRD, FOURTH = 1, 2, 3, 4


class Bench:
    """A relay and a clock that goes only where a test turns it."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.relay = Relay(ROUTING_ID, limits)
        self.time = 1000.0

    def arrive(self, connection: int, group: str | None = None) -> list[Action]:
        return self.relay.arrived(connection, group, self.time)

    def ask(self, connection: int, target: Target, group: str | None = None) -> list[Action]:
        return self.arrive(connection, group) + self.relay.asked(connection, target, self.time)

    def new(self, connection: int = OWNER, tunnel_id: bytes = TUNNEL_ID) -> list[Action]:
        return self.ask(connection, New(tunnel_id))

    def connect(self, connection: int = GUEST, tunnel_id: bytes = TUNNEL_ID) -> list[Action]:
        return self.ask(connection, Connect(ROUTING_ID, tunnel_id))

    def pair(self) -> None:
        assert self.new() == [Open(OWNER, ROUTING_ID)]
        assert self.connect() == [Open(GUEST, None)]

    def say(self, connection: int, message: bytes = b"x") -> list[Action]:
        return self.relay.message(connection, len(message), message, self.time)

    def after(self, seconds: float) -> list[Action]:
        self.time += seconds
        return self.relay.tick(self.time)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def both(code: Code) -> list[Action]:
    return [Close(OWNER, code), Close(GUEST, code)]


def test_defaults() -> None:
    ours: dict[str, Any] = {
        "connections": 1,
        "per_address": 1,
        "linger": 1.0,
        "tunnels": 1,
        "buffered": 1,
        "new_per_minute": 1,
    }
    assert replace(Limits(), **ours, addresses=1) == Limits(
        message=131072,
        messages=64,
        total=1048576,
        early_messages=8,
        early_bytes=65536,
        pending=120,
        idle=180,
        lifetime=600,
        head=10,
        linger=1,
        stall=30,
        connections=1,
        tunnels=1,
        buffered=1,
        per_address=1,
        new_per_minute=1,
        addresses=1,
    )
    assert all(limit.default for limit in fields(Limits))


def test_messages_go_both_ways_unchanged(bench: Bench) -> None:
    bench.pair()
    assert bench.say(OWNER, b"to guest") == [Forward(GUEST, b"to guest")]
    assert bench.say(GUEST, b"") == [Forward(OWNER, b"")]


def test_early_messages_follow_the_opening_in_order(bench: Bench) -> None:
    bench.new()
    early = [b"1", b"", b"3"]
    assert [action for message in early for action in bench.say(OWNER, message)] == []
    assert bench.connect() == [Open(GUEST, None), *(Forward(GUEST, message) for message in early)]
    assert bench.say(OWNER, b"4") == [Forward(GUEST, b"4")]


def test_early_messages_are_bounded_by_number(bench: Bench) -> None:
    bench.new()
    for _ in range(8):
        assert bench.say(OWNER) == []
    assert bench.say(OWNER) == [Close(OWNER, Code.LIMIT)]
    assert bench.connect() == [Refuse(GUEST, 404)]


def test_early_messages_are_bounded_by_size(bench: Bench) -> None:
    bench.new()
    assert bench.say(OWNER, bytes(65536)) == []
    assert bench.say(OWNER, b"x") == [Close(OWNER, Code.LIMIT)]


def test_second_new_is_refused_and_the_first_untouched(bench: Bench) -> None:
    bench.new()
    assert bench.new(THIRD) == [Refuse(THIRD, 409)]
    assert bench.relay.gone(THIRD, bench.time) == []
    assert bench.connect() == [Open(GUEST, None)]
    assert bench.new(FOURTH) == [Refuse(FOURTH, 409)], "a joined tunnel holds its id"
    assert bench.say(GUEST, b"hello") == [Forward(OWNER, b"hello")]


def test_wrong_routing_id_leaves_the_tunnel(bench: Bench) -> None:
    bench.new()
    assert bench.ask(THIRD, Connect(bytes(3), TUNNEL_ID)) == [Refuse(THIRD, 404)]
    assert bench.connect() == [Open(GUEST, None)]


def test_unknown_tunnel(bench: Bench) -> None:
    bench.new()
    assert bench.connect(GUEST, OTHER_ID) == [Refuse(GUEST, 404)]


def test_third_party_leaves_a_pair_untouched(bench: Bench) -> None:
    bench.pair()
    assert bench.connect(THIRD) == [Refuse(THIRD, 404)]
    assert bench.say(THIRD) == []
    assert bench.relay.broke_rules(THIRD, Code.TEXT, bench.time) == []
    assert bench.relay.left(THIRD, bench.time) == []
    assert bench.relay.gone(THIRD, bench.time) == []
    assert bench.say(OWNER) == [Forward(GUEST, b"x")]


def test_ended_owner_never_deletes_a_later_tunnel(bench: Bench) -> None:
    bench.new()
    assert bench.relay.left(OWNER, bench.time) == []
    assert bench.new(THIRD) == [Open(THIRD, ROUTING_ID)], "the id is free again"
    assert bench.relay.vanished(OWNER, bench.time) == []
    assert bench.relay.gone(OWNER, bench.time) == []
    assert bench.after(LIMITS.pending - 1) == []
    assert bench.connect() == [Open(GUEST, None)]


@pytest.mark.parametrize(("leaver", "other"), [(OWNER, GUEST), (GUEST, OWNER)])
def test_leaving_is_told_to_the_other_side(bench: Bench, leaver: int, other: int) -> None:
    bench.pair()
    assert bench.relay.left(leaver, bench.time) == [Close(other, Code.LEFT)]
    assert bench.say(other) == []
    assert bench.relay.left(other, bench.time) == []


@pytest.mark.parametrize("fact", [Relay.vanished, Relay.gone])
def test_vanishing_is_told_to_the_other_side(bench: Bench, fact: Callable[[Relay, int, float], list[Action]]) -> None:
    bench.pair()
    assert fact(bench.relay, OWNER, bench.time) == [Close(GUEST, Code.VANISHED)]


@pytest.mark.parametrize("code", [Code.PROTOCOL, Code.TEXT, Code.SIZE])
def test_broken_rules_end_both_sides(bench: Bench, code: Code) -> None:
    bench.pair()
    assert bench.relay.broke_rules(GUEST, code, bench.time) == both(code)


def test_broken_rules_while_alone(bench: Bench) -> None:
    bench.new()
    assert bench.relay.broke_rules(OWNER, Code.TEXT, bench.time) == [Close(OWNER, Code.TEXT)]
    assert bench.relay.tunnels == 0


@pytest.mark.parametrize("sender", [OWNER, GUEST])
def test_message_size(bench: Bench, sender: int) -> None:
    bench.pair()
    assert len(bench.say(sender, bytes(131072))) == 1
    assert bench.say(sender, bytes(131073)) == both(Code.SIZE)


@pytest.mark.parametrize("sender", [OWNER, GUEST])
def test_message_count_is_a_side(bench: Bench, sender: int) -> None:
    bench.pair()
    for _ in range(64):
        assert len(bench.say(OWNER)) == len(bench.say(GUEST)) == 1
    assert bench.say(sender) == both(Code.LIMIT)


def test_message_bytes_are_a_side(bench: Bench) -> None:
    bench.pair()
    for _ in range(8):
        assert len(bench.say(OWNER, bytes(131072))) == 1
    assert bench.say(GUEST) == [Forward(OWNER, b"x")]
    assert bench.say(OWNER) == both(Code.LIMIT)


def test_early_messages_count_towards_the_side(bench: Bench) -> None:
    bench.new()
    for _ in range(8):
        bench.say(OWNER)
    bench.connect()
    for _ in range(56):
        assert len(bench.say(OWNER)) == 1
    assert bench.say(OWNER) == both(Code.LIMIT)


def test_pending_time(bench: Bench) -> None:
    bench.new()
    assert bench.relay.next_deadline() == bench.time + 120
    assert bench.after(119.9) == []
    assert bench.after(0.1) == [Close(OWNER, Code.LIMIT)]
    assert bench.connect() == [Refuse(GUEST, 404)]


def test_a_late_connect_meets_no_tunnel_even_before_the_tick(bench: Bench) -> None:
    bench.new()
    bench.time += 120
    assert bench.connect() == [Close(OWNER, Code.LIMIT), Refuse(GUEST, 404)]


def test_pending_time_ends_with_joining(bench: Bench) -> None:
    bench.new()
    bench.after(119)
    bench.connect()
    assert bench.after(179) == []


def test_idle_time_starts_with_joining_and_with_each_message(bench: Bench) -> None:
    bench.pair()
    assert bench.after(179) == []
    bench.say(OWNER)
    assert bench.after(179) == []
    bench.say(GUEST)
    assert bench.after(179.9) == []
    assert bench.after(0.1) == both(Code.LIMIT)


def test_lifetime_counts_from_the_creation(bench: Bench) -> None:
    bench.new()
    bench.after(100)
    bench.connect()
    for _ in range(4):
        assert bench.after(120) == []
        bench.say(OWNER)
    assert bench.after(19.9) == []
    assert bench.after(0.1) == both(Code.LIMIT)


def test_short_idle_time_is_not_hidden_behind_the_pending_time() -> None:
    bench = Bench(Limits(idle=5))
    bench.pair()
    assert bench.relay.next_deadline() == bench.time + 5
    assert bench.after(5) == both(Code.LIMIT)


def test_silence_before_the_request(bench: Bench) -> None:
    assert bench.arrive(OWNER) == []
    assert bench.after(9.9) == []
    assert bench.after(0.1) == [Drop(OWNER)]
    assert bench.relay.asked(OWNER, New(TUNNEL_ID), bench.time) == [], "too late"


@pytest.mark.parametrize("how", ["refused", "turned away", "closed"])
def test_connections_that_do_not_go_are_dropped(bench: Bench, how: str) -> None:
    match how:
        case "refused":
            bench.connect(OWNER)
        case "turned away":
            bench.arrive(OWNER)
            bench.relay.turned_away(OWNER, bench.time)
        case "closed":
            bench.new()
            bench.relay.broke_rules(OWNER, Code.TEXT, bench.time)
    assert bench.after(9.9) == []
    assert bench.after(0.1) == [Drop(OWNER)]
    assert bench.relay.gone(OWNER, bench.time) == []
    assert bench.relay.next_deadline() is None


def test_one_request_a_connection(bench: Bench) -> None:
    bench.new()
    assert bench.relay.asked(OWNER, New(OTHER_ID), bench.time) == []
    assert bench.relay.turned_away(OWNER, bench.time) == []
    assert bench.connect() == [Open(GUEST, None)]


@pytest.mark.parametrize("why", ["stalled", "unfinished", "frames", "crowd"])
def test_no_request_after_being_dropped(why: str) -> None:
    bench = Bench(Limits(buffered=9, frames=9, per_address=1))
    relay = bench.relay
    for connection in (OWNER, GUEST):
        bench.arrive(connection, "a")
    bench.arrive(THIRD)
    actions = {
        "stalled": lambda: relay.stalled(THIRD, 10, bench.time),
        "unfinished": lambda: relay.unfinished(THIRD, 10, 10, bench.time),
        "frames": lambda: relay.read(THIRD, 10, bench.time),
        "crowd": lambda: relay.identified(THIRD, "a", bench.time),
    }[why]()
    assert actions == [Drop(THIRD)]
    assert relay.asked(THIRD, New(TUNNEL_ID), bench.time) == []
    assert relay.identified(THIRD, "b", bench.time) == []


def test_contact_is_unavailable_and_never_gone(bench: Bench) -> None:
    [refusal] = bench.ask(OWNER, Contact(b"contact"))
    assert isinstance(refusal, Refuse)
    assert refusal.status == 503
    assert refusal.retry_after


def test_draining(bench: Bench) -> None:
    bench.new()
    assert not bench.relay.drained
    assert bench.relay.drain(bench.time) == []
    [refusal] = bench.new(THIRD, OTHER_ID)
    assert isinstance(refusal, Refuse)
    assert refusal.status == 503
    assert refusal.retry_after
    assert bench.connect() == [Open(GUEST, None)], "a pending tunnel may still be joined"
    assert not bench.relay.drained
    bench.relay.left(GUEST, bench.time)
    assert bench.relay.drained


def test_stopping_ends_every_tunnel(bench: Bench) -> None:
    bench.pair()
    bench.new(THIRD, OTHER_ID)
    assert bench.relay.stop(bench.time) == [*both(Code.VANISHED), Close(THIRD, Code.VANISHED)]
    assert bench.relay.drained


def test_connection_limits() -> None:
    bench = Bench(Limits(connections=3, per_address=2))
    for connection in (1, 2):
        bench.ask(connection, New(bytes([connection] * 16)), "192.0.2.1")
    [refusal] = bench.ask(3, New(TUNNEL_ID), "192.0.2.1")
    assert isinstance(refusal, Refuse)
    assert (refusal.status, bool(refusal.retry_after)) == (429, True)
    [refusal] = bench.ask(4, New(TUNNEL_ID), "192.0.2.2")
    assert isinstance(refusal, Refuse)
    assert (refusal.status, bool(refusal.retry_after)) == (503, True)
    bench.arrive(5, "192.0.2.1")
    assert bench.arrive(6, "192.0.2.1") == [Drop(6)], "not even worth an answer"
    for connection in (2, 3, 4, 5, 6):
        bench.relay.gone(connection, bench.time)
    assert bench.ask(7, New(TUNNEL_ID), "192.0.2.1") == [Open(7, ROUTING_ID)]


def test_no_group_is_not_limited() -> None:
    bench = Bench(Limits(per_address=1))
    for connection in range(10):
        assert bench.ask(connection, New(bytes([connection] * 16))) == [Open(connection, ROUTING_ID)]


def test_flood_above_the_total_is_dropped() -> None:
    bench = Bench(Limits(connections=1))
    kept = [connection for connection in range(200) if bench.arrive(connection) == []]
    assert len(kept) == 65
    assert bench.relay.connections == 65


@pytest.mark.parametrize(
    ("host", "loopback", "limited"),
    [
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.9.9.9", None, "127.9.9.9"),
        ("::1", None, "::/64"),
        ("::ffff:127.0.0.1", None, "127.0.0.1"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64", "fe80::/64"),
    ],
)
def test_address_groups(host: str, loopback: str | None, limited: str) -> None:
    assert address_group(host) == loopback
    assert address_group(host, limit_loopback=True) == limited


def test_messages_are_not_in_repr() -> None:
    assert "secret" not in repr(Forward(1, b"secret"))


SMALL = Limits(
    message=8,
    messages=4,
    total=20,
    frames=6,
    early_messages=3,
    early_bytes=12,
    pending=5.0,
    idle=4.0,
    lifetime=12.0,
    head=2.0,
    linger=2.0,
    connections=10,
    per_address=3,
    stall=3.0,
    tunnels=2,
    buffered=40,
    new_per_minute=5,
    addresses=2,
)
IDS = [bytes([number] * 16) for number in range(2)]
TARGETS: list[Target] = [
    *(New(tunnel_id) for tunnel_id in IDS),
    *[Connect(ROUTING_ID, tunnel_id) for tunnel_id in IDS] * 2,
    Connect(bytes(3), IDS[0]),
    Contact(b"c"),
]


@dataclass
class World:
    """What the actions so far mean outside, and what must never happen there."""

    relay: Relay = field(default_factory=lambda: Relay(ROUTING_ID, SMALL))
    time: float = 0.0
    arrived: int = 0
    open: set[int] = field(default_factory=set)  # connections with a live TCP
    asked: dict[int, Target] = field(default_factory=dict)
    seated: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    sent: dict[int, list[bytes]] = field(default_factory=dict)
    got: dict[int, list[bytes]] = field(default_factory=dict)
    partner: dict[int, int] = field(default_factory=dict)
    owners: dict[bytes, int] = field(default_factory=dict)

    def apply(self, actions: list[Action]) -> None:
        for action in actions:
            connection = action.connection
            assert connection in self.open
            match action:
                case Open(routing_id=routing_id):
                    target = self.asked[connection]
                    assert connection not in self.seated | self.ended
                    assert (routing_id == ROUTING_ID) == isinstance(target, New)
                    self.seated.add(connection)
                    self.sit(connection, target)
                case Refuse(status=status, retry_after=retry_after):
                    assert status in {404, 409, 429, 503}
                    assert (retry_after is not None) == (status in {429, 503})
                    assert connection not in self.seated | self.ended
                    self.ended.add(connection)
                case Forward(frame=message):
                    assert connection in self.seated
                    assert connection not in self.ended
                    self.got.setdefault(connection, []).append(message)
                case Close():
                    assert connection in self.seated
                    assert connection not in self.ended, "closed once"
                    self.ended.add(connection)
                case Drop():
                    self.ended.add(connection)

    def sit(self, connection: int, target: Target) -> None:
        assert not isinstance(target, Contact)
        if isinstance(target, New):
            self.owners[target.tunnel_id] = connection
            return
        assert target.routing_id == ROUTING_ID
        owner = self.owners.pop(target.tunnel_id)
        assert owner not in self.ended
        self.partner[owner], self.partner[connection] = connection, owner

    def check(self) -> None:
        for connection, messages in self.got.items():
            sent = self.sent[self.partner[connection]]
            assert messages == sent[: len(messages)], "in order, one to one, from the partner only"
            assert len(messages) <= SMALL.messages
            assert sum(map(len, messages)) <= SMALL.total
            if connection not in self.ended and self.partner[connection] not in self.ended:
                assert messages == sent
        deadline = self.relay.next_deadline()
        assert deadline is None or deadline > self.time
        assert deadline is None or self.relay.alarm <= deadline
        assert self.relay.pending + self.relay.joined == self.relay.tunnels
        assert self.relay.joined <= SMALL.tunnels
        assert 0 <= self.relay.buffered


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_sequence_of_facts(data: st.DataObject) -> None:
    world = World()
    relay = world.relay
    facts = ["come", "message"] * 4 + ["arrive", "ask", "left", "vanished", "broke", "gone", "time"]
    facts += [
        "turned away",
        "read",
        "drain",
        "forwards",
        "forwards",
        "unfinished",
        "stalled",
        "unstalled",
        "identified",
    ]
    for _ in range(data.draw(st.integers(0, 60))):
        fact = data.draw(st.sampled_from(facts))
        live = sorted(world.seated - world.ended) or sorted(world.open)
        among = live if fact == "message" else sorted(world.open)
        connection = data.draw(st.sampled_from(among)) if among else 0
        if fact in {"arrive", "come"} or (not world.open and fact != "drain"):
            world.arrived += 1
            world.open.add(world.arrived)
            group = data.draw(st.sampled_from([None, None, "a"]))
            world.apply(relay.arrived(world.arrived, group, world.time))
            if fact == "come":
                world.asked[world.arrived] = data.draw(st.sampled_from(TARGETS))
                world.apply(relay.asked(world.arrived, world.asked[world.arrived], world.time))
        elif fact == "ask":
            target = data.draw(st.sampled_from(TARGETS))
            if connection not in world.asked:
                world.asked[connection] = target
            world.apply(relay.asked(connection, target, world.time))
        elif fact == "message":
            message = data.draw(st.binary(max_size=9))
            if connection in world.seated and connection not in world.ended:
                world.sent.setdefault(connection, []).append(message)
            world.apply(relay.message(connection, len(message), message, world.time))
        elif fact in {"left", "vanished"}:
            actions = (relay.left if fact == "left" else relay.vanished)(connection, world.time)
            if connection in world.seated:
                world.ended.add(connection)
            world.apply(actions)
        elif fact == "broke":
            world.apply(relay.broke_rules(connection, Code.TEXT, world.time))
        elif fact == "turned away":
            if connection not in world.seated:
                world.asked.setdefault(connection, Contact(b"c"))
            world.apply(relay.turned_away(connection, world.time))
        elif fact == "gone":
            actions = relay.gone(connection, world.time)
            world.apply([action for action in actions if action.connection != connection])
            world.ended.add(connection)
            world.open.discard(connection)
        elif fact == "drain":
            world.apply(relay.drain(world.time))
        elif fact == "forwards":
            message = data.draw(st.binary(max_size=9))
            peer = relay.forwards(connection, len(message), world.time)
            if peer is not None:
                world.sent.setdefault(connection, []).append(message)
                world.apply([Forward(peer, message)])
        elif fact == "read":
            world.apply(relay.read(connection, data.draw(st.integers(0, 3)), world.time))
        elif fact == "unfinished":
            held = data.draw(st.integers(0, 9))
            world.apply(relay.unfinished(connection, data.draw(st.integers(held, 9)), held, world.time))
        elif fact == "stalled":
            world.apply(relay.stalled(connection, data.draw(st.integers(0, 9)), world.time))
        elif fact == "unstalled":
            world.apply(relay.unstalled(connection, world.time))
        elif fact == "identified":
            world.apply(relay.identified(connection, data.draw(st.sampled_from([None, "a", "b"])), world.time))
        else:
            world.time += data.draw(st.sampled_from([0.5, 1.0, 2.0, 5.0]))
            world.apply(relay.tick(world.time))
        world.check()
    for connection in sorted(world.open):
        world.ended.add(connection)
        world.open.discard(connection)
        world.apply([a for a in relay.gone(connection, world.time) if a.connection in world.open])
    assert (relay.tunnels, relay.connections, relay.next_deadline()) == (0, 0, None), "nothing is left behind"
    assert (relay.pending, relay.joined, relay.buffered, relay._groups) == (0, 0, 0, {})
