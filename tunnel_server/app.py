"""Sockets, TLS, HTTP and WebSocket bytes in front of `tunnel_server.relay` (RFC 6455; CTAP 2.3 §11.5.1).

Bytes become facts, actions become bytes; who may talk to whom and for how long is not decided here. The sans-I/O
layer of `websockets` reads and writes frames. A side that reads slowly makes the other side wait: nothing is queued
beyond one socket buffer. No log line holds an id, an address or a payload.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import itertools
import logging
import re
import secrets
import ssl
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import assert_never

from websockets.datastructures import Headers
from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from hybrid.errors import RemoteProtocolError
from hybrid.protocol.tunnel import ROUTING_ID_HEADER, ROUTING_ID_SIZE, SUBPROTOCOL, Target, parse_path
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

logger = logging.getLogger(__name__)

# `websockets` writes paths, headers and payloads to its logger at debug level, so it gets one that is off.
_silent = logging.getLogger(f"{__name__}.frames")
_silent.disabled = True

MAX_HEAD_SIZE = 8 * 1024
_WRITE_BUFFER = 64 * 1024
_TLS_GRACE = 0.5  # s; TLS has no half-close, see _Connection._end_stream
_STOP_GRACE = 1.0  # s; for last bytes when the whole server stops
_BACKLOG = 1024

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) HTTP/1\.[01]\r\n")
_TUNNEL_PATH = re.compile(r"/cable/(new|connect|contact)([/?].*)?")


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An answer that needs no decision of the relay: the request is wrong by itself."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Upgrade:
    """A good request, with the answer that the relay may still refuse to give."""

    target: Target
    websocket: ServerProtocol
    response: Response


def _read_head(head: bytes, origins: Collection[str], max_size: int) -> _Upgrade | _Refusal:
    """Check the bytes of one request head, from its first line to the empty one."""
    line = _REQUEST_LINE.match(head)
    if line is None:
        return _Refusal(400)
    if line[1] != b"GET":
        return _Refusal(405, (("Allow", "GET"),))
    path = line[2].decode("ascii")
    if not _TUNNEL_PATH.fullmatch(path):
        return _Refusal(404)
    try:
        target = parse_path(path)
    except RemoteProtocolError:
        return _Refusal(400)
    websocket = ServerProtocol(
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        max_size=max_size,
        logger=_silent,
    )
    websocket.receive_data(head)
    request = next(iter(websocket.events_received()), None)
    if not isinstance(request, Request):
        return _Refusal(400)
    return _check_headers(request.headers, origins) or _upgrade(request, target, websocket)


def _check_headers(headers: Headers, origins: Collection[str]) -> _Refusal | None:
    if headers.get_all("Upgrade") and headers.get_all("Sec-WebSocket-Version") != ["13"]:
        return _Refusal(426, (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")))
    # Clients that are no browsers may leave Origin out (libwebauthn, microG), so only a wrong one counts.
    if origins and not set(headers.get_all("Origin")) <= set(origins):
        return _Refusal(403)
    return None


def _upgrade(request: Request, target: Target, websocket: ServerProtocol) -> _Upgrade | _Refusal:
    response = websocket.accept(request)
    if response.status_code == 426:
        return _Refusal(426, (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")))
    if response.status_code != 101:
        return _Refusal(response.status_code)
    return _Upgrade(target, websocket, response)


def _answer(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """Bytes of a whole HTTP answer that ends the connection."""
    body = f"{status} {http.HTTPStatus(status).phrase}\n"
    lines = [
        f"HTTP/1.1 {body.rstrip()}",
        *(f"{name}: {value}" for name, value in headers),
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("ascii")


class _Connection(asyncio.Protocol):
    """One TCP connection: its head, then its frames."""

    def __init__(self, server: Server, number: int) -> None:
        self._server = server
        self._number = number
        self._transport: asyncio.Transport
        self._starting_tls: asyncio.Task[None] | None = None
        self._head: bytearray | None = bytearray()
        self._upgrade: _Upgrade | None = None
        self._websocket: ServerProtocol | None = None
        self._parts = bytearray()
        self._stalled = False
        self._closing_later: asyncio.TimerHandle | None = None
        self.ended = asyncio.get_running_loop().create_future()

    # From asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.admit(self, self._number, transport.get_extra_info("peername"))
        if self._server.ssl_context is not None and not transport.is_closing():
            # Here and not in create_server(), so that a connection counts before its TLS handshake is over.
            transport.pause_reading()
            self._starting_tls = asyncio.get_running_loop().create_task(self._start_tls(transport))
        else:
            transport.set_write_buffer_limits(_WRITE_BUFFER)

    async def _start_tls(self, raw: asyncio.Transport) -> None:
        assert self._server.ssl_context is not None
        limits = self._server.limits
        transport = None
        with contextlib.suppress(OSError):  # also ssl.SSLError; the other side knows better what went wrong
            transport = await asyncio.get_running_loop().start_tls(
                raw,
                self,
                self._server.ssl_context,
                server_side=True,
                ssl_handshake_timeout=limits.head,
                ssl_shutdown_timeout=limits.linger,
            )
        self._starting_tls = None
        if transport is None:
            logger.debug("a TLS handshake failed")
            raw.abort()
            self.connection_lost(None)  # asyncio tells a protocol of no loss before the handshake is over
            return
        self._transport = transport
        transport.set_write_buffer_limits(_WRITE_BUFFER)
        self._read_request()

    def data_received(self, data: bytes) -> None:
        if self._websocket is not None:
            self._read_frames(data)
        elif self._head is not None:
            self._head += data
            self._read_request()
        # else: refused, and reading on only so that the answer is not lost in a TCP reset

    def eof_received(self) -> None:
        self._server.apply(self._server.relay.vanished(self._number, self._server.now()))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closing_later is not None:
            self._closing_later.cancel()
        if self._starting_tls is not None:
            self._starting_tls.cancel()
        if not self.ended.done():
            self.ended.set_result(None)
            self._server.forget(self._number)

    def pause_writing(self) -> None:
        self._stalled = True
        self._server.set_peer_reading(self._number, False)

    def resume_writing(self) -> None:
        self._stalled = False
        self.set_reading(True)
        self._server.set_peer_reading(self._number, True)

    # From the relay

    def open(self, routing_id: bytes | None) -> None:
        """Answer 101."""
        assert self._upgrade is not None
        self._websocket, response = self._upgrade.websocket, self._upgrade.response
        self._upgrade = None
        if routing_id is not None:
            response.headers[ROUTING_ID_HEADER] = routing_id.hex().upper()
        self._websocket.send_response(response)
        self._flush()

    def refuse(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Answer `status` and expect the other side to go."""
        logger.debug("a request was answered with %d", status)
        self._head = self._upgrade = None
        self._transport.write(_answer(status, headers))
        self._end_stream(clean=False)

    def forward(self, message: bytes) -> None:
        """Send a binary message."""
        if self._websocket is not None and self._websocket.state is State.OPEN:
            self._websocket.send_binary(message)
            self._flush()

    def close(self, code: Code) -> None:
        """Send a close frame if none was sent."""
        self.set_reading(True)  # to see the answer
        if self._websocket is not None and self._websocket.state is State.OPEN:
            self._websocket.send_close(code)
            self._flush()

    def drop(self) -> None:
        """End at once."""
        self._transport.abort()

    def finish(self) -> None:
        """End as soon as all has been sent."""
        # asyncio's transport for TLS forgets its connection when closed twice, and can then not be aborted.
        if not self._transport.is_closing():
            self._transport.close()

    def set_reading(self, reading: bool) -> None:
        """Take more bytes from this side, or make it wait."""
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    # Bytes

    def _read_request(self) -> None:
        assert self._head is not None
        if self._starting_tls is not None:
            return  # the request came with the end of the TLS handshake, and _start_tls will come here
        end = self._head.find(b"\r\n\r\n", 0, MAX_HEAD_SIZE) + 4
        if end < 4:
            if len(self._head) >= MAX_HEAD_SIZE:
                self._turn_away(_Refusal(431))
            return
        head, rest = bytes(self._head[:end]), bytes(self._head[end:])
        self._head = None
        result = _read_head(head, self._server.origins, self._server.limits.message)
        if isinstance(result, _Refusal):
            self._turn_away(result)
            return
        self._upgrade = result
        self._server.apply(self._server.relay.asked(self._number, result.target, self._server.now()))
        if rest and self._websocket is not None:
            self._read_frames(rest)

    def _turn_away(self, refusal: _Refusal) -> None:
        self.refuse(refusal.status, refusal.headers)
        self._server.apply(self._server.relay.turned_away(self._number, self._server.now()))

    def _read_frames(self, data: bytes) -> None:
        websocket = self._websocket
        assert websocket is not None
        websocket.receive_data(data)
        for event in websocket.events_received():
            assert isinstance(event, Frame)
            self._server.apply(self._take(event))
        self._flush()
        if websocket.parser_exc is not None:
            code = Code.SIZE if isinstance(websocket.parser_exc, PayloadTooBig) else Code.PROTOCOL
            self._server.apply(self._server.relay.broke_rules(self._number, code, self._server.now()))

    def _take(self, frame: Frame) -> list[Action]:
        relay, now = self._server.relay, self._server.now()
        match frame.opcode:
            case Opcode.BINARY | Opcode.CONT:
                if frame.fin and not self._parts:
                    return relay.message(self._number, bytes(frame.data), now)
                self._parts += frame.data
                if frame.fin:
                    message, self._parts = bytes(self._parts), bytearray()
                    return relay.message(self._number, message, now)
            case Opcode.TEXT:
                return relay.broke_rules(self._number, Code.TEXT, now)
            case Opcode.CLOSE:
                return relay.left(self._number, now)
            case Opcode.PING:
                if self._stalled:  # a side that pings and never reads would fill our buffer with pongs
                    self.set_reading(False)
            case Opcode.PONG:
                pass
        return []

    def _flush(self) -> None:
        assert self._websocket is not None
        for data in self._websocket.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._end_stream(clean=self._websocket.close_rcvd is not None)

    def _end_stream(self, *, clean: bool) -> None:
        """Say that nothing more comes from here; `clean` if nothing more comes from the other side either.

        Closing a socket that still receives makes TCP reset it, and the last bytes sent may be lost with it. So plain
        TCP is closed in our direction only. TLS cannot do that: it waits a moment for what is under way.
        """
        if self._transport.can_write_eof():
            self._transport.write_eof()
        elif clean:
            self.finish()
        elif self._closing_later is None:
            loop = asyncio.get_running_loop()
            self._closing_later = loop.call_later(_TLS_GRACE, self.finish)


class Server:
    """A running relay. `serve` makes it; `host` and `port` are the bound address."""

    def __init__(
        self,
        *,
        limits: Limits,
        routing_id: bytes,
        origins: Collection[str],
        limit_loopback: bool,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self.host = ""
        self.port = 0
        self.limits = limits
        self.origins = origins
        self.ssl_context = ssl_context
        self.relay = Relay(routing_id, limits)
        self._limit_loopback = limit_loopback
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._connections: dict[int, _Connection] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._drained = asyncio.Event()
        self._stopped = False

    def now(self) -> float:
        return self._loop.time()

    async def drain(self) -> None:
        """Take no new tunnels from now on, and wait until none is left."""
        self.apply(self.relay.drain(self.now()))
        await self._drained.wait()

    # For connections

    def new_connection(self) -> _Connection:
        return _Connection(self, next(self._numbers))

    def admit(self, connection: _Connection, number: int, peername: tuple[str, int] | None) -> None:
        # A peer that is gone before we look has no address any more; its end is about to be reported.
        group = address_group(peername[0], limit_loopback=self._limit_loopback) if peername else None
        self._connections[number] = connection
        self.apply(self.relay.arrived(number, group, self.now()))
        if self._stopped:  # accepted just before the listening socket closed
            connection.drop()

    def forget(self, number: int) -> None:
        self._connections.pop(number, None)
        self.apply(self.relay.gone(number, self.now()))

    def set_peer_reading(self, number: int, reading: bool) -> None:
        peer = self.relay.peer(number)
        if peer is not None and peer in self._connections:
            self._connections[peer].set_reading(reading)

    def apply(self, actions: Iterable[Action]) -> None:
        """Do what the relay decided, then set the alarm for its next deadline."""
        for action in actions:
            connection = self._connections.get(action.connection)
            if connection is None:
                continue
            match action:
                case Open(routing_id=routing_id):
                    connection.open(routing_id)
                case Refuse(status=status, retry_after=retry_after):
                    headers = [] if retry_after is None else [("Retry-After", str(retry_after))]
                    connection.refuse(status, headers)
                case Forward(message=message):
                    connection.forward(message)
                case Close(code=code):
                    logger.debug("a side of a tunnel is closed with %d", code)
                    connection.close(code)
                case Drop():
                    connection.drop()
                case _:
                    assert_never(action)
        if self.relay.drained:
            self._drained.set()
        self._arm()

    def _arm(self) -> None:
        if self._stopped:
            return
        deadline = self.relay.next_deadline()
        if deadline is None or (self._timer is not None and self._timer.when() <= deadline):
            return  # an alarm that comes too early sets the next one
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.apply(self.relay.tick(self.now()))

    async def aclose(self) -> None:
        """End all tunnels with a close frame and all connections. Nothing is left behind, even when cancelled."""
        self._stopped = True
        self.apply(self.relay.stop(self.now()))
        for connection in list(self._connections.values()):
            connection.finish()
        try:
            await self._all_ended(_STOP_GRACE)
        finally:
            self.abort()
            if self._timer is not None:
                self._timer.cancel()
        await self._all_ended(None)

    async def _all_ended(self, timeout: float | None) -> None:  # noqa: ASYNC109  (asyncio.wait keeps it)
        if ended := [connection.ended for connection in self._connections.values()]:
            await asyncio.wait(ended, timeout=timeout)

    def abort(self) -> None:
        """End all tunnels with a close frame and all connections, at once: what a slow side did not take is lost."""
        self._stopped = True
        self.apply(self.relay.stop(self.now()))
        for connection in list(self._connections.values()):
            connection.drop()


@asynccontextmanager
async def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    ssl_context: ssl.SSLContext | None = None,
    limits: Limits | None = None,
    origins: Collection[str] = (),
    limit_loopback: bool = False,
    routing_id: bytes | None = None,
) -> AsyncIterator[Server]:
    """Run a relay on `host` and `port` (0: any free one) while the context is open.

    To come, all with defaults: ``sockets: Sequence[socket.socket] = ()`` (bound and listening, in place of `host` and
    `port`; a unix socket is trusted like a proxy), ``observer: tunnel_server.observing.Observer``, ``router:
    tunnel_server.foreign.Router | None``, ``proxies: Collection[ip_network]`` whose ``X-Forwarded-For`` counts,
    ``proxy_protocol: bool``. `Server.ssl_context` may be set at any time and counts for later connections;
    `Server.start_drain()` is `Server.drain()` without the waiting; ``Server.listen(sock, secure=, trusted=)`` adds a
    listening socket (``secure``: TLS if there is a context; ``trusted``: its clients may say for whom they speak).

    Without `ssl_context` it speaks plain HTTP. `origins`: if any, the only values of an ``Origin`` header that are
    welcome. `routing_id`: 3 bytes that name this instance, random by default.

    Raises:
        OSError: the address cannot be bound.
    """
    server = Server(
        limits=limits or Limits(),
        routing_id=routing_id or secrets.token_bytes(ROUTING_ID_SIZE),
        origins=frozenset(origins),
        limit_loopback=limit_loopback,
        ssl_context=ssl_context,
    )
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(server.new_connection, host, port, backlog=_BACKLOG)
    try:
        server.host, server.port = listener.sockets[0].getsockname()[:2]
        yield server
    finally:
        listener.close()
        await server.aclose()
