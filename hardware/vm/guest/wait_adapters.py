"""Wait until bluetoothd exports the adapters named on the command line, and power them on.

Exits with 0 when every one is powered and can advertise, with 1 after a minute. Uses no code of the project: what
fails here is the rig.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

ADAPTER = "org.bluez.Adapter1"
ADVERTISING = "org.bluez.LEAdvertisingManager1"


async def exported(bus: MessageBus) -> dict[str, dict[str, dict[str, Any]]]:
    """Objects of org.bluez, by path and interface; none while bluetoothd is not on the bus."""
    reply = await bus.call(
        Message(
            destination="org.bluez",
            path="/",
            interface="org.freedesktop.DBus.ObjectManager",
            member="GetManagedObjects",
        )
    )
    if reply.message_type is MessageType.ERROR:
        return {}
    objects: dict[str, dict[str, dict[str, Any]]] = reply.body[0]
    return objects


async def power_on(bus: MessageBus, path: str) -> None:
    """Ask for power; an answer "busy" is as good, because the caller asks again."""
    await bus.call(
        Message(
            destination="org.bluez",
            path=path,
            interface="org.freedesktop.DBus.Properties",
            member="Set",
            signature="ssv",
            body=[ADAPTER, "Powered", Variant("b", True)],
        )
    )


async def adapters_up(names: list[str]) -> None:
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    while True:
        objects = await exported(bus)
        waiting = False
        for name in names:
            interfaces = objects.get(f"/org/bluez/{name}", {})
            if ADAPTER not in interfaces or ADVERTISING not in interfaces:
                waiting = True
            elif not interfaces[ADAPTER]["Powered"].value:
                waiting = True
                await power_on(bus, f"/org/bluez/{name}")
        if not waiting:
            break
        await asyncio.sleep(0.1)  # the kernel's side does not tell
    bus.disconnect()


if __name__ == "__main__":
    try:
        asyncio.run(asyncio.wait_for(adapters_up(sys.argv[1:]), 60))
    except TimeoutError:
        sys.exit(1)
