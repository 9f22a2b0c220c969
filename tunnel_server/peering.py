"""Between machines: the listener for joins that other nodes pass on, and the TLS that both sides prove themselves with.

A node that calls says first which worker it wants, three bytes in the clear; the process that listens gives the
connection to that worker and has nothing more to do with it. Then comes TLS, in which both show a certificate of the
peers' own authority, and in it a request as `tunnel_server.passing` writes it. Nothing is passed on to a third node.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hybrid.protocol.tunnel import ROUTING_ID_SIZE, Connect
from tunnel_server.connection import Connection, Stage
from tunnel_server.forwarding import gift_path, give, socket_path
from tunnel_server.http_head import Refusal, Request, read_head
from tunnel_server.passing import HOPS_HEADER
from tunnel_server.tls import Tls

if TYPE_CHECKING:
    from tunnel_server.app import Listener, Server

_NAME_TIME = 10.0  # s for the name of the worker
_AGAIN = 0.002  # s until a queue that was full is tried again
_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class PeerFiles:
    """PEM files: our certificate chain, its key, the authority of all peers."""

    cert: Path
    key: Path
    ca: Path

    def contexts(self) -> PeerContexts:
        """TLS with the files as they are now.

        Raises:
            OSError: a file cannot be read, or is not what it should be (also ssl.SSLError).
        """
        calling = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(self.ca))
        called = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.ca))
        called.verify_mode = ssl.CERT_REQUIRED
        called.num_tickets = 0  # nobody resumes
        for context in (calling, called):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(self.cert, self.key, password="")
        return PeerContexts(calling, called)


@dataclass(slots=True)
class PeerContexts:
    """TLS for calling other nodes, and for being called by them. Connections that exist keep what they began with."""

    calling: ssl.SSLContext
    called: ssl.SSLContext

    def replace_by(self, fresh: PeerContexts) -> None:
        """Take other certificates and another authority for connections to come."""
        self.calling, self.called = fresh.calling, fresh.called


class NodeConnection(Connection):
    """A connection of another node, which may join tunnels that are here, and nothing else."""

    __slots__ = ()

    def __init__(self, contexts: PeerContexts, server: Server, listener: Listener, number: int) -> None:
        super().__init__(server, listener, number)
        self._tls = Tls(contexts.called)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._stage is Stage.PROXY:  # whom it speaks for stands in its request
            self._stage = Stage.HEAD

    def _ask(self, head: bytes) -> None:
        match read_head(head):
            case Request(target=Connect(), headers=headers) if HOPS_HEADER in headers:
                super()._ask(head)
            case _:
                self._turn_away(Refusal(404))


async def listen(listener: socket.socket, folder: Path, limit: int) -> asyncio.Server:
    """Take connections of other nodes on a bound socket, for workers with sockets in `folder`.

    `limit` connections at once may owe the name of their worker, whoever they come from.
    """
    callers: set[_Caller] = set()

    def make() -> _Caller:
        return _Caller(folder, callers, limit)

    return await asyncio.get_running_loop().create_server(make, sock=listener, backlog=_BACKLOG)


class _Caller(asyncio.Protocol):
    """A connection of another node until its worker has it. It counts from its first byte: anybody may connect."""

    _transport: asyncio.Transport

    def __init__(self, folder: Path, callers: set[_Caller], limit: int) -> None:
        self._folder = folder
        self._callers = callers
        self._limit = limit
        self._data = b""
        self._deadline: asyncio.TimerHandle | None = None
        self._again: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are in no class of asyncio's
        if len(self._callers) >= self._limit:
            self._transport.abort()
            return
        self._callers.add(self)
        self._deadline = asyncio.get_running_loop().call_later(_NAME_TIME, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if len(self._data) >= ROUTING_ID_SIZE and self._again is None:
            self._transport.pause_reading()
            self._give()

    def _give(self) -> None:
        path = socket_path(self._folder, self._data[:ROUTING_ID_SIZE])
        descriptor = self._transport.get_extra_info("socket").fileno()
        try:
            give(gift_path(path), descriptor, self._data[ROUTING_ID_SIZE:], from_node=True)
        except BlockingIOError:  # the system queues but a few, ten or some hundred
            self._again = asyncio.get_running_loop().call_later(_AGAIN, self._give)
            return
        except OSError:  # no such worker
            pass
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._callers.discard(self)
        for timer in (self._deadline, self._again):
            if timer is not None:
                timer.cancel()
