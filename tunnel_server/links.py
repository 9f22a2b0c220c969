"""Links: TLS between two workers of different nodes, over which one join goes after another.

A handshake in which both sides prove themselves costs more than the whole tunnel that follows, so a link outlives the
join it was made for, and waits a while for the next one. Each way it carries `passing.piece`s; an empty one says that
nothing more of this join comes from there, and after one each way the link is free. Whatever else goes wrong with a
join ends its link.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from tunnel_server.passing import PieceReader, piece
from tunnel_server.pausing import Pausing
from tunnel_server.tls import Tls, TlsFailed

logger = logging.getLogger(__name__)

_IDLE_TIME = 30.0  # s that a link waits for its next join
_END_TIME = 10.0  # s for the other side to end a join that is over here, and for last bytes to leave
_MAX_IDLE = 64  # links to one worker
_WRITE_BUFFER = 64 * 1024


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


class Passer(Protocol):
    """Who passes a join on over a link of ours."""

    def owner_said(self, data: bytes) -> None:
        """Bytes for the client."""

    def owner_is_gone(self) -> None:
        """No more of them."""

    def pause_client(self) -> None:
        """The owner reads more slowly than it is written to."""

    def resume_client(self) -> None:
        """It has caught up."""


class Link(Pausing, ABC):
    """Either end: bytes of a socket to parts of joins, and back."""

    _failing = logging.DEBUG  # how loud: anybody may call us and speak no TLS

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._reader = PieceReader()
        self._full = False  # more was written than the other side takes
        self._timer: asyncio.TimerHandle | None = None

    @abstractmethod
    def take(self, part: bytes) -> None:
        """A part of a join; an empty one: the other side has said all there is to say."""

    @abstractmethod
    def proved(self) -> None:
        """The handshake is complete."""

    # From asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are in no class of asyncio's
        self._transport.set_write_buffer_limits(_WRITE_BUFFER)

    def data_received(self, data: bytes) -> None:
        tls = self._tls
        fresh = not tls.ready
        try:
            plain = tls.receive(data)
        except TlsFailed as exc:
            logger.log(self._failing, "no TLS with another node: %s", _reason(exc))
            self._transport.write(tls.outgoing())
            self._transport.close()
            return
        if answer := tls.outgoing():
            self._transport.write(answer)
        if fresh and tls.ready:
            self.proved()
        for part in self._reader.feed(plain):
            self.take(part)
        if tls.ended:
            self.close()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.abort_after(None)

    # From whose turn it is

    @property
    def transport(self) -> asyncio.Transport:
        """Of the socket."""
        return self._transport

    def send(self, data: bytes) -> None:
        """Send a part of a join; an empty one ends it."""
        if self._transport.is_closing():
            return
        try:
            self._transport.write(self._tls.send(piece(data)))
        except TlsFailed:
            self.abort()

    def close(self) -> None:
        """End when all was sent."""
        if not self._transport.is_closing():
            self._transport.write(self._tls.finish())
            self._transport.close()
            self.abort_after(_END_TIME)

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    def abort_after(self, seconds: float | None) -> None:
        """End when this time is over, unless another one is set before; None: never."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self.abort)


# The side that calls


class Turn:
    """One join on a link that we made, as `forwarding` sees it; nothing happens any more when it is over.

    `stale`: the link waited for its next join, and has ended; perhaps before this one.
    """

    __slots__ = ("_ended", "_fresh", "_link", "_passer", "stale")

    def __init__(self, link: _CallingLink, passer: Passer, fresh: bool) -> None:
        self._link: _CallingLink | None = link
        self._passer: Passer | None = passer
        self._ended = False
        self._fresh = fresh  # nobody used the link before
        self.stale = False

    # From the pipe

    def write(self, data: bytes) -> None:
        """Send bytes of the client."""
        if self._link is not None and data and not self._ended:
            self._link.send(data)

    def write_eof(self) -> None:
        """Nothing more comes from the client; it may still read."""
        if self._link is not None and not self._ended:
            self._ended = True
            self._link.send(b"")

    def pause_reading(self) -> None:
        """Make the owner wait."""
        if self._link is not None:
            self._link.pause_reading()

    def resume_reading(self) -> None:
        """Take more from the owner."""
        if self._link is not None:
            self._link.resume_reading()

    def close(self) -> None:
        """The client has gone."""
        self._passer = None
        if self._link is not None:
            self.write_eof()
            self._link.resume_reading()  # to see the owner's end
            self._link.abort_after(_END_TIME)

    def abort(self) -> None:
        """The link is no good."""
        self._passer = None
        if self._link is not None:
            self._link.abort()

    # From the link

    def said(self, data: bytes) -> None:
        if self._passer is not None:
            self._passer.owner_said(data)

    def full(self, is_full: bool) -> None:
        if self._passer is not None:
            (self._passer.pause_client if is_full else self._passer.resume_client)()

    def over(self, *, lost: bool) -> None:
        self._link = None
        self.stale = lost and not self._fresh
        if self._passer is not None:
            self._passer.owner_is_gone()


class _CallingLink(Link):
    """A link that we made to a worker."""

    _failing = logging.WARNING

    def __init__(self, links: Links, routing_id: bytes, context: ssl.SSLContext, host: str) -> None:
        super().__init__(Tls(context, host))
        self._links = links
        self._turn: Turn | None = None
        self._ended = False
        self.routing_id = routing_id
        self.context = context
        self.settled = asyncio.Event()  # it can be used, or has ended

    @property
    def usable(self) -> bool:
        """Between two joins."""
        return self._tls.ready and not self._ended and not self._transport.is_closing() and self._turn is None

    def begin(self, passer: Passer, *, fresh: bool) -> Turn:
        """Let a join have it."""
        self.abort_after(None)
        self._turn = Turn(self, passer, fresh)
        return self._turn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._links.remember(self)
        self._tls.receive(b"")
        self._transport.write(self.routing_id + self._tls.outgoing())

    def proved(self) -> None:
        self.settled.set()

    def take(self, part: bytes) -> None:
        turn = self._turn
        if turn is None:
            self.abort()  # it is nobody's turn
        elif part:
            turn.said(part)
        else:
            turn.write_eof()
            self._turn = None
            self._links.put_back(self, full=self._full)
            turn.over(lost=False)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._turn is not None:
            self._turn.full(True)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._turn is not None:
            self._turn.full(False)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._ended = True
        self._links.forget(self)
        self.settled.set()
        if self._turn is not None:
            self._turn.over(lost=True)


class Links:
    """Links that we made, by the worker they lead to. Those that wait longest are used last, and so end first."""

    def __init__(self, contexts: PeerContexts) -> None:
        self._contexts = contexts
        self._idle: dict[bytes, list[_CallingLink]] = {}
        self._all: set[_CallingLink] = set()

    async def turn(self, routing_id: bytes, host: str, port: int, passer: Passer) -> Turn:
        """Find a link to a worker, or make one at `host` and `port`.

        Raises:
            OSError: there is no way to get one.
        """
        context = self._contexts.calling
        waiting = self._idle.get(routing_id)
        while waiting:
            link = waiting.pop()
            if link.usable and link.context is context:
                return link.begin(passer, fresh=False)
            link.close()
        link = _CallingLink(self, routing_id, context, host)
        transport: asyncio.BaseTransport | None = None
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(lambda: link, host, port)
            await link.settled.wait()
        except BaseException:  # also when whoever asked has gone meanwhile
            self.forget(link)  # uvloop does not tell of the end of what it was still making
            if transport is not None:
                link.abort()
            raise
        if not link.usable:
            raise ConnectionError("the link ended before it could be used")
        return link.begin(passer, fresh=True)

    def put_back(self, link: _CallingLink, *, full: bool) -> None:
        """A join is over."""
        waiting = self._idle.setdefault(link.routing_id, [])
        if full or link.context is not self._contexts.calling or len(waiting) >= _MAX_IDLE or not link.usable:
            link.close()
            return
        link.resume_reading()
        link.abort_after(_IDLE_TIME)
        waiting.append(link)

    def remember(self, link: _CallingLink) -> None:
        """A link is made."""
        self._all.add(link)

    def forget(self, link: _CallingLink) -> None:
        """A link has ended."""
        self._all.discard(link)
        waiting = self._idle.get(link.routing_id, [])
        if link in waiting:
            waiting.remove(link)
        if not waiting:
            self._idle.pop(link.routing_id, None)

    def close(self) -> None:
        """End them all, at once."""
        for link in list(self._all):
            link.abort()


def _reason(failed: TlsFailed) -> str:
    """What was wrong with a node's TLS, without its name or address."""
    cause = failed.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message.partition(",")[0]
    return getattr(cause, "reason", None) or "it ended"
