"""An air, a relay and a backend in one process, and the proof that a session left nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeVar

import hybrid
from hybrid import cbor
from hybrid.adapters.memory import MemoryAir, MemoryTunnels
from hybrid.events import Event, Proximity
from hybrid.ports import Advert, Channel, CtapBackend, Peer, TunnelService
from hybrid.protocol.eid import FIDO_UUID
from hybrid.protocol.tunnel import TunnelRequest

_T = TypeVar("_T")

GET_INFO = cbor.encode({1: ["FIDO_2_0", "FIDO_2_1"], 3: bytes(16)})
REQUEST = b"\x02" + cbor.encode({1: "example.com", 2: b"request-payload-" * 2})
RESPONSE = b"\x00" + cbor.encode({2: b"response-payload" * 4})


class Backend:
    """Answers `response`; with `prompts`, only after `approve`."""

    def __init__(self, response: bytes = RESPONSE, *, prompts: bool = False) -> None:
        self.get_info = GET_INFO
        self.response = response
        self.requests: list[bytes] = []
        self.peers: list[Peer] = []
        self.is_open = False
        self.was_cancelled = False
        self._approved = asyncio.Event()
        if not prompts:
            self._approved.set()

    def approve(self) -> None:
        self._approved.set()

    async def call(self, request: bytes, *, peer: Peer) -> bytes:
        self.requests.append(request)
        self.peers.append(peer)
        self.is_open = True
        try:
            await self._approved.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        finally:
            self.is_open = False
        return self.response


@dataclass
class Place:
    """Where two devices meet."""

    air: MemoryAir = field(default_factory=MemoryAir)
    tunnels: MemoryTunnels = field(default_factory=MemoryTunnels)
    client_events: list[Event] = field(default_factory=list)
    phone_events: list[Event] = field(default_factory=list)

    def connect(
        self,
        to: hybrid.Invitation | hybrid.Link,
        *,
        timeouts: hybrid.ClientTimeouts | None = None,
        tunnels: TunnelService | None = None,
    ) -> AbstractAsyncContextManager[hybrid.Session]:
        return hybrid.connect(
            to,
            on_event=self.client_events.append,
            scanner=self.air,
            tunnels=tunnels or self.tunnels,
            timeouts=timeouts,
        )

    def answer(
        self,
        code: str,
        backend: CtapBackend | None = None,
        *,
        timeouts: hybrid.PhoneTimeouts | None = None,
        tunnels: TunnelService | None = None,
        many: bool = False,
        habits: hybrid.Habits | None = None,
    ) -> Coroutine[Any, Any, hybrid.Served]:
        return hybrid.answer(
            code,
            backend or Backend(),
            on_event=self.phone_events.append,
            advertiser=self.air,
            tunnels=tunnels or self.tunnels,
            timeouts=timeouts,
            many=many,
            habits=habits,
        )

    def assert_nothing_left(self) -> None:
        """No scan, no advert, no open channel, no task besides the test's own."""
        assert self.air.listeners == 0
        assert self.air.adverts == ()
        assert [channel for channel in self.tunnels.opened if not channel.closed] == []
        assert asyncio.all_tasks() == {asyncio.current_task()}


def classes_in(module: ModuleType, base: type[_T]) -> list[type[_T]]:
    """Every class of a module that is a `base`."""
    return [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, base)]


async def until(happened: Callable[[], bool]) -> None:
    """Let the others run until something has happened."""
    while not happened():  # noqa: ASYNC110 nobody sets an event for what is looked at here
        await asyncio.sleep(0)


async def turns(count: int) -> None:
    """Let the loop turn `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def ask(session: AbstractAsyncContextManager[hybrid.Session]) -> bytes:
    """Make one session with one request."""
    async with session as opened:
        return await opened.call(REQUEST)


class SlowAir:
    """An air whose every step takes some turns of the loop."""

    proximity = Proximity.SIMULATED

    def __init__(self, air: MemoryAir) -> None:
        self._air = air

    @asynccontextmanager
    async def scan(self) -> AsyncIterator[AsyncIterator[Advert]]:
        await turns(2)
        async with self._air.scan() as adverts:
            try:
                await turns(2)
                yield adverts
            finally:
                await turns(2)

    @asynccontextmanager
    async def advertise(
        self, service_data: bytes, *, connectable: bool = False, service_uuid: str = FIDO_UUID
    ) -> AsyncIterator[None]:
        await turns(2)
        async with self._air.advertise(service_data, connectable=connectable, service_uuid=service_uuid):
            try:
                await turns(2)
                yield
            finally:
                await turns(2)


class SlowTunnels:
    """A relay whose every step takes some turns of the loop."""

    loopback = True

    def __init__(self, tunnels: MemoryTunnels) -> None:
        self._tunnels = tunnels

    async def open(self, request: TunnelRequest) -> Channel:
        await turns(2)
        channel = await self._tunnels.open(request)
        try:
            await turns(2)
        except asyncio.CancelledError:
            await channel.aclose()
            raise
        return _SlowChannel(channel)


class _SlowChannel:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.bounded = channel.bounded
        self.routing_id = channel.routing_id
        self.signals = channel.signals

    async def send(self, message: bytes) -> None:
        await turns(1)
        await self._channel.send(message)
        await turns(4)  # the answer may be there before this returns

    async def receive(self) -> bytes | None:
        return await self._channel.receive()

    async def aclose(self) -> None:
        try:
            await turns(2)
        finally:
            await self._channel.aclose()
