"""Tunnels with a window in them: what the relay sees."""

from __future__ import annotations

from collections.abc import Callable

from examples.relying_party.backstage.feed import Side
from hybrid.ports import Channel, TunnelService
from hybrid.protocol.tunnel import TunnelRequest

Sealed = Callable[[Side, int], None]
"""Told of every sealed message: who sent it, and its size in bytes."""


class WatchedTunnels:
    """The phone's tunnels, told apart by nothing but sizes: just what the relay sees."""

    def __init__(self, tunnels: TunnelService, sealed: Sealed) -> None:
        self._tunnels = tunnels
        self._sealed = sealed

    @property
    def loopback(self) -> bool:
        return self._tunnels.loopback

    async def open(self, request: TunnelRequest) -> Channel:
        return _WatchedChannel(await self._tunnels.open(request), self._sealed)


class _WatchedChannel:
    def __init__(self, channel: Channel, sealed: Sealed) -> None:
        self._channel = channel
        self._sealed = sealed
        self.bounded = channel.bounded
        self.routing_id = channel.routing_id
        self.signals = channel.signals

    async def send(self, message: bytes) -> None:
        self._sealed(Side.PHONE, len(message))
        await self._channel.send(message)

    async def receive(self) -> bytes | None:
        message = await self._channel.receive()
        if message is not None:
            self._sealed(Side.LAPTOP, len(message))
        return message

    async def aclose(self) -> None:
        await self._channel.aclose()
