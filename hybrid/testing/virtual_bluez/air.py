"""The air between the virtual adapters: registered adverts that repeat, and strangers passing by.

Everything that needs a clock is here.
"""

from __future__ import annotations

import asyncio
import os

from hybrid.testing.virtual_bluez import adverts
from hybrid.testing.virtual_bluez.advertising import random_address
from hybrid.testing.virtual_bluez.outbox import Outbox
from hybrid.testing.virtual_bluez.service import Service

# The shortest advertising interval that the Core Specification allows: tests should not wait for the air.
INTERVAL = 0.02
RSSI = -60
TICK = 0.02
# After a pause (a busy machine) strangers do not catch up: more than this many seconds' worth never comes at once.
MAX_CATCH_UP = 0.1

_FLAGS = adverts.field(adverts.FLAGS, bytes((adverts.GENERAL_DISCOVERABLE | adverts.NO_BR_EDR,)))
_FIDO_LIST = adverts.field(adverts.UUIDS_16[1], adverts.uuid_bytes("fff9"))


def stranger_ad(noise: bytes) -> bytes:
    """Advertising data of somebody else, from 21 random bytes: mostly other people's phones, some headphones."""
    if noise[0] & 3:
        return _FLAGS + _FIDO_LIST + adverts.service_data_ad(noise[1:])
    return _FLAGS + adverts.field(adverts.MANUFACTURER_DATA, b"\x4c\x00" + noise[1:])


class Air:
    """Makes time pass for a `Service`."""

    def __init__(self, service: Service, outbox: Outbox, strangers: float) -> None:
        self._service = service
        self._outbox = outbox
        self._rate = strangers
        self._rate_changed = asyncio.Event()

    def set_strangers(self, rate: float) -> None:
        """From now on so many adverts of strangers a second."""
        self._rate = rate
        self._rate_changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat())
            tasks.create_task(self._strangers())

    async def _repeat(self) -> None:
        while True:
            sending = list(self._service.on_air())
            for sender, registered, on_air in sending:
                self._service.send(sender, registered, on_air, RSSI)
            self._service.devices.drop_old(asyncio.get_running_loop().time())
            if sending:
                await self._outbox.flushed()
            await asyncio.sleep(INTERVAL)  # adverts repeat

    async def _strangers(self) -> None:
        clock = asyncio.get_running_loop().time
        due, then = 0.0, clock()
        while True:
            if not self._rate:
                self._rate_changed.clear()
                await self._rate_changed.wait()
                due, then = 0.0, clock()
            now = clock()
            due = min(due + (now - then) * self._rate, max(1.0, MAX_CATCH_UP * self._rate))
            then = now
            for _ in range(int(due)):
                self._pass_by()
            due -= int(due)
            await self._outbox.flushed()  # no faster than the bus daemon takes them
            await asyncio.sleep(TICK)  # the pace of the traffic

    def _pass_by(self) -> None:
        address, ad = random_address(), stranger_ad(os.urandom(21))
        for adapter in list(self._service.adapters.values()):
            self._service.hear(adapter, address, "random", ad, RSSI)
