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
_SILENT_TIME = 60.0  # s without a join, or for the end of one that has ended here; who calls ends a link before
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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self._links.open) >= self._links.limit:
            self.abort()
            return
        self._links.open.add(self)
        self.abort_after(_PROOF_TIME)

    def proved(self) -> None:
        self.abort_after(_SILENT_TIME)

    def take(self, part: bytes) -> None:
        if self._join is None:
            if not part or self._context is not self._links.contexts.called:
                self.abort()
                return
            server = self._links.server
            self.abort_after(None)
            self._join = _Join(self, NodeConnection(server, _NODES, server.number()))
        if part:
            self._join.take(part)
            return
        self._join.end()
        self._join = None
        if self._full:
            self.close()  # last words may take a while

    def said_all(self) -> None:
        """The join has ended here, and what the other node still says of it is not for anybody."""
        self.abort_after(_SILENT_TIME)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._join is not None:
            self._join.full(True)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._join is not None:
            self._join.full(False)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._links.open.discard(self)
        if self._join is not None:
            self._join.lost(exc)


class _Join(asyncio.Transport):
    """What a `Connection` takes for its TCP connection: one turn on a link.

    Closed, it is lost when the other node has ended it too, which has then read all of it.
    """

    def __init__(self, link: CalledLink, connection: NodeConnection) -> None:
        super().__init__()
        self._link = link
        self._connection = connection
        self._closing = False
        self._ended = False  # we have said all there is to say
        connection.connection_made(self)

    # From the link

    def take(self, part: bytes) -> None:
        """What the other node passes on."""
        if not self._closing:
            self._connection.data_received(part)

    def end(self) -> None:
        """No more of it."""
        if not self._closing:
            self._connection.eof_received()  # a tunnel has no use for one direction alone
            self.close()
        self.lost(None)

    def full(self, is_full: bool) -> None:
        """The other node takes no more, or again."""
        (self._connection.pause_writing if is_full else self._connection.resume_writing)()

    def lost(self, exc: Exception | None) -> None:
        """Nothing follows, also because the link has ended."""
        self._closing = self._ended = True
        self._connection.connection_lost(exc)

    # From the connection

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._link.transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self._ended:
            self._link.send(bytes(data))

    def write_eof(self) -> None:
        if not self._ended:
            self._ended = True
            self._link.send(b"")
            self._link.said_all()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.write_eof()
            self._link.resume_reading()  # to see the other node's end

    def abort(self) -> None:
        if self._ended or self.get_write_buffer_size():
            self._link.abort()  # the other node does not end it, or what was written would still go out
        else:
            self.close()

    def pause_reading(self) -> None:
        if not self._closing:
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

    def _hand_over(self, target: Connect, request: Request, head: bytes) -> bool:
        return False  # nothing is passed on to a third node, and the socket is the link's


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
