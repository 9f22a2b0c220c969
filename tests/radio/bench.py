"""What the radio tests work with: two adapters, and plain BlueZ and bleak to compare our adapters with."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bleak import BleakScanner
from bleak.args.bluez import BlueZDiscoveryFilters, BlueZScannerArgs
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from dbus_fast import BusType, DBusError, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

FIDO = "0000fff9-0000-1000-8000-00805f9b34fb"
OLD_FIDO = "0000fde2-0000-1000-8000-00805f9b34fb"
ADAPTER = "org.bluez.Adapter1"
MANAGER = "org.bluez.LEAdvertisingManager1"
PROPERTIES = "org.freedesktop.DBus.Properties"

# Long enough for an emulated machine on a busy one; nothing that works comes near it.
WITHIN = 30.0


@dataclass
class Heard:
    """What bleak's callback was told: service data under FFF9, newest last."""

    adverts: list[tuple[BLEDevice, AdvertisementData]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def callback(self, device: BLEDevice, advert: AdvertisementData) -> None:
        self.adverts.append((device, advert))
        self.news.set()

    @property
    def data(self) -> list[bytes]:
        return [advert.service_data[FIDO] for _, advert in self.adverts if FIDO in advert.service_data]

    async def wait_for(self, data: bytes, uuid: str = FIDO) -> tuple[BLEDevice, AdvertisementData]:
        """The first advert with these data under this UUID."""
        async with asyncio.timeout(WITHIN):
            while True:
                for device, advert in self.adverts:
                    if advert.service_data.get(uuid) == data:
                        return device, advert
                self.news.clear()
                await self.news.wait()


@dataclass
class Radio:
    """A laptop's and a phone's adapter, in range of each other, on a virtual or a real BlueZ."""

    bus: MessageBus
    laptop: str
    phone: str
    bluez: str
    controller: str
    silence: float
    """Seconds after which what has not been heard will not be heard."""
    paths: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def legacy(self) -> bool:
        """Whether an advert is bound to 31 bytes."""
        return self.bluez == "5.66" or self.controller == "le-only"

    async def call(self, adapter: str, interface: str, member: str, signature: str = "", *body: Any) -> list[Any]:
        """Call BlueZ. Raises `DBusError`."""
        reply = await self.bus.call(
            Message(
                destination="org.bluez",
                path=f"/org/bluez/{adapter}",
                interface=interface,
                member=member,
                signature=signature,
                body=list(body),
            )
        )
        if reply.message_type is MessageType.ERROR:
            raise DBusError(reply.error_name or "", str(reply.body[0]) if reply.body else "")
        return list(reply.body)

    async def get(self, adapter: str, interface: str, name: str) -> Any:
        """A property of an adapter's object."""
        (value,) = await self.call(adapter, PROPERTIES, "Get", "ss", interface, name)
        return value.value

    async def becomes(self, adapter: str, interface: str, name: str, value: Any) -> None:
        """Wait for a property to have a value: the kernel is a little behind what BlueZ has answered."""
        async with asyncio.timeout(WITHIN):
            while True:
                if await self.get(adapter, interface, name) == value:
                    return
                await asyncio.sleep(0.01)  # a property may have been right already

    async def power(self, adapter: str, on: bool) -> None:
        """Switch an adapter on or off, as a settings program does."""
        await self.call(adapter, PROPERTIES, "Set", "ssv", ADAPTER, "Powered", Variant("b", on))

    async def register(self, path: str, adapter: str | None = None) -> None:
        """RegisterAdvertisement."""
        await self.call(adapter or self.phone, MANAGER, "RegisterAdvertisement", "oa{sv}", path, {})

    async def unregister(self, path: str) -> None:
        """UnregisterAdvertisement."""
        await self.call(self.phone, MANAGER, "UnregisterAdvertisement", "o", path)

    @contextlib.contextmanager
    def exported(self, properties: dict[str, Variant]) -> Any:
        """An LEAdvertisement1 object with these properties, not registered yet. Gives its path."""
        path = f"/radiotest/advert{next(self.paths)}"

        def answer(message: Message) -> Message | None:
            if message.message_type is not MessageType.METHOD_CALL or message.path != path:
                return None
            if message.member == "GetAll" and message.interface == PROPERTIES:
                return Message.new_method_return(message, "a{sv}", [properties])
            if message.member == "Release":
                released.append(path)
                return Message.new_method_return(message)
            return None

        released: list[str] = []
        self.bus.add_message_handler(answer)
        try:
            yield path
        finally:
            self.bus.remove_message_handler(answer)
            assert not released, "BlueZ called Release"

    @contextlib.asynccontextmanager
    async def advert(
        self,
        data: bytes,
        *,
        kind: str = "broadcast",
        uuid: str = FIDO,
        listed: bool = False,
        discoverable: bool = False,
    ) -> AsyncIterator[str]:
        """An advert on the phone's adapter, made without our advertiser."""
        with self.exported(properties(data, kind=kind, uuid=uuid, listed=listed, discoverable=discoverable)) as path:
            await self.register(path)
            try:
                yield path
            finally:
                with contextlib.suppress(DBusError):
                    await self.unregister(path)

    @contextlib.asynccontextmanager
    async def bleak(
        self, *, uuids: Sequence[str] = (), adapter: str | None = None, duplicates: bool = True, **more: Any
    ) -> AsyncIterator[Heard]:
        """A bleak scan on the laptop's adapter, made without our scanner."""
        heard = Heard()
        arguments = BlueZScannerArgs(adapter=adapter or self.laptop)
        if duplicates:
            arguments["filters"] = BlueZDiscoveryFilters(DuplicateData=True)
        arguments.update(more.pop("bluez", {}))
        async with BleakScanner(heard.callback, service_uuids=list(uuids) or None, bluez=arguments, **more):
            yield heard

    async def others_are_heard(self, heard: Heard) -> None:
        """Wait until other adverts, which no filter here refuses, have been heard three times one after the other."""
        for _ in range(3):
            data = os.urandom(16)
            async with self.advert(data, kind="peripheral", listed=True, discoverable=True):
                await heard.wait_for(data)


def properties(
    data: bytes, *, kind: str = "broadcast", uuid: str = FIDO, listed: bool = False, discoverable: bool = False
) -> dict[str, Variant]:
    """The properties of an LEAdvertisement1."""
    told = {
        "Type": Variant("s", kind),
        "ServiceData": Variant("a{sv}", {uuid: Variant("ay", data)}),
        "ServiceUUIDs": Variant("as", [uuid] if listed else []),
    }
    if discoverable:
        told["Discoverable"] = Variant("b", True)
    return told


@contextlib.asynccontextmanager
async def system_bus() -> AsyncIterator[MessageBus]:
    """A connection to whatever is the system bus here."""
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    try:
        yield bus
    finally:
        bus.disconnect()
        with contextlib.suppress(OSError, EOFError):
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # dbus-fast leaves it so
