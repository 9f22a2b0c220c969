"""Passing a join on to the worker or node that owns the tunnel, and its bytes both ways.

On one host the owner is a unix socket in a private folder, whose name is the routing id; no list is kept, the folder is
the list. A plain TCP connection is given to the owner as it is, descriptor and all, and costs nothing from then on. One
with TLS stays where its keys are, and so does one whose owner is on another host (`tunnel_server.peering`), over mutual
TLS. All limits are the owner's; who passes bytes on only keeps their pace, and closes with 1001 if it dies.
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
from tunnel_server.tls import Tls, TlsFailed

if TYPE_CHECKING:
    from tunnel_server.app import Listener, Server
    from tunnel_server.connection import Connection
    from tunnel_server.peering import PeerContexts

logger = logging.getLogger(__name__)

_CONNECT_TIME = 5.0  # s
_RETRY = "5"  # s
_AGAIN = 0.002  # s until a queue that was full is tried again
_GRACE = 0.5  # s for the client to read our last frame before its connection ends
_WRITE_BUFFER = 64 * 1024
_MAX_GIFT = 256 * 1024  # bytes of head, and of what came behind it; the system allows less
_AT_ONCE = 16  # gifts between two looks at everything else
_FROM_CLIENT, _FROM_NODE = b"c", b"n"  # first byte of a gift: who is at the other end of the connection

Dial = Callable[[Callable[[], asyncio.Protocol]], Awaitable[tuple[asyncio.BaseTransport, Any]]]
"""Connects a protocol with the owner."""

MakeConnection = Callable[["Server", "Listener", int], "Connection"]


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


def give(path: str, descriptor: int, data: bytes, *, from_node: bool = False) -> None:
    """Give a connection, of which `data` was read, to the worker with this `gift_path`; ours may be closed then.

    Raises:
        BlockingIOError: its queue is full.
        OSError: it is not there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.setblocking(False)
        out.connect(path)
        socket.send_fds(out, [(_FROM_NODE if from_node else _FROM_CLIENT) + data], [descriptor])


def take_gifts(server: Server, gifts: socket.socket, of_node: MakeConnection | None = None) -> None:
    """Go on with every connection that is given away to us, as long as the bound socket `gifts` is read.

    `of_node` makes what connections of other nodes become; without it there are none.
    """
    loop = asyncio.get_running_loop()
    adopting: set[asyncio.Task[None]] = set()

    def take() -> None:
        for _ in range(_AT_ONCE):
            try:
                data, descriptors, _, _ = socket.recv_fds(gifts, _MAX_GIFT, 1)
            except OSError:  # no more of them, or no more descriptors
                return
            from_node = data[:1] == _FROM_NODE
            for descriptor in descriptors:
                connected = socket.socket(fileno=descriptor)
                if from_node and of_node is None:
                    connected.close()
                    continue
                task = loop.create_task(server.adopt(connected, data[1:], of_node if from_node else None))
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
        peers_tls: PeerContexts | None = None,
        proxy_protocol: bool = False,
    ) -> None:
        self._node = node
        self._folder = folder
        self._peers = peers or {}
        self._peers_tls = peers_tls
        self._proxy_protocol = proxy_protocol
        self._pipes: set[_Pipe] = set()

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
            return self._to_worker(join)
        peer = self._peers.get(node)
        return None if peer is None else self._to_node(join, peer)

    def _to_worker(self, join: ForeignJoin) -> Taker | None:
        path = socket_path(self._folder, join.connect.routing_id)
        if not path.exists():
            return None
        head = request(join, proxy_protocol=self._proxy_protocol)
        if join.descriptor is not None:
            return _Gift(join.stream, join.descriptor, gift_path(path), head)
        loop = asyncio.get_running_loop()
        return self._start(join, head, None, lambda protocol: loop.create_unix_connection(protocol, str(path)))

    def _to_node(self, join: ForeignJoin, peer: Peer) -> Taker | None:
        if self._peers_tls is None:
            return None
        loop = asyncio.get_running_loop()
        head = request(join, proxy_protocol=False)
        call = _Call(join.connect.routing_id, Tls(self._peers_tls.calling, peer.host))
        return self._start(join, head, call, lambda protocol: loop.create_connection(protocol, peer.host, peer.port))

    def _start(self, join: ForeignJoin, head: bytes, call: _Call | None, dial: Dial) -> _Pipe:
        pipe = _Pipe(join.stream, head, self._pipes.discard)
        self._pipes.add(pipe)
        pipe.connect(dial, call)
        return pipe


@dataclass(frozen=True, slots=True)
class _Call:
    """What begins a connection to another node: for whom it is, then TLS."""

    routing_id: bytes
    tls: Tls


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
            give(self._path, self._descriptor, self._data)
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


class _Pipe:
    """One join that is passed on: a `Taker` for the client; `_Owner` is its other end."""

    def __init__(self, client: Stream, head: bytes, forget: Callable[[_Pipe], None]) -> None:
        self.client = client
        self._forget = forget
        self._owner: _Owner | None = None  # once it takes bytes
        self._connecting: asyncio.Task[None] | None = None
        self._waiting = bytearray(head)  # for the owner, until then
        self._answer = Answer()
        self._over = False  # the client's side ended, or got its last word
        self._client_ended = False
        client.pause_reading()

    def farewell(self) -> None:
        """Say that the relay stops, if nothing else was said."""
        if not self._over and self._answer.open:
            self._over = True
            self.client.write(close_frame(Code.VANISHED))

    def connect(self, dial: Dial, call: _Call | None) -> None:
        """Find the owner; without it the client gets 404, as for a tunnel that is not there."""
        self._connecting = asyncio.get_running_loop().create_task(self._connect(dial, call))

    async def _connect(self, dial: Dial, call: _Call | None) -> None:
        owner = _Owner(self, call)
        try:
            async with asyncio.timeout(_CONNECT_TIME):
                await dial(lambda: owner)
                await owner.settled.wait()
        except TimeoutError:
            logger.warning("the owner of a tunnel does not answer in time")
            self.owner_is_gone(refuse(503, (("Retry-After", _RETRY),)))
        except OSError:
            logger.debug("the owner of a tunnel cannot be reached")
            self.owner_is_gone()
        finally:
            if self._owner is None:  # also when the client has gone meanwhile
                owner.abort()

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
        if self._owner is not None:
            self._owner.write_eof()

    def pause_writing(self) -> None:
        if self._owner is not None:
            self._owner.pause_reading()

    def resume_writing(self) -> None:
        if self._owner is not None:
            self._owner.resume_reading()

    def connection_lost(self) -> None:
        self._over = True
        self._forget(self)
        if self._owner is not None:
            self._owner.close()
        elif self._connecting is not None:
            self._connecting.cancel()

    # From the owner

    def owner_is_here(self, owner: _Owner) -> None:
        if self._over:
            owner.abort()
            return
        self._owner = owner
        owner.write(bytes(self._waiting))
        self._waiting.clear()
        self.client.resume_reading()
        if self._client_ended:
            self.eof_received()

    def owner_said(self, data: bytes) -> None:
        if not self._over:
            self._answer.feed(data)
            self.client.write(data)

    def owner_is_gone(self, refusal: bytes = refuse(404)) -> None:
        if self._over:
            return
        self._over = True
        self.client.resume_reading()  # to see its end
        if self._answer.unanswered:
            self.client.write(refusal)
        elif self._answer.open:
            self.client.write(close_frame(Code.VANISHED))
        else:
            self.client.close()  # the owner has said all there is to say
            return
        asyncio.get_running_loop().call_later(_GRACE, self.client.close)


class _Owner(asyncio.Protocol):
    """The connection to the owner: as it is on this host, behind a name and in TLS to another one."""

    _transport: asyncio.Transport | None = None

    def __init__(self, pipe: _Pipe, call: _Call | None) -> None:
        self._pipe = pipe
        self._call = call
        self._tls = call.tls if call is not None else None
        self.settled = asyncio.Event()  # it takes bytes, or never will

    # From asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports of unix sockets are in no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_WRITE_BUFFER)
        if self._call is None:
            self._settle()
        else:
            self._call.tls.receive(b"")
            self._transport.write(self._call.routing_id + self._call.tls.outgoing())

    def data_received(self, data: bytes) -> None:
        if self._tls is None:
            self._pipe.owner_said(data)
        else:
            self._decrypt(self._tls, data)

    def pause_writing(self) -> None:
        self._pipe.client.pause_reading()

    def resume_writing(self) -> None:
        self._pipe.client.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pipe.owner_is_gone()
        self.settled.set()

    # From the pipe

    def write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._tls is not None:
            try:
                data = self._tls.send(data)
            except TlsFailed:
                self.abort()
                return
        self._transport.write(data)

    def write_eof(self) -> None:
        """Nothing more comes from the client; it may still read."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._tls is None:
            self._transport.write_eof()
        else:
            self._transport.write(self._tls.finish())

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            if self._tls is not None:
                self._transport.write(self._tls.finish())
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # TLS

    def _settle(self) -> None:
        self._pipe.owner_is_here(self)
        self.settled.set()

    def _decrypt(self, tls: Tls, data: bytes) -> None:
        assert self._transport is not None
        fresh = not tls.ready
        try:
            plain = tls.receive(data)
        except TlsFailed as exc:
            logger.warning("no TLS with the node that owns a tunnel: %s", _reason(exc))
            self._transport.write(tls.outgoing())
            self._transport.close()
            return
        if answer := tls.outgoing():
            self._transport.write(answer)
        if fresh and tls.ready:
            self._settle()
        if plain:
            self._pipe.owner_said(plain)
        if tls.ended:
            self.close()


def _reason(failed: TlsFailed) -> str:
    """What was wrong with a node's TLS, without its name or address."""
    cause = failed.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message.partition(",")[0]
    return getattr(cause, "reason", None) or "it ended"
