"""Between machines: the listener for joins that other nodes pass on, and the TLS that both sides prove themselves with.

A node that connects must show a certificate of the peers' own authority, and so must the one that answers. What comes
in is a request head and bytes behind it, and goes to a worker of this host; it is never passed on to a third node.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hybrid.protocol.tunnel import Connect
from tunnel_server.foreign import ForeignJoin, Taker
from tunnel_server.forwarding import Forwarder
from tunnel_server.http_head import Refusal, find_end, members, read_head, refuse
from tunnel_server.passing import HOPS_HEADER
from tunnel_server.tls import Tls, TlsFailed

_HEAD_TIME = 10.0  # s for TLS and request head
_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class PeerFiles:
    """PEM files: our certificate chain, its key, the authority of all peers."""

    cert: Path
    key: Path
    ca: Path

    def contexts(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """TLS for calling other nodes, and for being called by them.

        Raises:
            OSError: a file cannot be read, or is not what it should be (also ssl.SSLError).
        """
        calling = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(self.ca))
        called = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.ca))
        called.verify_mode = ssl.CERT_REQUIRED
        for context in (calling, called):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(self.cert, self.key, password="")
        return calling, called

    def renew(self, context: ssl.SSLContext) -> None:
        """Show the certificate as it is now on connections to come; nothing changes if a file is no good.

        Raises:
            OSError: as `contexts` does.
        """
        self.contexts()
        context.load_cert_chain(self.cert, self.key, password="")


async def listen(listener: socket.socket, context: ssl.SSLContext, forwarder: Forwarder, limit: int) -> asyncio.Server:
    """Take joins for workers of this host on a bound socket; `limit` connections at once, whoever they come from."""
    callers: set[_Caller] = set()

    def make() -> _Caller:
        return _Caller(forwarder, Tls(context), callers, limit)

    return await asyncio.get_running_loop().create_server(make, sock=listener, backlog=_BACKLOG)


class _Caller(asyncio.Protocol):
    """A connection of another node: TLS, a request head, then bytes for whoever takes them.

    A `foreign.Stream` for that one. It counts from its first byte, because anybody may begin with TLS.
    """

    _transport: asyncio.Transport

    def __init__(self, forwarder: Forwarder, tls: Tls, callers: set[_Caller], limit: int) -> None:
        self._forwarder = forwarder
        self._tls = tls
        self._callers = callers
        self._limit = limit
        self._head = bytearray()
        self._taker: Taker | None = None
        self._deadline: asyncio.TimerHandle | None = None

    # From asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are in no class of asyncio's
        if len(self._callers) >= self._limit:
            self.abort()
            return
        self._callers.add(self)
        self._deadline = asyncio.get_running_loop().call_later(_HEAD_TIME, self.abort)

    def data_received(self, data: bytes) -> None:
        try:
            plain = self._tls.receive(data)
        except TlsFailed:
            self._transport.write(self._tls.outgoing())
            self._transport.close()
            return
        if answer := self._tls.outgoing():
            self._transport.write(answer)
        if plain:
            self._read(plain)
        if self._tls.ended:
            self.close()

    def pause_writing(self) -> None:
        if self._taker is not None:
            self._taker.pause_writing()

    def resume_writing(self) -> None:
        if self._taker is not None:
            self._taker.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._callers.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._taker is not None:
            self._taker.connection_lost()

    # From the taker

    def write(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        try:
            self._transport.write(self._tls.send(data))
        except TlsFailed:
            self.abort()

    def pause_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._tls.finish())
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    # Bytes

    def _read(self, data: bytes) -> None:
        if self._taker is not None:
            self._taker.data_received(data)
            return
        if self._deadline is None:
            return  # refused
        self._head += data
        end = find_end(self._head)
        if end == 0:
            return
        self._deadline.cancel()
        self._deadline = None
        rest = b""
        if end is not None:
            rest = bytes(self._head[end:])
            self._taker = self._take(bytes(self._head[:end]))
        self._head.clear()
        if self._taker is None:
            self.write(refuse(404))
            self.close()
        elif rest:
            self._taker.data_received(rest)

    def _take(self, head: bytes) -> Taker | None:
        request = read_head(head)
        if isinstance(request, Refusal) or HOPS_HEADER not in request.headers:
            return None
        target = request.target
        if not isinstance(target, Connect):
            return None
        client = members(request.headers.get(b"x-forwarded-for", ()))
        address = client[-1].decode("ascii", "replace") if client else None
        return self._forwarder.to_worker(ForeignJoin(target, head, request.headers, address, self))
