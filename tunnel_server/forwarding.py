"""Passing a join on to the worker or node that owns the tunnel, and its bytes both ways.

On one host the owner is a unix socket in a private folder, whose name is the routing id; no list is kept, the folder is
the list. A plain TCP connection is given to the owner as it is, descriptor and all, and costs nothing from then on. One
with TLS stays where its keys are, and so does one whose owner is another host, the peer listener of that node, over
mutual TLS. All limits are the owner's; who passes bytes on only keeps their pace, and closes with 1001 if it dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tunnel_server.foreign import ForeignJoin, Stream, Taker
from tunnel_server.frames import Code, close_frame
from tunnel_server.http_head import refuse
from tunnel_server.passing import HOPS_HEADER, Answer, request
from tunnel_server.routing import owner_of

if TYPE_CHECKING:
    from tunnel_server.app import Server

logger = logging.getLogger(__name__)

_CONNECT_TIME = 5.0  # s
_RETRY = "5"  # s
_AGAIN = 0.002  # s until a queue that was full is tried again
_GRACE = 0.5  # s for the client to read our last frame before its connection ends
_WRITE_BUFFER = 64 * 1024
_MAX_GIFT = 256 * 1024  # bytes of head, and of what came behind it; the system allows less
_AT_ONCE = 16  # gifts between two looks at everything else

Dial = Callable[[Callable[[], asyncio.Protocol]], Awaitable[tuple[asyncio.BaseTransport, Any]]]
"""Connects a protocol with the owner."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The peer listener of another node."""

    host: str
    port: int


def socket_path(folder: Path, routing_id: bytes) -> Path:
    """Unix socket of the worker that owns a routing id, for streams."""
    return folder / f"{routing_id.hex()}.sock"


def owners_in(folder: Path) -> set[bytes]:
    """Routing ids with a `socket_path` in the folder, also those of processes that nobody cleaned up after."""
    found = set()
    for path in folder.glob("*.sock"):
        with contextlib.suppress(ValueError):  # a file of somebody else
            found.add(bytes.fromhex(path.stem))
    return found


def gift_path(path: Path | str) -> str:
    """Unix socket for datagrams with descriptors, beside a worker's `socket_path`."""
    return f"{path}.gift"


def take_gifts(server: Server, gifts: socket.socket) -> None:
    """Go on with every connection that other workers give away to us, as long as the bound socket `gifts` is read."""
    loop = asyncio.get_running_loop()
    adopting: set[asyncio.Task[None]] = set()

    def take() -> None:
        for _ in range(_AT_ONCE):
            try:
                data, descriptors, _, _ = socket.recv_fds(gifts, _MAX_GIFT, 1)
            except OSError:  # no more of them, or no more descriptors
                return
            for descriptor in descriptors:
                task = loop.create_task(server.adopt(socket.socket(fileno=descriptor), data))
                adopting.add(task)
                task.add_done_callback(adopting.discard)

    gifts.setblocking(False)
    loop.add_reader(gifts, take)


class Forwarder:
    """Finds the owner of a join. An instance's `route` is a `tunnel_server.foreign.Router`.

    `proxy_protocol`: whether workers here expect a PROXY header of whom they trust.
    """

    def __init__(
        self,
        node: int,
        folder: Path,
        *,
        peers: Mapping[int, Peer] | None = None,
        peer_context: ssl.SSLContext | None = None,
        proxy_protocol: bool = False,
    ) -> None:
        self._node = node
        self._folder = folder
        self._peers = peers or {}
        self.peer_context = peer_context
        self._proxy_protocol = proxy_protocol
        self._pipes: dict[_Pipe, asyncio.Task[None]] = {}

    def farewell(self) -> None:
        """This process ends: tell every client whose join was passed on, while it still can be told."""
        for pipe in list(self._pipes):
            pipe.farewell()

    def route(self, join: ForeignJoin) -> Taker | None:
        """Take a join over; None if nobody is known to own it, or if it was passed on before."""
        if HOPS_HEADER in join.headers:
            return None
        node = owner_of(join.connect.routing_id).node
        if node == self._node:
            return self.to_worker(join)
        peer = self._peers.get(node)
        if peer is None:
            return None
        return self._start(join, self._dial_peer(peer), request(join, proxy_protocol=False))

    def to_worker(self, join: ForeignJoin) -> Taker | None:
        """Pass a join on to a worker of this host; None if there is no such worker."""
        path = socket_path(self._folder, join.connect.routing_id)
        if not path.exists():
            return None
        loop = asyncio.get_running_loop()
        head = request(join, proxy_protocol=self._proxy_protocol)
        if join.descriptor is not None:
            return _Gift(join.stream, join.descriptor, gift_path(path), head)
        return self._start(join, lambda protocol: loop.create_unix_connection(protocol, str(path)), head)

    def _dial_peer(self, peer: Peer) -> Dial:
        loop = asyncio.get_running_loop()
        return lambda protocol: loop.create_connection(
            protocol, peer.host, peer.port, ssl=self.peer_context, ssl_handshake_timeout=_CONNECT_TIME
        )

    def _start(self, join: ForeignJoin, dial: Dial, head: bytes) -> _Pipe:
        pipe = _Pipe(join.stream, head, self._forget)
        self._pipes[pipe] = asyncio.get_running_loop().create_task(pipe.connect(dial))
        return pipe

    def _forget(self, pipe: _Pipe) -> None:
        self._pipes.pop(pipe, None)


class _Gift:
    """One join whose connection is given away: a `Taker` for the moment until that is done."""

    def __init__(self, client: Stream, descriptor: int, path: str, head: bytes) -> None:
        self._client = client
        self._descriptor = descriptor
        self._path = path
        self._data = head
        self._lost = False
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + _CONNECT_TIME
        client.pause_reading()
        self._loop.call_soon(self._give)  # when what came in one packet with the request is here too

    def _give(self) -> None:
        """Send the descriptor; the connection goes on elsewhere when ours is closed."""
        if self._lost:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)
                out.connect(self._path)
                socket.send_fds(out, [self._data], [self._descriptor])
        except BlockingIOError:  # the system queues but a few, ten or some hundred
            if self._loop.time() < self._deadline:
                self._loop.call_later(_AGAIN, self._give)
            else:
                self._refuse(503, (("Retry-After", _RETRY),))
        except OSError:
            self._refuse(404)
        else:
            self._client.abort()

    def _refuse(self, status: int, headers: tuple[tuple[str, str], ...] = ()) -> None:
        logger.debug("a connection cannot be given to the owner of its tunnel")
        self._client.write(refuse(status, headers))
        self._client.resume_reading()
        self._client.close()

    def data_received(self, data: bytes) -> None:
        """What came in one packet with the request."""
        self._data += data

    def eof_received(self) -> None:
        """The owner will see it too."""

    def pause_writing(self) -> None:
        """Nothing is written."""

    def resume_writing(self) -> None:
        """Nothing is written."""

    def connection_lost(self) -> None:
        self._lost = True


class _Pipe(asyncio.Protocol):
    """One join that is passed on: a `Taker` for the client, an `asyncio.Protocol` for the owner."""

    def __init__(self, client: Stream, head: bytes, forget: Callable[[_Pipe], None]) -> None:
        self._client = client
        self._forget = forget
        self._owner: asyncio.Transport | None = None
        self._waiting = bytearray(head)  # for the owner, until it is connected
        self._answer = Answer()
        self._over = False  # the client's side ended, or got its last word
        self._client_ended = False
        client.pause_reading()

    def farewell(self) -> None:
        """Say that the relay stops, if nothing else was said."""
        if not self._over and self._answer.open:
            self._over = True
            self._client.write(close_frame(Code.VANISHED))

    async def connect(self, dial: Dial) -> None:
        """Find the owner; without it the client gets 404, as for a tunnel that is not there."""
        try:
            async with asyncio.timeout(_CONNECT_TIME):
                await dial(lambda: self._Owner(self))
        except TimeoutError:
            logger.warning("the owner of a tunnel does not answer in time")
            self._owner_is_gone(refuse(503, (("Retry-After", _RETRY),)))
        except OSError:  # also ssl.SSLError
            logger.debug("the owner of a tunnel cannot be reached")
            self._owner_is_gone()

    # From the client

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if self._owner is None:
            self._waiting += data
        else:
            self._owner.write(data)

    def eof_received(self) -> None:
        self._client_ended = True
        if self._owner is not None and self._owner.can_write_eof():
            self._owner.write_eof()
        elif self._owner is not None:
            self._owner.close()

    def pause_writing(self) -> None:
        if self._owner is not None:
            self._owner.pause_reading()

    def resume_writing(self) -> None:
        if self._owner is not None and not self._owner.is_closing():
            self._owner.resume_reading()

    def connection_lost(self, exc: Exception | None = None) -> None:
        self._over = True
        self._forget(self)
        if self._owner is not None:
            self._owner.close()

    # From the owner

    class _Owner(asyncio.Protocol):
        """The other half: the same calls, about the other connection."""

        def __init__(self, pipe: _Pipe) -> None:
            self._pipe = pipe

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            # uvloop's transports of unix sockets are in no class of asyncio's.
            self._pipe._owner_is_here(cast(asyncio.Transport, transport))

        def data_received(self, data: bytes) -> None:
            pipe = self._pipe
            if not pipe._over:
                pipe._answer.feed(data)
                pipe._client.write(data)

        def pause_writing(self) -> None:
            self._pipe._client.pause_reading()

        def resume_writing(self) -> None:
            self._pipe._client.resume_reading()

        def connection_lost(self, exc: Exception | None) -> None:
            self._pipe._owner_is_gone()

    def _owner_is_here(self, owner: asyncio.Transport) -> None:
        owner.set_write_buffer_limits(_WRITE_BUFFER)
        if self._over:
            owner.abort()
            return
        self._owner = owner
        owner.write(bytes(self._waiting))
        self._waiting.clear()
        self._client.resume_reading()
        if self._client_ended:
            self.eof_received()

    def _owner_is_gone(self, refusal: bytes = refuse(404)) -> None:
        if self._over:
            return
        self._over = True
        self._client.resume_reading()  # to see its end
        if self._answer.unanswered:
            self._client.write(refusal)
        elif self._answer.open:
            self._client.write(close_frame(Code.VANISHED))
        else:
            self._client.close()  # the owner has said all there is to say
            return
        asyncio.get_running_loop().call_later(_GRACE, self._client.close)
