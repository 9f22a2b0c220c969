"""Who waits for whom, and for how long (CTAP 2.3 §11.5.1, "tunnel service"). Every decision of the relay is made here.

Pure: no sockets, no WebSocket library, no clock, no dice. `Relay` is fed facts about numbered connections, each with
the time, and answers with the actions that follow; `tunnel_server.app` turns bytes into facts and actions into bytes.
How a phone reaches its relay is the vendor's business; ``/cable/new`` is what Chromium and Google's relay use.

A connection goes through: arrived (nothing asked yet) -> seated in a tunnel -> closing -> gone.
A tunnel goes through: pending (one seat taken) -> joined (consumed: nobody else gets in) -> ended.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass, field, fields
from typing import Generic, TypeVar

from hybrid.protocol.tunnel import Connect, Contact, New, Target
from tunnel_server.frames import Code as Code
from tunnel_server.observing import Observer, Outcome, Unobserved
from tunnel_server.rates import Rates


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tunnel and a connection may use. Sizes in bytes, times in seconds."""

    message: int = 128 * 1024  # one message
    messages: int = 64  # messages from one side
    total: int = 1024 * 1024  # bytes of messages from one side
    frames: int = 16384  # from one side: pings, pongs and fragments
    early_messages: int = 8  # messages before the other side joined
    early_bytes: int = 64 * 1024  # bytes of those
    pending: float = 120.0  # waiting for the other side
    idle: float = 180.0  # no binary message after joining; a slow user is silence, pings do not count
    lifetime: float = 600.0  # a tunnel in all
    head: float = 10.0  # TLS handshake and request head together
    linger: float = 10.0  # waiting for the TCP end after a close or a refusal
    stall: float = 30.0  # for a side to read what makes the other side wait
    connections: int = 16384  # open at once
    tunnels: int = 8192  # pending or joined at once
    buffered: int = 256 * 1024 * 1024  # bytes of early, unfinished and not taken messages, of all connections together
    per_address: int = 64  # open at once from one IPv4 address or IPv6 /64
    new_per_minute: int = 60  # tunnels that one of those may create in a minute
    addresses: int = 32768  # remembered for that

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"the limit {limit.name} is {value}, but must be a number above 0")


@dataclass(frozen=True, slots=True)
class Open:
    """Answer 101. `routing_id` goes into the header of a ``/cable/new`` answer; None for the joining side."""

    connection: int
    routing_id: bytes | None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer with the HTTP `status`; `retry_after` in seconds becomes a ``Retry-After`` header."""

    connection: int
    status: int
    retry_after: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Forward:
    """Send one binary message, whose `frame` the caller made."""

    connection: int
    frame: bytes

    def __repr__(self) -> str:
        return f"<Forward {len(self.frame)} bytes to {self.connection}>"


@dataclass(frozen=True, slots=True)
class Close:
    """Send a close frame with `code`, unless the closing handshake has begun."""

    connection: int
    code: Code


@dataclass(frozen=True, slots=True)
class Drop:
    """End the TCP connection at once, without a word."""

    connection: int


Action = Open | Refuse | Forward | Close | Drop

_BUSY_RETRY = 5
_DRAINING_RETRY = 30
_CONTACT_RETRY = 300

_GRAINS = 256  # a burst of messages starts the idle time once in this part of it, which then ends that much early
_NO_MESSAGES: list[bytes] = []  # of every tunnel that has been joined

_Key = TypeVar("_Key")


class _Timer(Generic[_Key]):
    """Deadlines of one length. Because of that, the order of starting is the order of striking."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._started: OrderedDict[_Key, float] = OrderedDict()

    def start(self, key: _Key, now: float) -> float:
        """Start for a key for which it does not run; when it will strike."""
        self._started[key] = now
        return now + self._seconds

    def restart(self, key: _Key, now: float) -> None:
        """Start again, so that it strikes later."""
        self._started[key] = now
        self._started.move_to_end(key)

    def stop(self, key: _Key) -> None:
        self._started.pop(key, None)

    def __len__(self) -> int:
        return len(self._started)

    def started(self, key: _Key) -> float:
        """When; it must be running."""
        return self._started[key]

    def running(self, key: _Key) -> bool:
        return key in self._started

    def next(self) -> float | None:
        for started in self._started.values():
            return started + self._seconds
        return None

    def struck(self, now: float) -> list[_Key]:
        """Take out every key whose time is over."""
        keys = []
        while (deadline := self.next()) is not None and deadline <= now:
            keys.append(self._started.popitem(last=False)[0])
        return keys


@dataclass(slots=True, eq=False, repr=False)
class _Tunnel:
    tunnel_id: bytes
    owner: int
    created: float
    guest: int | None = None
    early: list[bytes] = field(default_factory=list)  # frames
    early_bytes: int = 0


@dataclass(slots=True, eq=False, repr=False)
class _Connection:
    timer: _Timer[int] | None  # the one that runs, besides that of a stall
    refusal: int | None
    group: str | None = None
    tunnel: _Tunnel | None = None
    peer: int | None = None  # at the other end of the tunnel
    messages: int = 0
    total: int = 0
    frames: int = 0
    quiet_at: float = 0.0  # a message after this time starts the idle time of the tunnel again
    unfinished: int = 0  # bytes of a message that is still coming
    unsent: int = 0  # bytes that it did not take when it stalled


def address_group(host: str, *, limit_loopback: bool = False) -> str | None:
    """Whom a per-address limit counts together: an IPv4 address or an IPv6 /64; None is never limited.

    Raises:
        ValueError: `host` is no address.
    """
    if ":" not in host and host[:1].isdigit():  # as sockets give it, for almost everybody
        return None if host.startswith("127.") and not limit_loopback else host
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback and not limit_loopback:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)


class Relay:
    """All tunnels of one relay instance, which `routing_id` (3 bytes) names.

    Connections are numbers that the caller never uses twice; `now` never goes back. A fact about a connection that is
    closing or gone changes nothing, so the caller need not keep track.
    """

    def __init__(self, routing_id: bytes, limits: Limits, observer: Observer | None = None) -> None:
        self.routing_id = routing_id
        self.pending = 0  # tunnels that wait for a guest
        self.joined = 0  # tunnels with two sides
        self.forwarded_messages = 0  # since the start
        self.forwarded_bytes = 0  # of payload, since the start
        self.buffered = 0  # bytes of early and of unfinished messages, and of those that stalled sides did not take
        self.alarm = math.inf  # no timer strikes before
        self._limits = limits
        self._observer = observer or Unobserved()
        self.draining = False  # no new tunnels
        self._connections: dict[int, _Connection] = {}
        self._groups: dict[str, int] = {}  # connections of each
        self._rates = Rates(limits.new_per_minute, limits.addresses)
        self._tunnels: dict[bytes, _Tunnel] = {}
        self._heads: _Timer[int] = _Timer(limits.head)
        self._lingering: _Timer[int] = _Timer(limits.linger)
        self._stalls: _Timer[int] = _Timer(limits.stall)
        self._handed_over: _Timer[int] = _Timer(limits.lifetime)
        self._pending: _Timer[_Tunnel] = _Timer(limits.pending)
        self._idle: _Timer[_Tunnel] = _Timer(limits.idle)
        self._lifetime: _Timer[_Tunnel] = _Timer(limits.lifetime)
        self._grain = limits.idle / _GRAINS
        self._tunnel_timers = (self._lifetime, self._pending, self._idle)
        self._connection_timers = (self._heads, self._lingering, self._handed_over, self._stalls)

    @property
    def tunnels(self) -> int:
        """How many tunnels there are, pending or joined."""
        return len(self._tunnels)

    @property
    def connections(self) -> int:
        """How many connections there are, in any state."""
        return len(self._connections)

    @property
    def asking(self) -> int:
        """How many connections there are whose request has not come."""
        return len(self._heads)

    @property
    def drained(self) -> bool:
        """Nothing is left to wait for after `drain`."""
        return self.draining and not self._tunnels and not self._handed_over

    def peer(self, connection: int) -> int | None:
        """The connection at the other end of the tunnel, if there is one now."""
        seat = self._connections.get(connection)
        return None if seat is None else seat.peer

    def refuses(self, connection: int) -> bool:
        """Whatever this connection asks for, there is no room for it."""
        seat = self._connections.get(connection)
        return seat is None or seat.refusal is not None

    # Facts

    def arrived(self, connection: int, group: str | None, now: float) -> list[Action]:
        """A TCP connection came. `group` as `address_group` gives it; None also if `identified` will tell."""
        actions = self.tick(now)
        taken = len(self._connections)
        # Above a limit a connection still gets a status, but only so many: the answer costs a TLS handshake.
        if taken >= self._limits.connections + 64 or self._is_crowded(group):
            return [*actions, Drop(connection)]
        seat = _Connection(self._heads, 503 if taken >= self._limits.connections else None)
        self._connections[connection] = seat
        if group is not None:
            self._join_group(seat, group)
        self._start(self._heads, connection, now)
        return actions

    def identified(self, connection: int, group: str | None, now: float) -> list[Action]:
        """A proxy said for whom it speaks, before the request is `asked`."""
        actions = self.tick(now)
        seat = self._asking(connection)
        if seat is None or seat.group is not None or group is None:
            return actions
        if self._is_crowded(group):
            return [*actions, self._drop(connection, seat, now)]
        self._join_group(seat, group)
        return actions

    def secured(self, connection: int, now: float) -> None:
        """The TLS handshake is complete."""
        if self._heads.running(connection):
            self._observer.handshake_done(now - self._heads.started(connection))

    def turned_away(self, connection: int, now: float) -> list[Action]:
        """The request was no good as HTTP or as a WebSocket and has been answered."""
        actions = self.tick(now)
        seat = self._asking(connection)
        if seat is not None:
            self._time(connection, seat, self._lingering, now)
        return actions

    def asked(self, connection: int, target: Target, now: float) -> list[Action]:
        """A well-formed request came. Exactly one `Open` or `Refuse` follows, then what waited for the guest."""
        actions = self.tick(now)
        seat = self._asking(connection)
        if seat is None:
            return actions
        if seat.refusal is not None:
            return [*actions, self._refuse(connection, now, seat.refusal, _BUSY_RETRY)]
        match target:
            case New(tunnel_id):
                return actions + self._create(connection, seat, tunnel_id, now)
            case Connect(routing_id, tunnel_id):
                return actions + self._join(connection, seat, routing_id, tunnel_id, now)
            case Contact():
                # Never 410: that would make a client forget a link for good, and only we are at fault.
                return [*actions, self._refuse(connection, now, 503, _CONTACT_RETRY)]

    def forwards(self, connection: int, size: int, now: float) -> int | None:
        """The short way for a binary message of `size` bytes: who gets it, if nothing but forwarding follows.

        None: nothing has happened yet, and `message` decides.
        """
        seat = self._connections.get(connection)
        if seat is None or seat.peer is None or now >= self.alarm:
            return None
        limits, total = self._limits, seat.total + size
        if size > limits.message or total > limits.total or seat.messages >= limits.messages:
            return None
        seat.messages += 1
        seat.total = total
        self.forwarded_messages += 1
        self.forwarded_bytes += size
        if now >= seat.quiet_at and seat.tunnel is not None:
            self._idle.restart(seat.tunnel, now)
            seat.quiet_at = now + self._grain
        return seat.peer

    def message(self, connection: int, size: int, frame: bytes, now: float) -> list[Action]:
        """A binary message of `size` bytes is complete; `frame` is what the other side gets."""
        actions = self.tick(now)
        other = self.forwards(connection, size, now)
        if other is not None:
            return [*actions, Forward(other, frame)]
        seat = self._connections.get(connection)
        if seat is None or seat.tunnel is None:
            return actions
        tunnel, limits = seat.tunnel, self._limits
        if size > limits.message:
            return actions + self._end(tunnel, Code.SIZE, Outcome.LIMITED, now)
        seat.messages += 1
        seat.total += size
        early_bytes = tunnel.early_bytes + size
        if (
            seat.messages > limits.messages
            or seat.total > limits.total
            or len(tunnel.early) >= limits.early_messages
            or early_bytes > limits.early_bytes
            or self.buffered + size > limits.buffered
        ):
            return actions + self._end(tunnel, Code.LIMIT, Outcome.LIMITED, now)
        tunnel.early.append(frame)
        tunnel.early_bytes = early_bytes
        self.buffered += size
        return actions

    def unfinished(self, connection: int, announced: int, held: int, now: float) -> list[Action]:
        """Of a message of at least `announced` bytes the first `held` ones are here; 0 and 0 if there is none.

        What it would break when it is complete ends the tunnel now.
        """
        actions = self.tick(now)
        seat = self._connections.get(connection)
        if seat is None:
            return actions
        self.buffered += held - seat.unfinished
        seat.unfinished = held
        tunnel, limits = seat.tunnel, self._limits
        full = held > 0 and self.buffered > limits.buffered
        if tunnel is None:
            return [*actions, self._drop(connection, seat, now)] if full else actions
        too_early = tunnel.guest is None and tunnel.early_bytes + announced > limits.early_bytes
        if full or too_early or seat.total + announced > limits.total:
            return actions + self._end(tunnel, Code.LIMIT, Outcome.LIMITED, now)
        return actions

    def read(self, connection: int, frames: int, now: float) -> list[Action]:
        """A side sent `frames` more of any kind: empty ones fill no other limit, but take time from everybody."""
        actions = self.tick(now)
        seat = self._connections.get(connection)
        if seat is None:
            return actions
        seat.frames += frames
        if seat.frames <= self._limits.frames:
            return actions
        if seat.tunnel is None:  # told to leave, it goes on
            return [*actions, self._drop(connection, seat, now)]
        return actions + self._end(seat.tunnel, Code.LIMIT, Outcome.LIMITED, now)

    def stalled(self, connection: int, held: int, now: float) -> list[Action]:
        """A side does not read; `held` bytes wait for it, and the other side has been made to wait."""
        actions = self.tick(now)
        seat = self._connections.get(connection)
        if seat is None:
            return actions
        if not self._stalls.running(connection):
            self._start(self._stalls, connection, now)
        self.buffered += held - seat.unsent
        seat.unsent = held
        if self.buffered > self._limits.buffered:
            actions += self._cut(connection, now)
        return actions

    def unstalled(self, connection: int, now: float) -> list[Action]:
        """The side has caught up."""
        actions = self.tick(now)
        self._stalls.stop(connection)
        seat = self._connections.get(connection)
        if seat is not None:
            self.buffered -= seat.unsent
            seat.unsent = 0
        return actions

    def handed_over(self, connection: int, now: float) -> list[Action]:
        """The request is for another relay, and the connection now belongs to who talks to that one."""
        actions = self.tick(now)
        seat = self._asking(connection)
        if seat is not None:
            self._time(connection, seat, self._handed_over, now)
        return actions

    def broke_rules(self, connection: int, code: Code, now: float) -> list[Action]:
        """Illegal frames, text or a length above the limit."""
        outcome = Outcome.LIMITED if code is Code.SIZE else Outcome.ERRORED
        return self._leave(connection, code, outcome, now)

    def left(self, connection: int, now: float) -> list[Action]:
        """A close frame came, and was answered."""
        return self._leave(connection, Code.LEFT, Outcome.JOINED, now, connection)

    def vanished(self, connection: int, now: float) -> list[Action]:
        """The stream ended without a close frame."""
        return self._leave(connection, Code.VANISHED, Outcome.VANISHED, now, connection)

    def gone(self, connection: int, now: float) -> list[Action]:
        """The TCP connection is over, for whatever reason. Always the last fact about a connection."""
        seat = self._connections.get(connection)
        if seat is None:
            return self.tick(now)
        actions = self.vanished(connection, now) if seat.tunnel is not None else self.tick(now)
        del self._connections[connection]
        if seat.timer is not None:
            seat.timer.stop(connection)
        if self._stalls:
            self._stalls.stop(connection)
        self.buffered -= seat.unfinished + seat.unsent
        if seat.group is not None:
            others = self._groups[seat.group] - 1
            if others:
                self._groups[seat.group] = others
            else:
                del self._groups[seat.group]
        return actions

    def drain(self, now: float) -> list[Action]:
        """From now on no new tunnels; those that exist may still be joined and go on."""
        self.draining = True
        return self.tick(now)

    def stop(self, now: float) -> list[Action]:
        """End every tunnel."""
        self.draining = True
        actions = self.tick(now)
        for tunnel in list(self._tunnels.values()):
            actions += self._end(tunnel, Code.VANISHED, Outcome.STOPPED, now)
        return actions

    def tick(self, now: float) -> list[Action]:
        """Time went on. Every other fact does this first, so a late one finds the world as it should be."""
        actions: list[Action] = []
        if now < self.alarm:
            return actions
        for timer in self._tunnel_timers:
            for tunnel in timer.struck(now):
                outcome = Outcome.LONELY if tunnel.guest is None else Outcome.EXPIRED
                actions += self._end(tunnel, Code.LIMIT, outcome, now)
        for connection in self._stalls.struck(now):
            actions += self._cut(connection, now)
        for ended in (self._heads, self._lingering, self._handed_over):
            actions += [Drop(connection) for connection in ended.struck(now)]
        deadline = self.next_deadline()
        self.alarm = math.inf if deadline is None else deadline
        return actions

    def next_deadline(self) -> float | None:
        """When `tick` has something to do at the earliest, if nothing else happens."""
        timers = (*self._tunnel_timers, *self._connection_timers)
        return min((deadline for timer in timers if (deadline := timer.next()) is not None), default=None)

    # Decisions

    def _start(self, timer: _Timer[_Key], key: _Key, now: float) -> None:
        strikes_at = timer.start(key, now)
        if strikes_at < self.alarm:
            self.alarm = strikes_at

    def _time(self, connection: int, seat: _Connection, timer: _Timer[int], now: float) -> None:
        """Let `timer` run for a connection in place of the one that does."""
        if seat.timer is not None:
            seat.timer.stop(connection)
        seat.timer = timer
        self._start(timer, connection, now)

    def _is_crowded(self, group: str | None) -> bool:
        """So many connections of one address that another is not even worth an answer."""
        return group is not None and self._groups.get(group, 0) >= 2 * self._limits.per_address

    def _join_group(self, seat: _Connection, group: str) -> None:
        others = self._groups.get(group, 0)
        if others >= self._limits.per_address and seat.refusal is None:
            seat.refusal = 429
        seat.group = group
        self._groups[group] = others + 1

    def _asking(self, connection: int) -> _Connection | None:
        """The connection, if it may still make its one request."""
        seat = self._connections.get(connection)
        return seat if seat is not None and self._heads.running(connection) else None

    def _create(self, connection: int, seat: _Connection, tunnel_id: bytes, now: float) -> list[Action]:
        if self.draining:
            return [self._refuse(connection, now, 503, _DRAINING_RETRY)]
        wait = 0.0 if seat.group is None else self._rates.take(seat.group, now)
        if wait > 0:
            return [self._refuse(connection, now, 429, math.ceil(wait))]
        if tunnel_id in self._tunnels:
            return [self._refuse(connection, now, 409)]
        if len(self._tunnels) >= self._limits.tunnels:
            return [self._refuse(connection, now, 503, _BUSY_RETRY)]
        tunnel = _Tunnel(tunnel_id, connection, now)
        self._tunnels[tunnel_id] = tunnel
        self.pending += 1
        self._start(self._pending, tunnel, now)
        self._start(self._lifetime, tunnel, now)
        self._sit(connection, seat, tunnel, now)
        return [Open(connection, self.routing_id)]

    def _join(
        self, connection: int, seat: _Connection, routing_id: bytes, tunnel_id: bytes, now: float
    ) -> list[Action]:
        tunnel = self._tunnels.get(tunnel_id)
        # A wrong routing ID must not consume the tunnel; a joined tunnel looks like none to everybody else.
        if tunnel is None or tunnel.guest is not None or routing_id != self.routing_id:
            return [self._refuse(connection, now, 404)]
        tunnel.guest = connection
        self.pending -= 1
        self.joined += 1
        self._pending.stop(tunnel)
        self._start(self._idle, tunnel, now)
        self._sit(connection, seat, tunnel, now)
        seat.peer = tunnel.owner
        self._connections[tunnel.owner].peer = connection
        early, tunnel.early = tunnel.early, _NO_MESSAGES
        self.forwarded_messages += len(early)
        self.forwarded_bytes += tunnel.early_bytes
        self.buffered -= tunnel.early_bytes
        return [Open(connection, None), *(Forward(connection, frame) for frame in early)]

    def _sit(self, connection: int, seat: _Connection, tunnel: _Tunnel, now: float) -> None:
        self._observer.upgraded(now - self._heads.started(connection))
        self._heads.stop(connection)
        seat.timer = None
        seat.tunnel = tunnel

    def _refuse(self, connection: int, now: float, status: int, retry_after: int | None = None) -> Refuse:
        self._time(connection, self._connections[connection], self._lingering, now)
        return Refuse(connection, status, retry_after)

    def _drop(self, connection: int, seat: _Connection, now: float) -> Drop:
        """End a connection at once: should its request still come, nobody answers."""
        self._time(connection, seat, self._lingering, now)
        return Drop(connection)

    def _leave(
        self, connection: int, code: Code, outcome: Outcome, now: float, told: int | None = None
    ) -> list[Action]:
        """End the tunnel of `connection`."""
        actions = self.tick(now)
        seat = self._connections.get(connection)
        if seat is None or seat.tunnel is None:
            return actions
        if seat.peer is None and outcome in (Outcome.JOINED, Outcome.VANISHED):
            outcome = Outcome.ABANDONED
        return actions + self._end(seat.tunnel, code, outcome, now, told)

    def _cut(self, connection: int, now: float) -> list[Action]:
        """End a side that does not read. What waits for it is lost with it; the other side can be told at once."""
        seat = self._connections[connection]
        self.buffered -= seat.unsent
        seat.unsent = 0
        actions = self._leave(connection, Code.LIMIT, Outcome.LIMITED, now, connection)
        return [*actions, self._drop(connection, seat, now)]

    def _end(self, tunnel: _Tunnel, code: Code, outcome: Outcome, now: float, told: int | None = None) -> list[Action]:
        """`told`: the side that needs no close frame."""
        del self._tunnels[tunnel.tunnel_id]
        self._lifetime.stop(tunnel)
        if tunnel.guest is None:
            self._pending.stop(tunnel)
            self.pending -= 1
            self.buffered -= tunnel.early_bytes
        else:
            self._idle.stop(tunnel)
            self.joined -= 1
        actions: list[Action] = []
        for connection in (tunnel.owner, tunnel.guest):
            if connection is not None:
                seat = self._connections[connection]
                seat.tunnel = seat.peer = None
                self._time(connection, seat, self._lingering, now)
                if connection != told:
                    actions.append(Close(connection, code))
        self._observer.tunnel_ended(outcome, now - tunnel.created)
        return actions
