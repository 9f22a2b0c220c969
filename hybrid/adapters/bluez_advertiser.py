"""An `Advertiser` over BlueZ: puts service data on the air through this machine's Bluetooth. Linux only.

Source: the BlueZ D-Bus API, ``org.bluez.LEAdvertisingManager`` and ``org.bluez.LEAdvertisement``; CTAP 2.3 §11.5.1
"QR-initiated transactions" for the service UUID. Makes no advert: it is handed the finished bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from hybrid.errors import BluetoothProblem, BluetoothUnavailable, LocalProtocolError
from hybrid.events import Proximity
from hybrid.protocol.eid import FIDO_UUID

if TYPE_CHECKING:
    from dbus_fast import Message

    from hybrid.adapters.bluez_bus import Interfaces, SystemBus, WatchedAdapter

_log = logging.getLogger(__name__)

# A legacy advert has 31 bytes (Bluetooth Core Specification, vol. 6 part B §2.3.1). Service data take 4 bytes
# besides the data, a list of one UUID takes 4. More would need an extended advert, which many scanners cannot hear,
# and newer BlueZ would make one without a word.
MAX_DATA = 27
MAX_DATA_WITH_UUID_LIST = 23

RETRY_AFTER = 1.0
# How long leaving waits for the answer to a registration that is under way: bluetoothd 5.66 can crash when the advert
# is taken back before.
SETTLE_TIMEOUT = 5.0

_MANAGER = "org.bluez.LEAdvertisingManager1"
_ADVERTISEMENT = "org.bluez.LEAdvertisement1"
_PATH = "/org/fidohybrid/advert"


class BluezAdvertiser:
    """Advertises through a Bluetooth adapter of this machine.

    `adapter`: its name, e.g. "hci0"; by default the last that is switched on and can advertise. Scanners take the first
    one, and no adapter hears itself: on a machine with two, laptop and phone find each other. `bus_address`: of a D-Bus
    bus that has a BlueZ, instead of the system's.
    """

    proximity = Proximity.BLUETOOTH

    def __init__(self, adapter: str | None = None, *, bus_address: str | None = None) -> None:
        self._adapter = adapter
        self._bus_address = bus_address

    @contextlib.asynccontextmanager
    async def advertise(
        self, service_data: bytes, *, connectable: bool = False, service_uuid: str = FIDO_UUID
    ) -> AsyncIterator[None]:
        """Broadcast while the context is open, as `hybrid.ports.Advertiser.advertise` says.

        An adapter that is switched off meanwhile is waited for, and the advert goes on the air again with it.
        Raises `LocalProtocolError` for data that do not fit into one advert.
        """
        if len(service_data) > MAX_DATA:
            raise LocalProtocolError(f"{len(service_data)} bytes do not fit into an advert of {MAX_DATA}")
        if sys.platform != "linux":
            raise BluetoothUnavailable(
                "only Linux lets a program advertise service data", BluetoothProblem.NOT_SUPPORTED
            )
        from hybrid.adapters import bluez_bus

        changed = asyncio.Event()
        async with (
            bluez_bus.system_bus(self._bus_address) as bus,
            bluez_bus.watched_adapter(
                bus, self._adapter, objection=_objection, on_change=lambda _: changed.set(), from_last=True
            ) as adapter,
        ):
            registration = _Registration(bus, adapter, changed, service_data, connectable, service_uuid)
            bus.bus.add_message_handler(registration.answer)
            keeper: asyncio.Task[None] | None = None
            try:
                try:
                    await registration.register()
                except bluez_bus.FAILURES as error:
                    raise _refused(error, adapter) from error
                keeper = asyncio.create_task(registration.keep())
                yield
            finally:
                if keeper is not None:
                    keeper.cancel()
                    await asyncio.wait({keeper})
                await registration.unregister()


def _objection(interfaces: Interfaces) -> BluetoothUnavailable | None:
    if _MANAGER in interfaces:
        return None
    return BluetoothUnavailable("the adapter cannot advertise", BluetoothProblem.NO_ADVERTISING)


def _refused(error: Exception, adapter: WatchedAdapter) -> BluetoothUnavailable:
    """Why an advert was not registered. BlueZ says no more than "Failed" for most reasons, a dark adapter too."""
    from dbus_fast import DBusError

    from hybrid.adapters import bluez_bus

    if adapter.problem is not None:
        return adapter.problem
    told = bluez_bus.unavailable(error)
    if not isinstance(error, DBusError):
        return told
    if told.reason is BluetoothProblem.UNKNOWN or "Maximum advertisements" in error.text:
        return BluetoothUnavailable(f"BlueZ refuses the advert: {error.text}", BluetoothProblem.NO_ADVERTISING)
    return told


class _Registration:
    """One advert: what BlueZ reads about it, and the work of keeping it on the air."""

    def __init__(
        self,
        bus: SystemBus,
        adapter: WatchedAdapter,
        changed: asyncio.Event,
        service_data: bytes,
        connectable: bool,
        service_uuid: str,
    ) -> None:
        self._bus = bus
        self._adapter = adapter
        self._changed = changed
        self._service_data = service_data
        self._connectable = connectable
        self._service_uuid = service_uuid
        self._released = False
        self._outages_then = 0
        self._registering: asyncio.Task[list[Any]] | None = None

    def answer(self, message: Message) -> Message | None:
        """Answer what BlueZ asks the advertisement object."""
        from dbus_fast import Message, MessageType, Variant

        if message.message_type is not MessageType.METHOD_CALL or message.path != _PATH:
            return None
        uuids = [self._service_uuid] if len(self._service_data) <= MAX_DATA_WITH_UUID_LIST else []
        properties = {
            "Type": Variant("s", "peripheral" if self._connectable else "broadcast"),
            "ServiceUUIDs": Variant("as", uuids),
            "ServiceData": Variant("a{sv}", {self._service_uuid: Variant("ay", self._service_data)}),
        }
        match message.interface, message.member, message.body:
            case "org.freedesktop.DBus.Properties", "GetAll", [interface] if interface == _ADVERTISEMENT:
                return Message.new_method_return(message, "a{sv}", [properties])
            case "org.freedesktop.DBus.Properties", "Get", [interface, str(name)] if (
                interface == _ADVERTISEMENT and name in properties
            ):
                return Message.new_method_return(message, "v", [properties[name]])
            case interface, "Release", [] if interface == _ADVERTISEMENT:
                self._released = True
                self._changed.set()
                return Message.new_method_return(message)
        return None

    async def register(self) -> None:
        """Put the advert on the air. Raises what the bus raises."""
        from hybrid.adapters import bluez_bus

        self._released = False
        self._outages_then = self._adapter.outages
        self._registering = asyncio.create_task(
            bluez_bus.call(self._bus, self._adapter.path, _MANAGER, "RegisterAdvertisement", "oa{sv}", _PATH, {})
        )
        # Cancelled, we leave the call to `_answered`.
        await asyncio.shield(self._registering)

    async def _answered(self) -> bool:
        """Wait for BlueZ's answer to the last registration, but not for ever; give whether it came."""
        from dbus_fast import DBusError

        if self._registering is None:
            return False
        try:
            await asyncio.wait({self._registering}, timeout=SETTLE_TIMEOUT)
        finally:
            self._registering.cancel()
        if not self._registering.done() or self._registering.cancelled():
            return False
        failure = self._registering.exception()
        return failure is None or isinstance(failure, DBusError)

    async def unregister(self) -> None:
        """Take it off the air, and do not mind if it is not there.

        A registration without an answer is left alone: leaving the bus ends it.
        """
        from hybrid.adapters import bluez_bus

        if not await self._answered():
            return
        with contextlib.suppress(*bluez_bus.FAILURES):
            async with asyncio.timeout(bluez_bus.GOODBYE_TIMEOUT):
                await bluez_bus.call(self._bus, self._adapter.path, _MANAGER, "UnregisterAdvertisement", "o", _PATH)

    async def keep(self) -> None:
        """Register anew after every outage: BlueZ keeps such an advert in its books, but not on the air."""
        from hybrid.adapters import bluez_bus

        while True:
            self._changed.clear()
            lost = self._released or self._outages_then != self._adapter.outages
            if not lost or self._adapter.problem is not None:
                await self._changed.wait()
                continue
            if self._released:
                await asyncio.sleep(RETRY_AFTER)  # BlueZ took it away, the adapter still on: not at once again
            try:
                await self.unregister()
                await self.register()
            except bluez_bus.FAILURES as error:
                _log.debug("registering the advert again: %s", error)
                self._outages_then = -1
                await asyncio.sleep(RETRY_AFTER)  # what failed now would fail at once again
