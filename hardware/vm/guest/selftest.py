"""The rig's own test: does bleak on hci0 hear what BlueZ advertises on hci1, byte for byte?

Uses no code of the project, so that a failure of the rig can be told from a failure of the project.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Annotated, Any

from bleak import BleakScanner
from bleak.args.bluez import BlueZScannerArgs
from dbus_fast import BusType, DBusError, Message, MessageType, PropertyAccess, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusDict, DBusSignature, DBusStr
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property

FIDO = "0000fff9-0000-1000-8000-00805f9b34fb"
MANAGER = "org.bluez.LEAdvertisingManager1"
PHONE = "/org/bluez/hci1"
ADVERT = "/selftest/advert"


class Advertisement(ServiceInterface):
    """org.bluez.LEAdvertisement1 with FIDO service data."""

    def __init__(self, kind: str, data: bytes) -> None:
        super().__init__("org.bluez.LEAdvertisement1")
        self.kind, self.data = kind, data

    @dbus_method()
    def Release(self) -> Annotated[None, DBusSignature("")]:
        pass

    @dbus_property(access=PropertyAccess.READ)
    def Type(self) -> DBusStr:
        return self.kind

    @dbus_property(access=PropertyAccess.READ)
    def ServiceData(self) -> DBusDict:
        return {FIDO: Variant("ay", self.data)}


async def call(bus: MessageBus, interface: str, member: str, signature: str, *body: Any) -> None:
    message = Message("org.bluez", PHONE, interface, member, signature=signature, body=list(body))
    reply = await bus.call(message)
    if reply.message_type is MessageType.ERROR:
        raise DBusError(reply.error_name or "", str(reply.body), reply)


async def seconds_until_heard(data: bytes, limit: float) -> float | None:
    heard = asyncio.Event()

    def detected(_: object, advert: Any) -> None:
        if advert.service_data.get(FIDO) == data:
            heard.set()

    start = time.monotonic()
    async with BleakScanner(detected, bluez=BlueZScannerArgs(adapter="hci0", filters={"DuplicateData": True})):
        try:
            await asyncio.wait_for(heard.wait(), limit)
        except TimeoutError:
            return None
    return time.monotonic() - start


async def main() -> int:
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    failures = 0
    for kind in ("broadcast", "peripheral", "broadcast"):
        data = os.urandom(20)
        bus.export(ADVERT, Advertisement(kind, data))
        await call(bus, MANAGER, "RegisterAdvertisement", "oa{sv}", ADVERT, {})
        took = await seconds_until_heard(data, 20)
        print(f"selftest: {kind} {'NOT HEARD' if took is None else f'heard after {took:.2f} s'}", flush=True)
        failures += took is None
        await call(bus, MANAGER, "UnregisterAdvertisement", "o", ADVERT)
        bus.unexport(ADVERT)
    bus.disconnect()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
