"""One TCP connection of the relay: PROXY header, TLS, request head, frames. Bytes become facts for `relay.Relay`.

A side that reads slowly makes the other side wait: nothing is queued beyond one socket buffer and one message. No log
line holds an id, an address or a payload.
"""

from __future__ import annotations

import asyncio
import logging
from enum import IntEnum
from typing import TYPE_CHECKING, cast

from hybrid.protocol.tunnel import Connect
from tunnel_server import http_head
from tunnel_server.client_address import BadForwardedFor, BadProxyHeader, read_forwarded_for, read_proxy_header
from tunnel_server.foreign import ForeignJoin, Taker
from tunnel_server.frames import (
    Closing,
    Code,
    FrameReader,
    Message,
    Ping,
    Violation,
    close_frame,
    whole_close,
    whole_message,
)
from tunnel_server.http_head import Refusal, Request, find_end, read_head
from tunnel_server.masking import unmask
from tunnel_server.pausing import Pausing
from tunnel_server.tls import Tls, TlsFailed

if TYPE_CHECKING:
    from tunnel_server.app import Listener, Server

logger = logging.getLogger(__name__)


class Stage(IntEnum):
    """What the next bytes are."""

    PROXY = 0  # a header of a proxy that speaks for somebody
    HEAD = 1  # the request
    FRAMES = 2
    CLOSING = 3  # frames, until the answer to our close frame
    TAKEN = 4  # whatever `Taker` makes of them
    DONE = 5  # nothing: we have said our last, and wait for the end


_PROXY, _HEAD, _FRAMES, _CLOSING, _TAKEN, _DONE = Stage


class Connection(Pausing):
    """One TCP connection. What the relay decides comes back as calls of the methods under "From the relay"."""

    __slots__ = (
        "_client",
        "_held",
        "_key",
        "_number",
        "_reader",
        "_server",
        "_stage",
        "_stalled",
        "_taker",
        "_tls",
        "_trusted",
    )

    def __init__(self, server: Server, listener: Listener, number: int) -> None:
        self._server = server
        self._number = number
        self._tls = Tls(server.ssl_context) if listener.secure and server.ssl_context is not None else None
        self._trusted = listener.trusted  # may say for whom it speaks
        self._stage = _HEAD
        self._stalled = False
        self._held: bytearray | None = None  # of a PROXY header or a head
        self._key = b""  # of the request, while the relay decides about it
        self._reader: FrameReader | None = None  # only between the pieces of something
        self._taker: Taker | None = None
        self._client: str | None = None  # if a proxy told

    # From asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        server = self._server
        host = self._peer()
        if self._trusted or server.is_proxy(host):
            self._trusted, host = True, None
            if server.proxy_protocol:
                self._stage = _PROXY
        server.admit(self, self._number, host)

    def _peer(self) -> str | None:
        """The address at the other end. A unix socket has none, nor has who is gone before we look."""
        peer = self._transport.get_extra_info("peername")
        return peer[0] if isinstance(peer, tuple) else None

    def data_received(self, data: bytes) -> None:
        if self._stage is _PROXY:
            data = self._read_proxy_header(data)
            if not data:
                return
        if self._tls is not None:
            data = self._decrypt(self._tls, data)
            if not data:
                return
        if self._stage is _FRAMES and self._reader is None:
            server = self._server
            found = whole_message(data, server.max_message, unmask)
            if found is not None:
                size, frame = found
                now = server.now()
                peer = server.relay.forwards(self._number, size, now)
                if peer is not None:
                    server.connections[peer].send(frame)
                else:
                    server.apply(server.relay.message(self._number, size, frame, now))
                return
        self._read(data)

    def eof_received(self) -> bool:
        if self._taker is not None:
            self._taker.eof_received()
            return True
        self._server.apply(self._server.relay.vanished(self._number, self._server.now()))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._taker is not None:
            self._taker.connection_lost()
            self._taker = None
        if self._tls is not None and not self._tls.ready:
            self._server.observer.handshake_failed()
        self._server.forget(self._number)

    def pause_writing(self) -> None:
        self._stalled = True
        server = self._server
        if self._taker is not None:
            self._taker.pause_writing()
        held = self._transport.get_write_buffer_size()
        server.apply(server.relay.stalled(self._number, held, server.now()))
        peer = server.peer_of(self._number)
        if peer is not None:
            peer.pause_reading()

    def resume_writing(self) -> None:
        self._stalled = False
        server = self._server
        if self._taker is not None:
            self._taker.resume_writing()
        server.apply(server.relay.unstalled(self._number, server.now()))
        peer = server.peer_of(self._number)
        if peer is not None:
            peer.resume_reading()
        if self._taker is None and (peer is None or not peer._stalled):
            self.resume_reading()

    # From the relay

    def open(self, routing_id: bytes | None) -> None:
        """Answer 101."""
        self._stage = _FRAMES
        self.send(http_head.accept(self._key, routing_id))
        self._key = b""

    def refuse(self, status: int, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """Answer `status` and expect the other side to go."""
        logger.debug("a request was answered with %d", status)
        self._server.observer.refused(status)
        self.send(http_head.refuse(status, headers))
        self._end_stream()

    def send(self, data: bytes) -> None:
        """Send bytes of HTTP or frames."""
        if self._stage is _DONE:
            return
        if self._tls is not None:
            try:
                data = self._tls.send(data)
            except TlsFailed:
                self.abort()
                return
        self._transport.write(data)

    def close_with(self, code: Code) -> None:
        """Send a close frame, and read on only for the answer to it."""
        if self._stage is _FRAMES:
            self.send(close_frame(code))
            self._stage = _CLOSING
        self._transport.resume_reading()

    def close(self) -> None:
        """End as soon as all has been sent."""
        if self._transport.is_closing():
            return  # CPython 3.11.2 does not bear to be told twice
        if self._tls is not None and self._stage is not _DONE:
            self._transport.write(self._tls.finish())
        self._stage = _DONE
        self._transport.close()

    def abort(self) -> None:
        """End at once."""
        self._stage = _DONE
        self._transport.abort()

    def drop(self) -> None:
        """End at once, because there is no time or no room."""
        if self._stage <= _HEAD:
            self._server.observer.dropped()
        self.abort()

    # For the other side, and for whoever takes this connection over

    def write(self, data: bytes) -> None:
        """`send`, under the name that `foreign.Stream` gives it."""
        self.send(data)

    # Bytes

    def _read_proxy_header(self, data: bytes) -> bytes:
        """What follows the header, if it is complete."""
        self._held = (self._held or bytearray()) + data
        try:
            found = read_proxy_header(self._held)
        except BadProxyHeader:
            logger.warning("a proxy that is trusted sent no PROXY header that can be read")
            self.drop()
            return b""
        if found is None:
            return b""
        size, host = found
        rest, self._held = bytes(self._held[size:]), None
        self._stage = _HEAD
        self._trusted = False  # it has said for whom it speaks
        self._identify(host)
        return b"" if self._stage is _DONE else rest

    def _identify(self, host: str | None) -> None:
        """A proxy of ours said for whom it speaks; None: for itself."""
        server = self._server
        self._client = host
        server.apply(server.relay.identified(self._number, server.group_of(host), server.now()))

    def _decrypt(self, tls: Tls, data: bytes) -> bytes:
        """Plaintext, if there is any."""
        if self._stage is _DONE:
            return b""
        fresh = not tls.ready
        try:
            plain = tls.receive(data)
        except TlsFailed:
            logger.debug("a TLS connection failed")
            self._stage = _DONE
            if not self._transport.is_closing():
                self._transport.write(tls.outgoing())
                self._transport.close()
            return b""
        if answer := tls.outgoing():
            self._transport.write(answer)
            if self._stalled and self._taker is None:  # a side that asks for new keys and never reads them
                self._transport.pause_reading()
        if fresh and tls.ready:
            self._server.relay.secured(self._number, self._server.now())
        if tls.ended:
            if plain:
                self._read(plain)
            if not self.eof_received() and not self._transport.is_closing():
                self.close()
            return b""
        return plain

    def _read(self, data: bytes) -> None:
        stage = self._stage
        if stage is _HEAD:
            self._read_head(data)
        elif stage is _TAKEN:
            assert self._taker is not None
            self._taker.data_received(data)
        elif stage is not _DONE:  # after a refusal we read on only so that the answer is not lost in a TCP reset
            self._read_frames(data)

    def _read_head(self, data: bytes) -> None:
        held = self._held
        if held is None:
            end = find_end(data)
        else:
            seen = len(held)
            held += data
            end = find_end(held, seen)
        if end is None:
            self._turn_away(Refusal(431))
        elif end:
            data = data if held is None else bytes(held)
            self._held = None
            self._ask(data[:end])
            if end < len(data):
                self._read(data[end:])
        elif held is None:
            self._held = bytearray(data)

    def _ask(self, head: bytes) -> None:
        server = self._server
        request = read_head(head, server.origins)
        if isinstance(request, Refusal):
            self._turn_away(request)
            return
        if self._trusted:
            try:
                lines = request.headers.get(b"x-forwarded-for", ())
                host = read_forwarded_for(http_head.members(lines), server.proxies)
            except BadForwardedFor:
                self._turn_away(Refusal(400))
                return
            self._identify(host)
            if self._stage is _DONE:
                return
        target = request.target
        if isinstance(target, Connect) and target.routing_id != server.relay.routing_id:
            if self._hand_over(target, request, head):
                return
        self._key = request.key
        server.apply(server.relay.asked(self._number, target, server.now()))

    def _hand_over(self, target: Connect, request: Request, head: bytes) -> bool:
        """Give a join of another relay's tunnel to who knows that relay; False if nobody does."""
        server = self._server
        if server.router is None or server.relay.refuses(self._number):
            return False
        descriptor = self._transport.get_extra_info("socket").fileno() if self._tls is None else None
        client = self._client or self._peer()
        join = ForeignJoin(target, head, request.headers, client, self, descriptor)
        self._taker = server.router(join)
        if self._taker is None:
            return False
        self._stage = _TAKEN
        server.observer.handed_over()
        server.apply(server.relay.handed_over(self._number, server.now()))
        return True

    def _turn_away(self, refusal: Refusal) -> None:
        self._held = None
        self.refuse(refusal.status, refusal.headers)
        self._server.apply(self._server.relay.turned_away(self._number, self._server.now()))

    def _read_frames(self, data: bytes) -> None:
        if self._reader is None:
            answer = whole_close(data, unmask)
            if answer is not None:
                self._take_close(answer)
                return
        server, relay, number = self._server, self._server.relay, self._number
        reader = self._reader or FrameReader(server.max_message, unmask)
        for event in reader.feed(data):
            match event:
                case Message(size, frame):
                    server.apply(relay.message(number, size, frame, server.now()))
                case Ping(answer):
                    self.send(answer)
                    if self._stalled:  # a side that pings and never reads would fill our buffer with pongs
                        self._transport.pause_reading()
                case Closing(answer):
                    self._take_close(answer)
                case Violation(code):
                    logger.debug("a side of a tunnel broke the rules: %d", code)
                    server.apply(relay.broke_rules(number, code, server.now()))
                    self._end_stream()
        server.apply(relay.read(number, reader.frames, server.now()))
        if not reader.empty and self._stage is not _DONE:
            self._reader = reader
            server.apply(relay.unfinished(number, reader.announced, reader.held, server.now()))
        elif self._reader is not None:
            self._reader = None
            server.apply(relay.unfinished(number, 0, 0, server.now()))

    def _take_close(self, answer: bytes) -> None:
        """A close frame came: the first one, or the answer to ours."""
        if self._stage is _FRAMES:
            self.send(answer)
            self._server.apply(self._server.relay.left(self._number, self._server.now()))
        self.close()

    def _end_stream(self) -> None:
        """Say that nothing more comes from here, and wait for the other side to say the same.

        Closing a socket that still receives makes TCP reset it, and the last bytes sent may be lost with it.
        """
        if self._stage is _DONE or self._transport.is_closing():
            return
        if self._tls is not None:
            self._transport.write(self._tls.finish())
        self._stage = _DONE
        self._transport.write_eof()
        self._transport.resume_reading()
