"""Relays that misbehave, each in one way: wrapped around a real tunnel service, for the side that uses the wrapper.

`Relay` changes nothing. The others spoil one message on its way to that side, `at` counted from 0 (0 is message 2 for a
client and message 1 for a phone), or the tunnel itself.
"""

from __future__ import annotations

import asyncio

from hybrid.errors import TunnelError, TunnelProblem
from hybrid.ports import Channel, TunnelService
from hybrid.protocol.keys import MAX_MESSAGE_SIZE
from hybrid.protocol.tunnel import TunnelRequest


class Relay:
    """A tunnel service that hands everything on. `channels`: what it gave out."""

    def __init__(self, tunnels: TunnelService) -> None:
        self._tunnels = tunnels
        self.channels: list[RelayedChannel] = []

    @property
    def loopback(self) -> bool:
        return self._tunnels.loopback

    async def open(self, request: TunnelRequest) -> Channel:
        channel = RelayedChannel(await self._tunnels.open(request), self)
        self.channels.append(channel)
        return channel

    async def before_send(self) -> None:
        """Called before a message of this side goes on its way."""

    async def after_send(self) -> None:
        """Called when it is on its way."""

    async def deliver(self, index: int, message: bytes) -> list[bytes]:
        """Give what arrives instead of message number `index`."""
        return [message]

    async def before_end(self) -> None:
        """Called when the other side has closed, before this side is told."""


class RelayedChannel:
    """A channel through a `Relay`."""

    def __init__(self, channel: Channel, relay: Relay) -> None:
        self._channel = channel
        self._relay = relay
        self._received = 0
        self._arrived: list[bytes] = []
        self.closed = False

    @property
    def bounded(self) -> bool:
        return self._channel.bounded

    @property
    def routing_id(self) -> bytes | None:
        return self._channel.routing_id

    @property
    def signals(self) -> bool:
        return self._channel.signals

    async def send(self, message: bytes) -> None:
        await self._relay.before_send()
        await self._channel.send(message)
        await self._relay.after_send()

    async def receive(self) -> bytes | None:
        while not self._arrived:
            message = await self._channel.receive()
            if message is None:
                await self._relay.before_end()
                return None
            index, self._received = self._received, self._received + 1
            self._arrived.extend(await self._relay.deliver(index, message))
        return self._arrived.pop(0)

    async def aclose(self) -> None:
        self.closed = True
        await self._channel.aclose()


class Drops(Relay):
    """Loses one message."""

    def __init__(self, tunnels: TunnelService, at: int) -> None:
        super().__init__(tunnels)
        self.at = at

    async def deliver(self, index: int, message: bytes) -> list[bytes]:
        return [] if index == self.at else [message]


class Repeats(Drops):
    """Delivers one message twice."""

    async def deliver(self, index: int, message: bytes) -> list[bytes]:
        return [message, message] if index == self.at else [message]


class FlipsBit(Drops):
    """Flips the last bit of one message."""

    async def deliver(self, index: int, message: bytes) -> list[bytes]:
        return [message[:-1] + bytes([message[-1] ^ 1])] if index == self.at else [message]


class CutsShort(Drops):
    """Delivers one message without its last byte."""

    async def deliver(self, index: int, message: bytes) -> list[bytes]:
        return [message[:-1]] if index == self.at else [message]


class Reorders(Drops):
    """Delivers one message after the next one."""

    def __init__(self, tunnels: TunnelService, at: int) -> None:
        super().__init__(tunnels, at)
        self._held = b""

    async def deliver(self, index: int, message: bytes) -> list[bytes]:
        if index == self.at:
            self._held = message
            return []
        return [message, self._held] if index == self.at + 1 else [message]


class Oversize(Drops):
    """Delivers more than 1 MiB in place of one message."""

    async def deliver(self, index: int, message: bytes) -> list[bytes]:
        return [bytes(MAX_MESSAGE_SIZE + 1)] if index == self.at else [message]


class Fails(Drops):
    """Breaks the tunnel for `reason` in place of one message: a text frame, or a connection that is lost."""

    def __init__(self, tunnels: TunnelService, at: int, reason: TunnelProblem = TunnelProblem.LOST) -> None:
        super().__init__(tunnels, at)
        self.reason = reason

    async def deliver(self, index: int, message: bytes) -> list[bytes]:
        if index == self.at:
            raise TunnelError("the tunnel broke", host="a relay", reason=self.reason)
        return [message]


class Delays(Relay):
    """Delivers every message `seconds` late."""

    def __init__(self, tunnels: TunnelService, seconds: float) -> None:
        super().__init__(tunnels)
        self.seconds = seconds

    async def deliver(self, index: int, message: bytes) -> list[bytes]:
        await asyncio.sleep(self.seconds)  # the delay is the misbehaviour
        return [message]


class SlowToSend(Relay):
    """Takes messages at once and says so `seconds` later, as a full socket does: answers overtake the sender."""

    def __init__(self, tunnels: TunnelService, seconds: float) -> None:
        super().__init__(tunnels)
        self.seconds = seconds

    async def after_send(self) -> None:
        await asyncio.sleep(self.seconds)  # the delay is the misbehaviour


class ClosesLate(Relay):
    """Tells `seconds` late that the other side has closed; what is sent meanwhile fails."""

    def __init__(self, tunnels: TunnelService, seconds: float) -> None:
        super().__init__(tunnels)
        self.seconds = seconds

    async def before_end(self) -> None:
        await asyncio.sleep(self.seconds)  # the delay is the misbehaviour


class Stuck(Relay):
    """Never finishes opening a tunnel."""

    async def open(self, request: TunnelRequest) -> Channel:
        await asyncio.get_running_loop().create_future()
        return await super().open(request)
