"""Air and relay in one process: for tests, demonstrations and documentation. Proves no nearness, and says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from hybrid.errors import LinkGone, TunnelError, TunnelProblem
from hybrid.events import Proximity
from hybrid.ports import Advert
from hybrid.protocol.eid import FIDO_UUID
from hybrid.protocol.frames import STREAM_END
from hybrid.protocol.tunnel import SIGNAL_MESSAGE, Connect, Contact, New, TunnelRequest

_ROUTING_ID = b"\x00\x00\x01"


class MemoryAir:
    """An air that one process breathes: a `Scanner` and an `Advertiser` at once."""

    proximity = Proximity.SIMULATED

    def __init__(self) -> None:
        self._on_air: list[bytes] = []
        self._listeners: list[asyncio.Queue[Advert]] = []

    @property
    def adverts(self) -> tuple[bytes, ...]:
        """Service data on the air now."""
        return tuple(self._on_air)

    @property
    def listeners(self) -> int:
        """Scans that run now."""
        return len(self._listeners)

    def broadcast(self, service_data: bytes) -> None:
        """One stray advert, heard by whoever listens now."""
        for listener in self._listeners:
            listener.put_nowait(Advert(service_data))

    @asynccontextmanager
    async def scan(self) -> AsyncIterator[AsyncIterator[Advert]]:
        queue: asyncio.Queue[Advert] = asyncio.Queue()
        for service_data in self._on_air:
            queue.put_nowait(Advert(service_data))
        self._listeners.append(queue)

        async def heard() -> AsyncGenerator[Advert, None]:
            while True:
                yield await queue.get()

        try:
            async with aclosing(heard()) as adverts:
                yield adverts
        finally:
            self._listeners.remove(queue)

    @asynccontextmanager
    async def advertise(
        self, service_data: bytes, *, connectable: bool = False, service_uuid: str = FIDO_UUID
    ) -> AsyncIterator[None]:
        self._on_air.append(service_data)
        self.broadcast(service_data)
        try:
            yield
        finally:
            self._on_air.remove(service_data)


class MemoryChannel:
    """One end of a pair. Unbounded ends hand the bytes on in odd pieces, as a stream socket may."""

    def __init__(self, *, bounded: bool = True, routing_id: bytes | None = None, signals: bool = False) -> None:
        self.bounded = bounded
        self.routing_id = routing_id
        self.signals = signals
        self.closed = False
        self._peer: MemoryChannel | None = None
        self._waiting: list[bytes | None] = []
        self._inbox: asyncio.Queue[bytes | None] = asyncio.Queue()

    def join(self, peer: MemoryChannel) -> None:
        """Make a pair; what was sent before is handed over in order."""
        self._peer, peer._peer = peer, self
        for end in (self, peer):
            if end.signals:
                end._inbox.put_nowait(SIGNAL_MESSAGE)
        for sender, receiver in ((self, peer), (peer, self)):
            for message in sender._waiting:
                receiver._inbox.put_nowait(message)
            sender._waiting.clear()

    async def send(self, message: bytes) -> None:
        if self.closed or (self._peer is not None and self._peer.closed):
            raise TunnelError("the other side is gone", host="memory", reason=TunnelProblem.LOST)
        for piece in self._pieces(message):
            self._put(piece)

    def _pieces(self, message: bytes) -> list[bytes]:
        if self.bounded:
            return [message]
        cut = len(message) - len(STREAM_END) + 1  # also between the two bytes of the end
        return [piece for piece in (message[:1], message[1:cut], message[cut:]) if piece]

    def _put(self, message: bytes | None) -> None:
        if self._peer is None:
            self._waiting.append(message)
        else:
            self._peer._inbox.put_nowait(message)

    async def receive(self) -> bytes | None:
        message = await self._inbox.get()
        if message is None:
            self._inbox.put_nowait(None)  # the end stays the end
        return message

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            self._put(None)
            self._inbox.put_nowait(None)  # for a task that waits at this end


@dataclass
class MemoryTunnels:
    """A relay in this process. `bounded` False makes the channels streams, as L2CAP would.

    `signals`: tell a client when the phone that it contacted joins; `gone`: contact IDs that answer 410;
    `opened`: every channel given out, for tests.
    """

    bounded: bool = True
    signals: bool = False
    gone: set[bytes] = field(default_factory=set)
    opened: list[MemoryChannel] = field(default_factory=list)
    _waiting: dict[bytes, MemoryChannel] = field(default_factory=dict)
    _contacts: asyncio.Queue[tuple[bytes, str, bytes]] = field(default_factory=asyncio.Queue)

    loopback = True

    async def open(self, request: TunnelRequest) -> MemoryChannel:
        match request.target:
            case New(tunnel_id):
                return self._create(tunnel_id, MemoryChannel(bounded=self.bounded, routing_id=_ROUTING_ID))
            case Connect(_, tunnel_id):
                channel = MemoryChannel(bounded=self.bounded)
                waiting = self._waiting.pop(tunnel_id, None)
                if waiting is None or waiting.closed:
                    raise TunnelError(
                        "there is no such tunnel", host=request.domain, reason=TunnelProblem.STATUS, status=404
                    )
                channel.join(waiting)
                self.opened.append(channel)
                return channel
            case Contact(contact_id):
                if contact_id in self.gone:
                    raise LinkGone(request.domain)
                tunnel_id = len(self.opened).to_bytes(16, "big")
                self._contacts.put_nowait((contact_id, request.client_payload or "", tunnel_id))
                return self._create(
                    tunnel_id, MemoryChannel(bounded=self.bounded, signals=self.signals and request.signal)
                )

    def _create(self, tunnel_id: bytes, channel: MemoryChannel) -> MemoryChannel:
        if tunnel_id in self._waiting and not self._waiting[tunnel_id].closed:
            raise TunnelError("this tunnel exists already", host="memory", reason=TunnelProblem.STATUS, status=409)
        self._waiting[tunnel_id] = channel
        self.opened.append(channel)
        return channel

    async def contacted(self) -> tuple[bytes, str, bytes]:
        """Wait for a client that asks for contact; give contact ID, client payload header and tunnel ID."""
        return await self._contacts.get()
