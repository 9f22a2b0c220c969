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


async def listen(listener: socket.socket, context: ssl.SSLContext, forwarder: Forwarder) -> asyncio.Server:
    """Take joins for workers of this host on a bound socket."""
    return await asyncio.get_running_loop().create_server(
        lambda: _Caller(forwarder), sock=listener, ssl=context, ssl_handshake_timeout=_HEAD_TIME, backlog=_BACKLOG
    )


class _Caller(asyncio.Protocol):
    """A connection of another node: a request head, then bytes for whoever takes them."""

    _transport: asyncio.Transport

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._head = bytearray()
        self._taker: Taker | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports of TLS are in no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._deadline = asyncio.get_running_loop().call_later(_HEAD_TIME, self._transport.abort)

    def data_received(self, data: bytes) -> None:
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
            self._transport.write(refuse(404))
            self._transport.close()
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
        return self._forwarder.to_worker(ForeignJoin(target, head, request.headers, address, self._transport))

    def pause_writing(self) -> None:
        if self._taker is not None:
            self._taker.pause_writing()

    def resume_writing(self) -> None:
        if self._taker is not None:
            self._taker.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._taker is not None:
            self._taker.connection_lost()
