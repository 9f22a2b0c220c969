"""A virtual BlueZ: an ``org.bluez`` on a private D-Bus bus, with an air that links its adapters.

For people who test Bluetooth programs on a machine without Bluetooth: unmodified programs talk to it when
``DBUS_SYSTEM_BUS_ADDRESS`` points at its bus. An advertisement registered by one process becomes a Device1 with
ServiceData for every process that scans on another adapter. ::

    async with virtual_bluez() as bluez:
        process = await asyncio.create_subprocess_exec("my-program", env=os.environ | bluez.environment)
        await bluez.power("hci0", False)

Source: the BlueZ D-Bus API (``org.bluez.Adapter``, ``org.bluez.Device``, ``org.bluez.LEAdvertisingManager``,
``org.bluez.AdvertisementMonitorManager``), and behaviour measured on BlueZ 5.66 and 5.82 over Linux with emulated
controllers. Not there: GATT, pairing, connections, L2CAP, air time and interference.
"""

from __future__ import annotations

from hybrid.testing.virtual_bluez.adverts import service_data_ad
from hybrid.testing.virtual_bluez.bus import DbusDaemonMissing
from hybrid.testing.virtual_bluez.command import CannotRun, run_command
from hybrid.testing.virtual_bluez.control import HANG, VirtualBluez, virtual_bluez

__all__ = ["HANG", "CannotRun", "DbusDaemonMissing", "VirtualBluez", "run_command", "service_data_ad", "virtual_bluez"]
