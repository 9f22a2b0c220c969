"""Between machines: the listener for joins that other nodes pass on, and the side of a link that is called.

A node that calls says first which worker it wants, three bytes in the clear; the process that listens gives the
connection to that worker and has nothing more to do with it. What follows is a link (`tunnel_server.links`), and in it
requests as `tunnel_server.passing` writes them. Nothing is passed on to a third node.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any, cast

from hybrid.protocol.tunnel import ROUTING_ID_SIZE, Connect
from tunnel_server.app import Listener, Server
from tunnel_server.connection import Connection, Stage
from tunnel_server.forwarding import gift_path, give, socket_path
from tunnel_server.http_head import Refusal, Request, read_head
from tunnel_server.links import Link, PeerContexts
from tunnel_server.passing import HOPS_HEADER
from tunnel_server.tls import Tls

_NAME_TIME = 10.0  # s for the name of the worker
_PROOF_TIME = 10.0  # s for the handshake
_AGAIN = 0.002  # s until a queue that was full is tried again
_BACKLOG = 1024
_NODES = Listener(secure=False, trusted=True)


class CalledLinks:
    """Links that other nodes made to this worker, at most `limit` at once."""

    def __init__(self, server: Server, contexts: PeerContexts, limit: int) -> None:
        self.server = server
        self.contexts = contexts
        self.limit = limit
        self.open: set[CalledLink] = set()

    def make(self) -> CalledLink:
        """For a connection that is given to us."""
        return CalledLink(self)

    def close(self) -> None:
        """End them all, at once."""
        for link in list(self.open):
            link.abort()


class CalledLink(Link):
    """One of them: it may join tunnels that are here, nothing else. New certificates end it before its next join."""

    def __init__(self, links: CalledLinks) -> None:
        super().__init__(Tls(links.contexts.called))
        self._links = links
        self._context = links.contexts.called
        self._join: _Join | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self._links.open) >= self._links.limit:
            self.abort()
            return
        self._links.open.add(self)
        self._deadline = asyncio.get_running_loop().call_later(_PROOF_TIME, self.abort)

    def proved(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def take(self, part: bytes) -> None:
        if self._join is None:
            if not part or self._context is not self._links.contexts.called:
                self.abort()
                return
            server = self._links.server
            self._join = _Join(self)
            self._join.begin(NodeConnection(server, _NODES, server.number()))
        self._join.take(part)

    def join_is_over(self) -> None:
        """Its turn is over."""
        self._join = None
        if self._full:
            self.close()  # its last words may take a while
        else:
            self.resume_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._join is not None:
            self._join.full(True)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._join is not None:
            self._join.full(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._links.open.discard(self)
        self.proved()
        if self._join is not None:
            self._join.lost(exc)


class _Join(asyncio.Transport):
    """What a `Connection` takes for its TCP connection: one turn on a link."""

    def __init__(self, link: CalledLink) -> None:
        super().__init__()
        self._link = link
        self._connection: NodeConnection | None = None  # until it is lost
        self._closing = False
        self._we_ended = False
        self._they_ended = False

    def begin(self, connection: NodeConnection) -> None:
        """Let a connection have it."""
        self._connection = connection
        connection.connection_made(self)

    # From the link

    def take(self, part: bytes) -> None:
        """What the other node passes on; nothing: no more of it."""
        if not part:
            self._they_ended = True
            if self._connection is None:
                self._link.join_is_over()
                return
            if not self._closing and not self._connection.eof_received():
                self.close()
            if self._we_ended:
                self.lost()  # the next join may stand right behind
        elif not self._closing and self._connection is not None:
            self._connection.data_received(part)

    def full(self, is_full: bool) -> None:
        """The other node takes no more, or again."""
        if self._connection is not None:
            (self._connection.pause_writing if is_full else self._connection.resume_writing)()

    def lost(self, exc: Exception | None = None) -> None:
        """The connection is over, and the turn too if nothing more can come."""
        connection, self._connection = self._connection, None
        self._closing = True
        if connection is None:
            return
        connection.connection_lost(exc)
        if self._they_ended:
            self._link.join_is_over()

    # From the connection

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._link.transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self._we_ended:
            self._link.send(bytes(data))

    def write_eof(self) -> None:
        if not self._we_ended:
            self._we_ended = True
            self._link.send(b"")

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.write_eof()
            asyncio.get_running_loop().call_soon(self.lost)

    def abort(self) -> None:
        if self.get_write_buffer_size():
            self._link.abort()  # what was written would still go out
        else:
            self.close()

    def pause_reading(self) -> None:
        self._link.pause_reading()

    def resume_reading(self) -> None:
        self._link.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._link.transport.get_write_buffer_size()


class NodeConnection(Connection):
    """A join that another node passes on."""

    __slots__ = ()

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
