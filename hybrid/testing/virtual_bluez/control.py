"""The handle by which a test runs the virtual BlueZ: power, adapters, faults, strangers.

`virtual_bluez` is the way in. Runs on the caller's event loop, in the caller's process; only the bus daemon is a
process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from dbus_fast.aio import MessageBus

from hybrid.testing.virtual_bluez.air import RSSI, Air
from hybrid.testing.virtual_bluez.behaviour import Behaviour
from hybrid.testing.virtual_bluez.bus import private_bus
from hybrid.testing.virtual_bluez.outbox import Outbox
from hybrid.testing.virtual_bluez.service import HANG, Service

__all__ = ["HANG", "VirtualBluez", "virtual_bluez"]


class VirtualBluez:
    """A running virtual BlueZ. `address`: of its bus.

    Each control coroutine returns when the bus daemon has passed on what it caused.
    """

    def __init__(self, address: str, service: Service, outbox: Outbox, air: Air) -> None:
        self.address = address
        self._service = service
        self._outbox = outbox
        self._air = air

    @property
    def environment(self) -> dict[str, str]:
        """What to add to a program's environment so that it uses this BlueZ."""
        return {"DBUS_SYSTEM_BUS_ADDRESS": self.address}

    @property
    def adapters(self) -> list[str]:
        """Names of the adapters that are there."""
        return [adapter.name for adapter in self._service.adapters.values()]

    @property
    def calls(self) -> list[str]:
        """The last 1,000 method calls, e.g. "/org/bluez/hci0 org.bluez.Adapter1.StartDiscovery"."""
        return list(self._service.calls)

    @property
    def violations(self) -> list[str]:
        """What clients did that can crash a real bluetoothd: 5.66 dies of an advert taken back in mid-registration."""
        return list(self._service.advertising.violations)

    def discovering(self, adapter: str) -> bool:
        """Whether anybody scans on an adapter."""
        return self._service.adapter(adapter).discovering

    def registered(self, adapter: str) -> int:
        """How many advertisements are registered on an adapter, on the air or not."""
        return self._service.advertising.active(self._service.adapter(adapter).path)

    def on_air(self, adapter: str) -> list[bytes]:
        """Advertising data that an adapter is sending."""
        path = self._service.adapter(adapter).path
        return [on_air.ad for sender, _, on_air in self._service.on_air() if sender == path]

    async def power(self, adapter: str, on: bool) -> None:
        """Switch an adapter on or off."""
        self._service.power(self._service.adapter(adapter), on)
        await self._outbox.flushed()

    async def add_adapter(self, name: str) -> None:
        """Plug an adapter in, e.g. "hci2"; it is on."""
        self._service.add_adapter(name)
        await self._outbox.flushed()

    async def remove_adapter(self, name: str) -> None:
        """Unplug an adapter."""
        self._service.remove_adapter(name)
        await self._outbox.flushed()

    async def service(self, on: bool) -> None:
        """Let ``org.bluez`` leave the bus, as if bluetoothd had ended, or come back."""
        await self._service.own_name(on)

    async def fail_next(self, member: str, error: str, text: str = "") -> None:
        """Let the next call of a method fail with a D-Bus error, or never be answered if `error` is `HANG`.

        A name without a dot is one of BlueZ's, e.g. "NotReady".
        """
        self._service.failing[member] = (error, text)

    async def deny(self, *members: str) -> None:
        """Answer AccessDenied to these methods from now on, or to all if none is named."""
        self._service.denied.update(members)
        self._service.deny_all = self._service.deny_all or not members

    async def allow(self) -> None:
        """Take back all that was denied."""
        self._service.denied.clear()
        self._service.deny_all = False

    async def inject(
        self, adapter: str, address: str, ad: bytes, *, address_type: str = "random", rssi: int = RSSI
    ) -> None:
        """Let an adapter hear one advert. `ad`: raw advertising data, e.g. from `service_data_ad`."""
        self._service.hear(self._service.adapter(adapter), address, address_type, ad, rssi)
        await self._outbox.flushed()

    async def strangers(self, rate: float) -> None:
        """From now on let so many adverts of strangers a second pass by; 0 stops them."""
        self._air.set_strangers(rate)


@contextlib.asynccontextmanager
async def virtual_bluez(
    adapters: int = 2, bluez: str = "5.82", le_only: bool = False, strangers: float = 0.0
) -> AsyncIterator[VirtualBluez]:
    """Run a virtual BlueZ while the context is open. Raises `DbusDaemonMissing`.

    `bluez`: whose behaviour, "5.66" or "5.82"; `le_only`: controllers without BR/EDR and with the legacy commands;
    `strangers`: adverts of other people a second.
    """
    behaviour = Behaviour(bluez, le_only)
    async with private_bus() as address:
        bus = await MessageBus(bus_address=address).connect()
        outbox = Outbox(bus)
        service = Service(bus, outbox, behaviour, adapters)
        air = Air(service, outbox, strangers)
        living = asyncio.create_task(_live(outbox, air))
        try:
            await service.start()
            yield VirtualBluez(address, service, outbox, air)
        finally:
            living.cancel()
            bus.disconnect()
            await asyncio.wait({living})
            await service.stop()
            with contextlib.suppress(OSError, EOFError):
                await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # dbus-fast leaves it so
            if not living.cancelled():
                living.result()  # it never ends by itself: this raises why


async def _live(outbox: Outbox, air: Air) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(outbox.run())
        tasks.create_task(air.run())
