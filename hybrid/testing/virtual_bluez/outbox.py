"""Everything that the virtual BlueZ sends, in order and no faster than the bus daemon takes it.

dbus-fast ends a connection whose socket is full, so signals by the hundred (a crowded air, a scan that ends) must not
be handed to it at once.
"""

from __future__ import annotations

import asyncio
from collections import deque

from dbus_fast import Message, MessageType
from dbus_fast.aio import MessageBus

from hybrid.testing.virtual_bluez.names import BUS

# So many messages go out before the bus daemon must have taken them.
BURST = 32


def to_bus(member: str, signature: str = "", *body: object) -> Message:
    """A call to the bus daemon itself."""
    return Message(
        destination=BUS,
        path="/org/freedesktop/DBus",
        interface=BUS,
        member=member,
        signature=signature,
        body=list(body),
    )


class Outbox:
    """The only one that sends on its connection."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._messages: deque[Message] = deque()
        self._news = asyncio.Event()
        self._waiting: dict[int, asyncio.Future[Message]] = {}

    def put(self, message: Message) -> None:
        """Send a message after all that was put before."""
        self._messages.append(message)
        self._news.set()

    async def call(self, message: Message) -> Message:
        """Send a method call and give the answer, which may be an error. Waits as long as it takes."""
        message.serial = self._bus.next_serial()
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[message.serial] = answer
        try:
            self.put(message)
            return await answer
        finally:
            del self._waiting[message.serial]

    async def flushed(self) -> None:
        """Wait until the bus daemon has taken everything that was put so far."""
        await self.call(to_bus("GetId"))

    def take_answer(self, message: Message) -> bool:
        """Give an incoming answer to whoever waits for it."""
        if message.message_type not in (MessageType.METHOD_RETURN, MessageType.ERROR):
            return False
        answer = self._waiting.get(message.reply_serial or 0)
        if answer is None or answer.done():
            return False
        answer.set_result(message)
        return True

    async def run(self) -> None:
        """Send, until cancelled or until the bus is gone."""
        try:
            while True:
                for _ in range(BURST):
                    while not self._messages:
                        self._news.clear()
                        await self._news.wait()
                    await self._bus.send(self._messages.popleft())
                await self._bus.call(to_bus("GetId"))
        except (OSError, EOFError):
            return  # the bus daemon ended: there is nobody left to talk to
