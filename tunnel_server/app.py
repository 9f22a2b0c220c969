"""The relay as a server: listening sockets, the clock, and the hands of `tunnel_server.relay` (CTAP 2.3 §11.5.1).

Who may talk to whom and for how long is decided in `relay.Relay`; what bytes mean is read in `connection.Connection`.
`serve` runs both on asyncio's loop or on uvloop's, whichever runs. No log line holds an id, an address or a payload.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import assert_never

from hybrid.protocol.tunnel import ROUTING_ID_SIZE
from tunnel_server.client_address import Network, is_in
from tunnel_server.connection import Connection
from tunnel_server.foreign import Router
from tunnel_server.observing import Observer, Unobserved
from tunnel_server.relay import Action, Close, Drop, Forward, Limits, Open, Refuse, Relay, address_group

logger = logging.getLogger(__name__)

_STOP_GRACE = 1.0  # s; for last requests before the end of a drain, and for last bytes when the whole server stops
_BACKLOG = 1024
_UNSENT = 128 * 1024
"""Bytes that the kernel keeps for a side that does not read. Left alone it takes 4 MiB, more than a tunnel ever has, so
that nobody would ever stall."""


@dataclass(slots=True, eq=False)
class Listener:
    """A listening socket. `secure`: TLS, if there is a context; `trusted`: clients may say for whom they speak."""

    secure: bool
    trusted: bool
    server: asyncio.Server | None = None


class Server:
    """A running relay, made by `serve`.

    `host` and `port` are the first bound address. `relay` holds the numbers that an operator may want to see.
    `ssl_context` may be replaced at any time; connections that exist keep theirs.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        routing_id: bytes,
        origins: Collection[str] = (),
        limit_loopback: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        observer: Observer | None = None,
        router: Router | None = None,
        proxies: Collection[Network] = (),
        proxy_protocol: bool = False,
    ) -> None:
        self.host = ""
        self.port = 0
        self.ssl_context = ssl_context
        self.observer = observer or Unobserved()
        self.relay = Relay(routing_id, limits, self.observer)
        self.connections: dict[int, Connection] = {}
        self.max_message = limits.message
        self.origins = frozenset(origin.encode("latin-1", "replace") for origin in origins)
        self.router = router
        self.proxies = tuple(proxies)
        self.proxy_protocol = proxy_protocol
        self._limit_loopback = limit_loopback
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self._numbers = itertools.count()
        self._listeners: list[Listener] = []
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = math.inf
        self._moved = asyncio.Event()  # while draining
        self._empty = asyncio.Event()
        self._stopped = False

    async def listen(self, listening: socket.socket, *, secure: bool = True, trusted: bool = False) -> None:
        """Take connections from a socket that is bound; it belongs to the server from now on.

        `secure`: with TLS, if there is an `ssl_context`. `trusted`: every client may say for whom it speaks.
        """
        listening.setblocking(False)
        listener = Listener(secure, trusted)
        make = partial(self._new_connection, listener)
        if listening.family == socket.AF_UNIX:
            listener.server = await self._loop.create_unix_server(make, sock=listening, backlog=_BACKLOG)
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSENT)  # what is accepted inherits it
            listener.server = await self._loop.create_server(make, sock=listening, backlog=_BACKLOG)
        self._listeners.append(listener)

    async def adopt(
        self,
        connected: socket.socket,
        data: bytes,
        make: Callable[[], asyncio.Protocol] | None = None,
    ) -> None:
        """Go on with a TCP connection that another process of this host accepted, and of which it read `data`.

        Like everybody whom a trusted listener lets in, it may say for whom it speaks. It is plain, unless `make` makes
        something else of it.
        """
        connected.setblocking(False)
        listener = Listener(secure=False, trusted=True)
        made = make or partial(self._new_connection, listener)
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(lambda: _Adopted(made(), data), connected)

    def start_drain(self) -> None:
        """Take no new tunnels from now on; those that exist may be joined and go on."""
        self.apply(self.relay.drain(self.now()))

    async def drain(self) -> None:
        """`start_drain`, then wait until no tunnel is left, and a second at most for requests that are on their way."""
        self.start_drain()
        await self._until(lambda: self.relay.drained)
        await self.stop_accepting()
        # They may be for a tunnel of another process on this host, which is not over.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_GRACE):
                await self._until(lambda: not self.relay.asking)
        await self._until(lambda: self.relay.drained)

    async def stop_accepting(self) -> None:
        """Leave the queue of new connections to other processes that listen on the same sockets.

        Only those of other relays on this host still come, through unix sockets. Nothing that was accepted is lost.
        """
        for listener in self._listeners:
            if listener.server is None or listener.trusted:
                continue
            if isinstance(self._loop, asyncio.SelectorEventLoop):
                # asyncio accepts in one step of the loop and attaches to the server in a later one, which fails when
                # the server was closed in between.
                for listening in listener.server.sockets:
                    self._loop.remove_reader(listening.fileno())
                await asyncio.sleep(0)
            listener.server.close()

    # For connections

    def number(self) -> int:
        """For the next connection."""
        return next(self._numbers)

    def _new_connection(self, listener: Listener) -> Connection:
        return Connection(self, listener, self.number())

    def admit(self, connection: Connection, number: int, host: str | None) -> None:
        """A connection came from `host`, None if that is not known or not to be limited."""
        self.connections[number] = connection
        self.apply(self.relay.arrived(number, self.group_of(host), self.now()))
        if self._stopped:  # accepted just before the listening socket closed
            connection.abort()

    def forget(self, number: int) -> None:
        """A connection is over."""
        self.connections.pop(number, None)
        self.apply(self.relay.gone(number, self.now()))
        if not self.connections:
            self._empty.set()

    def is_proxy(self, host: str | None) -> bool:
        """Whether `host` may say for whom it speaks."""
        return bool(self.proxies) and host is not None and is_in(host, self.proxies)

    def group_of(self, host: str | None) -> str | None:
        """Whom the limits per address count `host` with."""
        return None if host is None else address_group(host, limit_loopback=self._limit_loopback)

    def peer_of(self, number: int) -> Connection | None:
        """The connection at the other end of the tunnel, if there is one now."""
        peer = self.relay.peer(number)
        return None if peer is None else self.connections.get(peer)

    def apply(self, actions: Iterable[Action]) -> None:
        """Do what the relay decided, then set the alarm for its next deadline."""
        for action in actions:
            connection = self.connections.get(action.connection)
            if connection is None:
                continue
            match action:
                case Forward(frame=frame):
                    connection.send(frame)
                case Open(routing_id=routing_id):
                    connection.open(routing_id)
                case Refuse(status=status, retry_after=retry_after):
                    connection.refuse(status, () if retry_after is None else (("Retry-After", str(retry_after)),))
                case Close(code=code):
                    logger.debug("a side of a tunnel is closed with %d", code)
                    connection.close_with(code)
                case Drop():
                    connection.drop()
                case _:
                    assert_never(action)
        relay = self.relay
        if relay.alarm < self._wakes_at:
            self._set_timer(relay.alarm)
        if relay.draining:
            self._moved.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait, while draining, for what only facts told to the relay can bring about."""
        while not condition():
            self._moved.clear()
            await self._moved.wait()

    def _set_timer(self, alarm: float) -> None:
        """Wake up at `alarm`; one that comes too early sets the next one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._stopped:
            self._timer = self._loop.call_at(alarm, self._tick)
            self._wakes_at = alarm

    def _tick(self) -> None:
        self._timer = None
        self._wakes_at = math.inf
        self.apply(self.relay.tick(self.now()))

    # The end

    async def aclose(self) -> None:
        """End all tunnels with a close frame and all connections. Nothing is left behind, even when cancelled."""
        self._stopped = True
        for listener in self._listeners:
            if listener.server is not None:
                listener.server.close()
        self.apply(self.relay.stop(self.now()))
        for connection in list(self.connections.values()):
            connection.close()
        try:
            await asyncio.wait_for(self.deserted(), _STOP_GRACE)
        except TimeoutError:
            pass
        finally:
            self.abort()
            if self._timer is not None:
                self._timer.cancel()
        await self.deserted()

    async def deserted(self) -> None:
        """Wait until there is no connection."""
        while self.connections:
            self._empty.clear()
            await self._empty.wait()

    def abort(self) -> None:
        """End all tunnels with a close frame and all connections, at once: what a slow side did not take is lost."""
        self._stopped = True
        self.apply(self.relay.stop(self.now()))
        for connection in list(self.connections.values()):
            connection.abort()


class _Adopted(asyncio.Protocol):
    """Tells a connection what was read of it, before uvloop can read on, which is before `adopt` goes on."""

    def __init__(self, connection: asyncio.Protocol, data: bytes) -> None:
        self._connection = connection
        self._data = data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.set_protocol(self._connection)
        self._connection.connection_made(transport)
        self._connection.data_received(self._data)


@asynccontextmanager
async def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    sockets: Sequence[socket.socket] = (),
    ssl_context: ssl.SSLContext | None = None,
    limits: Limits | None = None,
    origins: Collection[str] = (),
    limit_loopback: bool = False,
    routing_id: bytes | None = None,
    observer: Observer | None = None,
    router: Router | None = None,
    proxies: Collection[Network] = (),
    proxy_protocol: bool = False,
) -> AsyncIterator[Server]:
    """Run a relay on `host` and `port` (0: any free one) while the context is open.

    Without `ssl_context` it speaks plain HTTP. `sockets`: bound ones, in place of `host` and `port`; a unix socket is
    plain, and trusted like a proxy. `origins`: if any, the only values of an ``Origin`` header that are welcome.
    `routing_id`: 3 bytes that name this instance, random by default. `observer` is told how things end. `router` takes
    joins with another routing ID. `proxies` may say for whom they speak: in ``X-Forwarded-For`` or, with
    `proxy_protocol`, in a header of the PROXY protocol, version 2, that they then must send.

    Raises:
        OSError: the address cannot be bound.
    """
    server = Server(
        limits=limits or Limits(),
        routing_id=routing_id or secrets.token_bytes(ROUTING_ID_SIZE),
        origins=origins,
        limit_loopback=limit_loopback,
        ssl_context=ssl_context,
        observer=observer,
        router=router,
        proxies=proxies,
        proxy_protocol=proxy_protocol,
    )
    try:
        for bound in sockets or await bind(host, port):
            unix = bound.family == socket.AF_UNIX
            await server.listen(bound, secure=not unix, trusted=unix)
            if not unix and not server.host:
                server.host, server.port = bound.getsockname()[:2]
        yield server
    finally:
        await server.aclose()


async def bind(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of `host`, as asyncio would bind it.

    Raises:
        OSError: an address cannot be bound.
        UnicodeError: a host name that cannot be one.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            made = socket.socket(family, socket.SOCK_STREAM)
            bound.append(made)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(address)
    except OSError:
        for made in bound:
            made.close()
        raise
    return bound
