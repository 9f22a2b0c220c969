"""Advertising data: from the properties of an LEAdvertisement1 to bytes on the air, and back.

Source: Bluetooth Core Specification, vol. 3 part C §11 "Advertising and scan response data format"; the assigned
numbers for AD types. Pure: sends nothing, knows no bus.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hybrid.testing.virtual_bluez.behaviour import Behaviour

LEGACY_SIZE = 31
EXTENDED_SIZE = 251

FLAGS = 0x01
UUIDS_16 = (0x02, 0x03)
UUIDS_128 = (0x06, 0x07)
NAMES = (0x08, 0x09)
SERVICE_DATA_16 = 0x16
SERVICE_DATA_128 = 0x21
MANUFACTURER_DATA = 0xFF

LIMITED_DISCOVERABLE = 0x01
GENERAL_DISCOVERABLE = 0x02
NO_BR_EDR = 0x04

_BASE = "-0000-1000-8000-00805f9b34fb"


class RefusedAdvert(ValueError):
    """An advertisement that BlueZ does not take; the text is BlueZ's."""


@dataclass(frozen=True, slots=True)
class OnAir:
    """What a controller sends. `extended`: more than a legacy advert holds."""

    ad: bytes
    connectable: bool

    @property
    def extended(self) -> bool:
        return len(self.ad) > LEGACY_SIZE


@dataclass(frozen=True, slots=True)
class Content:
    """Advertising data taken apart. `fields`: AD type and value of each, in order."""

    flags: int
    uuids: tuple[str, ...]
    service_data: Mapping[str, bytes]
    manufacturer_data: Mapping[int, bytes]
    name: str | None
    fields: tuple[tuple[int, bytes], ...]

    @property
    def discoverable(self) -> bool:
        return bool(self.flags & (LIMITED_DISCOVERABLE | GENERAL_DISCOVERABLE))


def uuid_bytes(uuid: str) -> bytes:
    """A UUID as it is on the air: least significant byte first, 2 bytes if it is a short one."""
    uuid = uuid.lower()
    if uuid.startswith("0000") and uuid.endswith(_BASE):
        uuid = uuid[4:8]
    try:
        raw = bytes.fromhex(uuid.replace("-", ""))
    except ValueError:
        raw = b""
    if len(raw) not in (2, 16):
        raise RefusedAdvert("Failed to parse advertisement.")
    return raw[::-1]


def uuid_text(raw: bytes) -> str:
    """The full string form of a UUID of 2 or 16 bytes from the air."""
    digits = raw[::-1].hex()
    if len(raw) == 2:
        return f"0000{digits}{_BASE}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def field(kind: int, value: bytes) -> bytes:
    """One AD structure: length, type, value."""
    return bytes((1 + len(value), kind)) + value


def service_data_ad(data: bytes, uuid: str = "fff9") -> bytes:
    """Advertising data with nothing but service data, e.g. for `VirtualBluez.inject`."""
    return _service_data_field(uuid_bytes(uuid), data)


def _service_data_field(uuid: bytes, data: bytes) -> bytes:
    return field(SERVICE_DATA_16 if len(uuid) == 2 else SERVICE_DATA_128, uuid + data)


def _uuid_lists(uuids: Iterable[str]) -> bytes:
    raw = [uuid_bytes(uuid) for uuid in uuids]
    lists = b""
    for size, kind in ((2, UUIDS_16[1]), (16, UUIDS_128[1])):
        of_size = b"".join(one for one in raw if len(one) == size)
        if of_size:
            lists += field(kind, of_size)
    return lists


def build(properties: Mapping[str, Any], behaviour: Behaviour) -> OnAir:
    """What goes on the air for the properties of an LEAdvertisement1. Raises `RefusedAdvert`.

    `properties`: plain values, but variants inside ServiceData and ManufacturerData. Flags do not count against the
    room: they are left out when there is none. A non-connectable advert says "no BR/EDR", a connectable one carries
    flags only if it is discoverable.
    """
    kind = properties.get("Type")
    if kind not in ("peripheral", "broadcast"):
        raise RefusedAdvert("Failed to parse advertisement.")
    room = EXTENDED_SIZE if behaviour.sends_extended else LEGACY_SIZE
    ad = _uuid_lists(properties.get("ServiceUUIDs", ()))
    for company, value in properties.get("ManufacturerData", {}).items():
        ad += field(MANUFACTURER_DATA, company.to_bytes(2, "little") + bytes(value.value))
    for uuid, value in properties.get("ServiceData", {}).items():
        raw, data = uuid_bytes(uuid), bytes(value.value)
        if 2 + len(raw) + len(data) > room:
            raise RefusedAdvert("Failed to parse advertisement.")
        ad += _service_data_field(raw, data)
    name = properties.get("LocalName", "").encode()
    if name:
        ad += field(NAMES[1], name)
    if len(ad) > room:
        raise RefusedAdvert("Failed to register advertisement")
    connectable = kind == "peripheral"
    discoverable = bool(properties.get("Discoverable"))
    if discoverable or not connectable:
        flags = NO_BR_EDR | (GENERAL_DISCOVERABLE if discoverable else 0)
        flagged = field(FLAGS, bytes((flags,))) + ad
        ad = flagged if len(flagged) <= LEGACY_SIZE else ad
    return OnAir(ad, connectable)


def parse(ad: bytes) -> Content:
    """Take advertising data apart. A field that ends beyond the data ends the parsing, as receivers do."""
    flags, name = 0, None
    uuids: list[str] = []
    service_data: dict[str, bytes] = {}
    manufacturer_data: dict[int, bytes] = {}
    fields: list[tuple[int, bytes]] = []
    at = 0
    while at + 1 < len(ad) and ad[at] and at + 1 + ad[at] <= len(ad):
        kind, value = ad[at + 1], ad[at + 2 : at + 1 + ad[at]]
        at += 1 + ad[at]
        fields.append((kind, value))
        if kind == FLAGS and value:
            flags = value[0]
        elif kind in UUIDS_16:
            uuids += [uuid_text(value[i : i + 2]) for i in range(0, len(value) - 1, 2)]
        elif kind in UUIDS_128:
            uuids += [uuid_text(value[i : i + 16]) for i in range(0, len(value) - 15, 16)]
        elif kind == SERVICE_DATA_16 and len(value) >= 2:
            service_data[uuid_text(value[:2])] = value[2:]
        elif kind == SERVICE_DATA_128 and len(value) >= 16:
            service_data[uuid_text(value[:16])] = value[16:]
        elif kind == MANUFACTURER_DATA and len(value) >= 2:
            manufacturer_data[int.from_bytes(value[:2], "little")] = value[2:]
        elif kind in NAMES:
            name = value.decode("utf-8", "replace")
    return Content(flags, tuple(uuids), service_data, manufacturer_data, name, tuple(fields))
