"""Who waits for whom, and for how long (CTAP 2.3 §11.5.1, "tunnel service"). Every decision of the relay is made here.

Pure: no sockets, no WebSocket library, no clock, no dice. `Relay` is fed facts about numbered connections, each with
the time, and answers with the actions that follow; `tunnel_server.app` turns bytes into facts and actions into bytes.
How a phone reaches its relay is the vendor's business; ``/cable/new`` is what Chromium and Google's relay use.

A connection goes through: arrived (nothing asked yet) -> seated in a tunnel -> closing -> gone.
A tunnel goes through: pending (one seat taken) -> joined (consumed: nobody else gets in) -> ended.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

from hybrid.protocol.tunnel import Connect, Contact, New, Target


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tunnel and a connection may use. Sizes in bytes, times in seconds."""

    message: int = 128 * 1024  # one message
    messages: int = 64  # messages from one side
    total: int = 1024 * 1024  # bytes of messages from one side
    early_messages: int = 8  # messages before the other side joined
    early_bytes: int = 64 * 1024  # bytes of those
    pending: float = 120.0  # waiting for the other side
    idle: float = 180.0  # no binary message after joining; a slow user is silence, pings do not count
    lifetime: float = 600.0  # a tunnel in all
    head: float = 10.0  # TLS handshake and request head together
    linger: float = 10.0  # waiting for the TCP end after a close or a refusal
    connections: int = 16384  # open at once
    per_address: int = 64  # open at once from one IPv4 address or IPv6 /64


class Code(IntEnum):
    """Why a tunnel ends: WebSocket close codes, given to both sides."""

    LEFT = 1000  # the peer left
    VANISHED = 1001  # the peer vanished, or the relay stops
    PROTOCOL = 1002  # unmasked, reserved bits or otherwise illegal
    TEXT = 1003  # only binary messages are forwarded
    LIMIT = 1008  # a limit or the time
    SIZE = 1009  # a message is too long


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
    """Send one binary message."""

    connection: int
    message: bytes

    def __repr__(self) -> str:
        return f"<Forward {len(self.message)} bytes to {self.connection}>"


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

_Key = TypeVar("_Key")


class _Timer(Generic[_Key]):
    """Deadlines of one length. Because of that, the order of starting is the order of striking."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._started: OrderedDict[_Key, float] = OrderedDict()

    def start(self, key: _Key, now: float) -> None:
        self._started[key] = now
        self._started.move_to_end(key)

    def stop(self, key: _Key) -> None:
        self._started.pop(key, None)

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
    guest: int | None = None
    early: list[bytes] = field(default_factory=list)
    early_bytes: int = 0

    def other(self, connection: int) -> int | None:
        return self.guest if connection == self.owner else self.owner


@dataclass(slots=True, eq=False, repr=False)
class _Connection:
    group: str | None
    refusal: int | None
    tunnel: _Tunnel | None = None
    messages: int = 0
    total: int = 0


def address_group(host: str, *, limit_loopback: bool = False) -> str | None:
    """Whom a per-address limit counts together: an IPv4 address or an IPv6 /64; None is never limited."""
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

    def __init__(self, routing_id: bytes, limits: Limits) -> None:
        self._routing_id = routing_id
        self._limits = limits
        self._draining = False
        self._connections: dict[int, _Connection] = {}
        self._groups: Counter[str] = Counter()
        self._tunnels: dict[bytes, _Tunnel] = {}
        self._heads: _Timer[int] = _Timer(limits.head)
        self._lingering: _Timer[int] = _Timer(limits.linger)
        self._pending: _Timer[_Tunnel] = _Timer(limits.pending)
        self._idle: _Timer[_Tunnel] = _Timer(limits.idle)
        self._lifetime: _Timer[_Tunnel] = _Timer(limits.lifetime)

    @property
    def tunnels(self) -> int:
        """How many tunnels there are, pending or joined."""
        return len(self._tunnels)

    @property
    def connections(self) -> int:
        """How many connections there are, in any state."""
        return len(self._connections)

    @property
    def drained(self) -> bool:
        """Nothing is left to wait for after `drain`."""
        return self._draining and not self._tunnels

    def peer(self, connection: int) -> int | None:
        """The connection at the other end of the tunnel, if there is one now."""
        seat = self._connections.get(connection)
        return seat.tunnel.other(connection) if seat and seat.tunnel else None

    # Facts

    def arrived(self, connection: int, group: str | None, now: float) -> list[Action]:
        """A TCP connection came. `group` as `address_group` gives it."""
        actions = self.tick(now)
        taken = len(self._connections)
        same = self._groups[group] if group is not None else 0
        # Above a limit a connection still gets a status, but only so many: the answer costs a TLS handshake.
        if taken >= self._limits.connections + 64 or same >= 2 * self._limits.per_address:
            return [*actions, Drop(connection)]
        refusal = None
        if taken >= self._limits.connections:
            refusal = 503
        elif same >= self._limits.per_address:
            refusal = 429
        self._connections[connection] = _Connection(group, refusal)
        if group is not None:
            self._groups[group] += 1
        self._heads.start(connection, now)
        return actions

    def turned_away(self, connection: int, now: float) -> list[Action]:
        """The request was no good as HTTP or as a WebSocket and has been answered."""
        actions = self.tick(now)
        if self._asking(connection) is not None:
            self._close(connection, now)
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

    def message(self, connection: int, message: bytes, now: float) -> list[Action]:
        """A binary message is complete."""
        actions = self.tick(now)
        seat = self._connections.get(connection)
        if seat is None or seat.tunnel is None:
            return actions
        tunnel = seat.tunnel
        if len(message) > self._limits.message:
            return actions + self._end(tunnel, Code.SIZE, now)
        seat.messages += 1
        seat.total += len(message)
        if seat.messages > self._limits.messages or seat.total > self._limits.total:
            return actions + self._end(tunnel, Code.LIMIT, now)
        other = tunnel.other(connection)
        if other is not None:
            self._idle.start(tunnel, now)
            return [*actions, Forward(other, message)]
        tunnel.early.append(message)
        tunnel.early_bytes += len(message)
        if len(tunnel.early) > self._limits.early_messages or tunnel.early_bytes > self._limits.early_bytes:
            return actions + self._end(tunnel, Code.LIMIT, now)
        return actions

    def broke_rules(self, connection: int, code: Code, now: float) -> list[Action]:
        """Illegal frames, text or a length above the limit."""
        return self._leave(connection, code, now, told=False)

    def left(self, connection: int, now: float) -> list[Action]:
        """A close frame came, and was answered."""
        return self._leave(connection, Code.LEFT, now, told=True)

    def vanished(self, connection: int, now: float) -> list[Action]:
        """The stream ended without a close frame."""
        return self._leave(connection, Code.VANISHED, now, told=True)

    def gone(self, connection: int, now: float) -> list[Action]:
        """The TCP connection is over, for whatever reason. Always the last fact about a connection."""
        actions = self.vanished(connection, now)
        seat = self._connections.pop(connection, None)
        if seat is None:
            return actions
        self._heads.stop(connection)
        self._lingering.stop(connection)
        if seat.group is not None:
            self._groups[seat.group] -= 1
            if not self._groups[seat.group]:
                del self._groups[seat.group]
        return actions

    def drain(self, now: float) -> list[Action]:
        """From now on no new tunnels; those that exist may still be joined and go on."""
        self._draining = True
        return self.tick(now)

    def stop(self, now: float) -> list[Action]:
        """End every tunnel."""
        self._draining = True
        actions = self.tick(now)
        for tunnel in list(self._tunnels.values()):
            actions += self._end(tunnel, Code.VANISHED, now)
        return actions

    def tick(self, now: float) -> list[Action]:
        """Time went on. Every other fact does this first, so a late one finds the world as it should be."""
        actions: list[Action] = []
        for timer in (self._lifetime, self._pending, self._idle):
            for tunnel in timer.struck(now):
                actions += self._end(tunnel, Code.LIMIT, now)
        for connection in (*self._heads.struck(now), *self._lingering.struck(now)):
            actions.append(Drop(connection))
        return actions

    def next_deadline(self) -> float | None:
        """When `tick` has something to do at the earliest, if nothing else happens."""
        timers: tuple[_Timer[int] | _Timer[_Tunnel], ...] = (
            self._heads,
            self._lingering,
            self._pending,
            self._idle,
            self._lifetime,
        )
        return min((deadline for timer in timers if (deadline := timer.next()) is not None), default=None)

    # Decisions

    def _asking(self, connection: int) -> _Connection | None:
        """The connection, if it may still make its one request."""
        seat = self._connections.get(connection)
        return seat if seat is not None and self._heads.running(connection) else None

    def _create(self, connection: int, seat: _Connection, tunnel_id: bytes, now: float) -> list[Action]:
        if self._draining:
            return [self._refuse(connection, now, 503, _DRAINING_RETRY)]
        if tunnel_id in self._tunnels:
            return [self._refuse(connection, now, 409)]
        tunnel = _Tunnel(tunnel_id, connection)
        self._tunnels[tunnel_id] = tunnel
        self._pending.start(tunnel, now)
        self._lifetime.start(tunnel, now)
        self._sit(connection, seat, tunnel)
        return [Open(connection, self._routing_id)]

    def _join(
        self, connection: int, seat: _Connection, routing_id: bytes, tunnel_id: bytes, now: float
    ) -> list[Action]:
        tunnel = self._tunnels.get(tunnel_id)
        # A wrong routing ID must not consume the tunnel; a joined tunnel looks like none to everybody else.
        if tunnel is None or tunnel.guest is not None or routing_id != self._routing_id:
            return [self._refuse(connection, now, 404)]
        tunnel.guest = connection
        self._pending.stop(tunnel)
        self._idle.start(tunnel, now)
        self._sit(connection, seat, tunnel)
        early, tunnel.early = tunnel.early, []
        return [Open(connection, None), *(Forward(connection, message) for message in early)]

    def _sit(self, connection: int, seat: _Connection, tunnel: _Tunnel) -> None:
        self._heads.stop(connection)
        seat.tunnel = tunnel

    def _refuse(self, connection: int, now: float, status: int, retry_after: int | None = None) -> Refuse:
        self._close(connection, now)
        return Refuse(connection, status, retry_after)

    def _leave(self, connection: int, code: Code, now: float, *, told: bool) -> list[Action]:
        """End the tunnel of `connection`; `told` if that side needs no close frame."""
        actions = self.tick(now)
        seat = self._connections.get(connection)
        if seat is not None and seat.tunnel is not None:
            ended = self._end(seat.tunnel, code, now)
            actions += [action for action in ended if not told or action.connection != connection]
        return actions

    def _end(self, tunnel: _Tunnel, code: Code, now: float) -> list[Action]:
        del self._tunnels[tunnel.tunnel_id]
        for timer in (self._pending, self._idle, self._lifetime):
            timer.stop(tunnel)
        actions: list[Action] = []
        for connection in (tunnel.owner, tunnel.guest):
            if connection is not None:
                self._connections[connection].tunnel = None
                self._close(connection, now)
                actions.append(Close(connection, code))
        return actions

    def _close(self, connection: int, now: float) -> None:
        self._heads.stop(connection)
        self._lingering.start(connection, now)
