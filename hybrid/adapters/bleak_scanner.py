"""A `Scanner` over bleak: hears FIDO service data through this machine's Bluetooth.

Source: CTAP 2.3 §11.5.1 "QR-initiated transactions" for the two service UUIDs; the BlueZ D-Bus API
(``org.bluez.Adapter``, SetDiscoveryFilter) for the rest. Opens no advert and remembers no sender: a phone changes
its random address as it likes, so only the data count.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator

from bleak import BleakScanner
from bleak.args.bluez import BlueZScannerArgs
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakBluetoothNotAvailableReason,
    BleakDBusError,
    BleakError,
)

from hybrid.errors import BluetoothProblem, BluetoothUnavailable
from hybrid.events import Proximity
from hybrid.ports import Advert
from hybrid.protocol.eid import FIDO_UUID, GOOGLE_UUID

_log = logging.getLogger(__name__)

# CTAP 2.3 §11.5.1 has 0xFFF9; older iOS uses 0xFDE2, which clients prefer if one device shows both.
SERVICE_UUIDS = (GOOGLE_UUID, FIDO_UUID)

MAX_WAITING = 64
MAX_REMEMBERED = 4096
START_TIMEOUT = 10.0
STOP_TIMEOUT = 2.0
# How long leaving waits for a start that is under way.
SETTLE_TIMEOUT = 5.0

# What radios say when they have measured nothing: 127 by the Bluetooth Core Specification, -127 by bleak.
_NO_RSSI = (127, -127)

_REASON = BleakBluetoothNotAvailableReason
_PROBLEM_OF_REASON = {
    _REASON.NO_BLUETOOTH: BluetoothProblem.NO_ADAPTER,
    _REASON.NO_BLE_CENTRAL_ROLE: BluetoothProblem.NOT_SUPPORTED,
    _REASON.POWERED_OFF: BluetoothProblem.OFF,
    _REASON.DENIED_BY_USER: BluetoothProblem.DENIED,
    _REASON.DENIED_BY_SYSTEM: BluetoothProblem.DENIED,
    _REASON.DENIED_BY_UNKNOWN: BluetoothProblem.DENIED,
    _REASON.UNKNOWN: BluetoothProblem.UNKNOWN,
}


class Inbox:
    """Adverts on their way to one reader: each distinct data once, in bounded memory in any crowd.

    A reader that falls behind loses the oldest adverts; they count as new when heard again.
    """

    def __init__(self) -> None:
        self._waiting: deque[Advert] = deque()
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._news = asyncio.Event()
        self._failure: BluetoothUnavailable | None = None

    def put(self, advert: Advert) -> None:
        """Keep an advert for the reader, unless its data were heard before."""
        if advert.data in self._seen:
            self._seen.move_to_end(advert.data)
            return
        self._seen[advert.data] = None
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)
        self._waiting.append(advert)
        if len(self._waiting) > MAX_WAITING:
            self._seen.pop(self._waiting.popleft().data, None)
        self._news.set()

    def fail(self, failure: BluetoothUnavailable | None) -> None:
        """Let the reader know that nothing more will come. The first failure stays."""
        if failure is not None and self._failure is None:
            self._failure = failure
            self._news.set()

    def __aiter__(self) -> AsyncIterator[Advert]:
        return self

    async def __anext__(self) -> Advert:
        while not self._waiting:
            if self._failure is not None:
                raise self._failure
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()


def adverts_in(device: BLEDevice, heard: AdvertisementData, adapter: str) -> Iterator[Advert]:
    """The FIDO service data in what bleak heard from one device."""
    for uuid in SERVICE_UUIDS:
        data = heard.service_data.get(uuid)
        if data is not None:
            properties = device.details.get("props", {}) if isinstance(device.details, dict) else {}
            yield Advert(
                data=bytes(data),
                address=device.address,
                address_type=properties.get("AddressType", ""),
                adapter=adapter,
                rssi=None if heard.rssi in _NO_RSSI else heard.rssi,
            )


def unavailable(error: Exception) -> BluetoothUnavailable:
    """Turn what bleak raised into our own error."""
    match error:
        case BluetoothUnavailable():
            return error
        case BleakBluetoothNotAvailableError():
            return BluetoothUnavailable(str(error.args[0]), _PROBLEM_OF_REASON[error.reason])
        case BleakError() if "not found" in str(error):
            return BluetoothUnavailable(str(error), BluetoothProblem.NO_ADAPTER)
        case BleakError() if "platform" in str(error):
            return BluetoothUnavailable(str(error), BluetoothProblem.NOT_SUPPORTED)
    if sys.platform != "linux":
        return BluetoothUnavailable(f"Bluetooth failed: {error}", BluetoothProblem.UNKNOWN)
    from dbus_fast import DBusError

    from hybrid.adapters import bluez_bus

    if isinstance(error, BleakDBusError):
        error = DBusError(error.dbus_error, error.dbus_error_details or "")
    return bluez_bus.unavailable(error)


@contextlib.asynccontextmanager
async def _scanning(scanner: BleakScanner, reachable: Callable[[], bool]) -> AsyncIterator[None]:
    """Start; on the way out stop, whatever happened, without raising.

    Without a bus (`reachable`) there is nothing to stop: bleak would write to a closed socket, and the failure would
    stay in a future that nobody can reach.
    """

    async def start() -> None:
        async with asyncio.timeout(START_TIMEOUT):
            await scanner.start()

    # Cancelled in mid-start, bleak would forget a discovery that BlueZ has just begun: let it finish, then
    # stop it.
    starting = asyncio.create_task(start())
    try:
        await asyncio.shield(starting)
        yield
    finally:
        try:
            await asyncio.wait({starting}, timeout=SETTLE_TIMEOUT)
            if reachable():
                async with asyncio.timeout(STOP_TIMEOUT):
                    await scanner.stop()
        except Exception as error:
            # Whatever bleak says now ("No discovery started" after the adapter was off), the scan is over,
            # and the reason to leave must not be replaced by it.
            _log.debug("stopping the scan: %s", error)
        finally:
            starting.cancel()


class BluetoothScanner:
    """Hears adverts through a Bluetooth adapter of this machine.

    `adapter`, Linux only: its name, e.g. "hci0"; by default the first that is switched on.
    """

    proximity = Proximity.BLUETOOTH

    def __init__(self, adapter: str | None = None) -> None:
        self._adapter = adapter

    @contextlib.asynccontextmanager
    async def scan(self) -> AsyncIterator[AsyncIterator[Advert]]:
        """Listen while the context is open, as `hybrid.ports.Scanner.scan` says."""
        inbox = Inbox()
        async with contextlib.AsyncExitStack() as stack:
            adapter, reachable = await self._watched(stack, inbox)

            def heard(device: BLEDevice, data: AdvertisementData) -> None:
                for advert in adverts_in(device, data, adapter):
                    inbox.put(advert)

            # No UUID filter: BlueZ compares it with the list of UUIDs in an advert, never with service data.
            try:
                scanner = BleakScanner(heard, bluez=_bluez_arguments(adapter))
                await stack.enter_async_context(_scanning(scanner, reachable))
            except (BleakError, OSError, EOFError, ValueError) as error:
                raise unavailable(error) from error
            yield inbox

    async def _watched(self, stack: contextlib.AsyncExitStack, inbox: Inbox) -> tuple[str, Callable[[], bool]]:
        """Watch the adapter on Linux, where a scan falls silent without a word when it is switched off.

        Gives its name, and whether the service can still be reached.
        """
        if sys.platform != "linux":
            return "", lambda: True
        from hybrid.adapters import bluez_bus

        def objection(interfaces: bluez_bus.Interfaces) -> BluetoothUnavailable | None:
            if "central" in interfaces[bluez_bus.ADAPTER].get("Roles", ["central"]):
                return None
            return BluetoothUnavailable("the adapter cannot scan", BluetoothProblem.NOT_SUPPORTED)

        bus = await stack.enter_async_context(bluez_bus.system_bus())
        watched = await stack.enter_async_context(
            bluez_bus.watched_adapter(bus, self._adapter, objection=objection, on_change=inbox.fail)
        )
        return watched.name, lambda: bus.bus.connected


def _bluez_arguments(adapter: str) -> BlueZScannerArgs:
    if sys.platform != "linux":
        return BlueZScannerArgs()
    # DuplicateData: without it BlueZ 5.82 drops non-discoverable adverts on LE-only adapters, and an advert
    # that came too early to be noticed is never told again.
    return BlueZScannerArgs(adapter=adapter, filters={"DuplicateData": True})
