"""Device1 objects: what has been heard, in bounded number and for a bounded time.

Source: the BlueZ D-Bus API, ``org.bluez.Device``. Decides nothing about what is heard; `discovery` does.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from dbus_fast import Variant

from hybrid.testing.virtual_bluez.adverts import Content
from hybrid.testing.virtual_bluez.behaviour import Behaviour
from hybrid.testing.virtual_bluez.names import DEVICE, PROPERTIES, Interfaces, Properties
from hybrid.testing.virtual_bluez.signals import Signals

MAX_DEVICES = 512
LIFETIME = 30.0

_FALSE = Variant("b", False)


@dataclass(slots=True)
class Device:
    """A remote device as one adapter knows it. `rssi` is None while nobody scans."""

    adapter: str
    address: str
    address_type: str
    heard_at: float
    rssi: int | None
    name: str | None
    uuids: tuple[str, ...]
    service_data: dict[str, bytes]
    manufacturer_data: dict[int, bytes]

    def properties(self) -> Properties:
        """The properties of Device1."""
        properties = {
            "Address": Variant("s", self.address),
            "AddressType": Variant("s", self.address_type),
            "Alias": Variant("s", self.name or self.address.replace(":", "-")),
            "Paired": _FALSE,
            "Bonded": _FALSE,
            "Trusted": _FALSE,
            "Blocked": _FALSE,
            "LegacyPairing": _FALSE,
            "Connected": _FALSE,
            "ServicesResolved": _FALSE,
            "UUIDs": Variant("as", list(self.uuids)),
            "Adapter": Variant("o", self.adapter),
        }
        if self.name is not None:
            properties["Name"] = Variant("s", self.name)
        if self.rssi is not None:
            properties["RSSI"] = Variant("n", self.rssi)
        if self.service_data:
            properties["ServiceData"] = self.service_data_variant()
        if self.manufacturer_data:
            properties["ManufacturerData"] = self.manufacturer_data_variant()
        return properties

    def service_data_variant(self) -> Variant:
        return Variant("a{sv}", {uuid: Variant("ay", data) for uuid, data in self.service_data.items()})

    def manufacturer_data_variant(self) -> Variant:
        return Variant("a{qv}", {number: Variant("ay", data) for number, data in self.manufacturer_data.items()})

    def merge(self, content: Content, rssi: int, now: float, *, duplicates: bool) -> Properties:
        """Take in a further advert and give the properties to announce: what changed, or all with `duplicates`."""
        changed: Properties = {}
        self.heard_at = now
        if duplicates or self.rssi != rssi:
            self.rssi = rssi
            changed["RSSI"] = Variant("n", rssi)
        service_data = self.service_data | dict(content.service_data)
        if content.service_data and (duplicates or service_data != self.service_data):
            self.service_data = service_data
            changed["ServiceData"] = self.service_data_variant()
        manufacturer_data = self.manufacturer_data | dict(content.manufacturer_data)
        if content.manufacturer_data and (duplicates or manufacturer_data != self.manufacturer_data):
            self.manufacturer_data = manufacturer_data
            changed["ManufacturerData"] = self.manufacturer_data_variant()
        if not set(content.uuids) <= set(self.uuids):
            self.uuids = tuple(sorted({*content.uuids, *self.uuids}))
            changed["UUIDs"] = Variant("as", list(self.uuids))
        return changed


class Devices:
    """All Device1 objects, the ones heard last at the end."""

    def __init__(self, behaviour: Behaviour, signals: Signals) -> None:
        self._behaviour = behaviour
        self._signals = signals
        self._devices: OrderedDict[str, Device] = OrderedDict()

    def __contains__(self, path: str) -> bool:
        return path in self._devices

    def properties(self, path: str) -> Interfaces:
        return {DEVICE: self._devices[path].properties()}

    def objects(self) -> dict[str, Interfaces]:
        """For GetManagedObjects."""
        return {path: self.properties(path) for path in self._devices}

    def hear(
        self,
        adapter: str,
        address: str,
        address_type: str,
        content: Content,
        rssi: int,
        now: float,
        *,
        duplicates: bool,
    ) -> str:
        """Note an advert and announce what it changed. Gives the path of the device."""
        path = f"{adapter}/dev_{address.replace(':', '_')}"
        device = self._devices.get(path)
        if self._behaviour.lists_service_data:
            content = replace(content, uuids=tuple(dict.fromkeys((*content.uuids, *content.service_data))))
        if device is None:
            device = Device(
                adapter=adapter,
                address=address,
                address_type=address_type,
                heard_at=now,
                rssi=rssi,
                name=content.name,
                uuids=content.uuids,
                service_data=dict(content.service_data),
                manufacturer_data=dict(content.manufacturer_data),
            )
            self._devices[path] = device
            self._signals.added(path, {DEVICE: device.properties(), PROPERTIES: {}})
            if len(self._devices) > MAX_DEVICES:
                self.drop(next(iter(self._devices)))
        else:
            self._devices.move_to_end(path)
            changed = device.merge(content, rssi, now, duplicates=duplicates)
            if changed:
                self._signals.changed(path, DEVICE, changed)
        return path

    def drop(self, path: str) -> None:
        """Forget a device, if it is there."""
        if self._devices.pop(path, None) is not None:
            self._signals.removed(path, [DEVICE, PROPERTIES])

    def drop_old(self, now: float) -> None:
        """Forget what has not been heard for long."""
        while self._devices:
            path, device = next(iter(self._devices.items()))
            if device.heard_at > now - LIFETIME:
                return
            self.drop(path)

    def drop_adapter(self, adapter: str) -> None:
        """Forget the devices of an adapter that is gone."""
        for path in [path for path, device in self._devices.items() if device.adapter == adapter]:
            self.drop(path)

    def discovery_stopped(self, adapter: str) -> None:
        """Nobody scans on this adapter any more: signal strengths are not valid."""
        for path, device in self._devices.items():
            if device.adapter == adapter and device.rssi is not None:
                device.rssi = None
                self._signals.changed(path, DEVICE, {}, ["RSSI"])
