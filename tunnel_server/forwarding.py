"""Passing a join on to the worker or node that owns the tunnel, and its bytes both ways.

On one host the owner is a unix socket in a private folder, whose name is the routing id; no list is kept, the folder is
the list. A plain TCP connection is given to the owner as it is, descriptor and all, and costs nothing from then on. One
with TLS stays where its keys are, and so does one whose owner is on another host (`tunnel_server.peering`), over mutual
TLS. All limits are the owner's; who passes bytes on only keeps their pace, and closes with 1001 if it dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from tunnel_server.foreign import ForeignJoin, Stream, Taker
from tunnel_server.frames import Code, close_frame
from tunnel_server.http_head import refuse
from tunnel_server.links import Links, Passer, PeerContexts
from tunnel_server.passing import HOPS_HEADER, Answer, request
from tunnel_server.pausing import Pausing
from tunnel_server.routing import owner_of

if TYPE_CHECKING:
    from tunnel_server.app import Server

logger = logging.getLogger(__name__)

_ANSWER_TIME = 5.0  # s until the owner has answered
_RETRY = "5"  # s
_AGAIN = 0.002  # s until a queue that was full is tried again
_GRACE = 0.5  # s for the client to read our last frame before its connection ends
_WRITE_BUFFER = 64 * 1024
_MAX_GIFT = 256 * 1024  # bytes of head, and of what came behind it; the system allows less
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}  # our own want, not the owner's absence
_AT_ONCE = 16  # gifts between two looks at everything else
_FROM_CLIENT, _FROM_NODE = b"c", b"n"  # first byte of a gift: who is at the other end of the connection


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


def take_gifts(server: Server, gifts: socket.socket, of_node: Callable[[], asyncio.Protocol] | None = None) -> None:
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


def _busy() -> bytes:
    return refuse(503, (("Retry-After", _RETRY),))


def _unreached(why: OSError) -> bytes:
    """The answer to a join whose owner was not reached: as for a tunnel that is not there, unless the want is ours."""
    return _busy() if why.errno in _EXHAUSTED else refuse(404)


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
        self._links = None if peers_tls is None else Links(peers_tls)
        self._proxy_protocol = proxy_protocol
        self._pipes: set[_Pipe] = set()

    def farewell(self) -> None:
        """This process ends: tell every client whose join was passed on, while it still can be told."""
        for pipe in list(self._pipes):
            pipe.farewell()

    def close(self) -> None:
        """End what leads to other nodes."""
        if self._links is not None:
            self._links.close()

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
        return self._pipe(join, head, partial(_reach_worker, str(path)))

    def _to_node(self, join: ForeignJoin, peer: Peer) -> Taker | None:
        if self._links is None:
            return None
        head = request(join, proxy_protocol=False)
        return self._pipe(join, head, partial(self._links.turn, join.connect.routing_id, peer.host, peer.port))

    def _pipe(self, join: ForeignJoin, head: bytes, reach: _Reach) -> _Pipe:
        pipe = _Pipe(join.stream, head, reach, self._pipes.discard)
        self._pipes.add(pipe)
        return pipe


class _Gift:
    """One join whose connection is given away: a `Taker` for the moment until that is done."""

    def __init__(self, client: Stream, descriptor: int, path: str, head: bytes) -> None:
        self._client = client
        self._descriptor = descriptor
        self._path = path
        self._data = head
        self._lost = False
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + _ANSWER_TIME
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
                self._refuse(_busy())
        except OSError as exc:
            self._refuse(_unreached(exc))
        else:
            self._client.abort()

    def _refuse(self, refusal: bytes) -> None:
        logger.debug("a connection cannot be given to the owner of its tunnel")
        self._client.write(refusal)
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


class _Owner(Protocol):
    """A way to the owner of one join. `stale`: left over from another one, it may have ended before this one."""

    stale: bool

    def write(self, data: bytes) -> None:
        """Send bytes of the client."""

    def write_eof(self) -> None:
        """Nothing more comes from the client; it may still read."""

    def pause_reading(self) -> None:
        """Make the owner wait."""

    def resume_reading(self) -> None:
        """Take more from the owner."""

    def close(self) -> None:
        """The client has gone."""

    def abort(self) -> None:
        """End at once."""


_Reach = Callable[["_Pipe"], Awaitable[_Owner]]
"""Finds a way to the owner, or raises OSError."""


class _Pipe:
    """One join that is passed on: a `Taker` for the client, and a `links.Passer` for the way to the owner."""

    def __init__(self, client: Stream, head: bytes, reach: _Reach, forget: Callable[[_Pipe], None]) -> None:
        self._client = client
        self._reach = reach
        self._forget = forget
        self._owner: _Owner | None = None  # once it has answered
        self._unsaid = bytearray(head)  # for the owner, kept until then
        self._settled = asyncio.Event()  # it has answered, or is gone
        self._answer = Answer()
        self._over = False  # the client's side ended, or got its last word
        self._client_ended = False
        self._client_full = False
        self._owner_full = False
        client.pause_reading()
        self._meeting = asyncio.get_running_loop().create_task(self._meet())

    def farewell(self) -> None:
        """Say that the relay stops, if nothing else was said."""
        if not self._over and self._answer.open:
            self._over = True
            self._client.write(close_frame(Code.VANISHED))

    async def _meet(self) -> None:
        """Give the request to the owner, and see to it that it is answered; else as for a tunnel that is not there."""
        try:
            async with asyncio.timeout(_ANSWER_TIME):
                while not await self._ask(await self._reach(self)):
                    pass
        except TimeoutError:
            logger.warning("the owner of a tunnel does not answer in time")
            self._give_up(_busy())
        except OSError as exc:
            logger.debug("the owner of a tunnel cannot be reached")
            self._give_up(_unreached(exc))

    async def _ask(self, owner: _Owner) -> bool:
        """Ask for the tunnel; False if another way to the owner may be better.

        Raises:
            OSError: the owner leaves without an answer.
        """
        try:
            self._settled.clear()
            self._owner_full = False
            owner.write(bytes(self._unsaid))
            await self._settled.wait()
        except asyncio.CancelledError:  # no answer in time, or the client has gone
            owner.abort()
            raise
        if self._answer.unanswered:
            if not owner.stale:
                raise ConnectionError("no answer")
            return False
        self._owner = owner
        self._unsaid.clear()
        if self._over:
            owner.close()
        elif self._client_full:
            owner.pause_reading()
        if not self._owner_full:
            self._client.resume_reading()
        if self._client_ended:
            owner.write_eof()
        return True

    def _give_up(self, refusal: bytes = b"") -> None:
        """Say the last word, if there is a place for one, and end."""
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

    # From the client

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if self._owner is None:
            self._unsaid += data
        else:
            self._owner.write(data)

    def eof_received(self) -> None:
        self._client_ended = True
        if self._owner is not None:
            self._owner.write_eof()

    def pause_writing(self) -> None:
        self._client_full = True
        if self._owner is not None:
            self._owner.pause_reading()

    def resume_writing(self) -> None:
        self._client_full = False
        if self._owner is not None:
            self._owner.resume_reading()

    def connection_lost(self) -> None:
        self._over = True
        self._forget(self)
        self._meeting.cancel()
        if self._owner is not None:
            self._owner.close()

    # From the owner

    def owner_said(self, data: bytes) -> None:
        if not self._over:
            self._answer.feed(data)
            self._client.write(data)
        self._settled.set()

    def owner_is_gone(self) -> None:
        self._settled.set()
        if not self._answer.unanswered:
            self._give_up()

    def pause_client(self) -> None:
        self._owner_full = True
        self._client.pause_reading()

    def resume_client(self) -> None:
        self._owner_full = False
        if self._owner is not None:  # before its answer it has all that it will get
            self._client.resume_reading()


async def _reach_worker(path: str, passer: Passer) -> _Owner:
    _, owner = await asyncio.get_running_loop().create_unix_connection(lambda: _Worker(passer), path)
    return owner


class _Worker(Pausing):
    """The connection to a worker on this host."""

    stale = False

    def __init__(self, passer: Passer) -> None:
        self._passer = passer

    # From asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports of unix sockets are in no class of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_WRITE_BUFFER)

    def data_received(self, data: bytes) -> None:
        self._passer.owner_said(data)

    def pause_writing(self) -> None:
        self._passer.pause_client()

    def resume_writing(self) -> None:
        self._passer.resume_client()

    def connection_lost(self, exc: Exception | None) -> None:
        self._passer.owner_is_gone()

    # From the pipe

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def write_eof(self) -> None:
        if not self._transport.is_closing():
            self._transport.write_eof()

    def close(self) -> None:
        if not self._transport.is_closing():
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()
