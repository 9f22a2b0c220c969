"""Adapter1: the properties of one virtual adapter.

Source: the BlueZ D-Bus API, ``org.bluez.Adapter``.
"""

from __future__ import annotations

from dbus_fast import Variant

from hybrid.testing.virtual_bluez.names import ADAPTER, ROOT, Properties, bus_error
from hybrid.testing.virtual_bluez.signals import Signals

_WRITABLE = {
    "Alias": "s",
    "Discoverable": "b",
    "DiscoverableTimeout": "u",
    "Pairable": "b",
    "PairableTimeout": "u",
    "Powered": "b",
}


class Adapter:
    """One virtual adapter, "hci0" and so on."""

    def __init__(self, name: str, signals: Signals) -> None:
        number = int(name.removeprefix("hci"))
        self.name = name
        self.path = f"{ROOT}/{name}"
        self.address = f"00:FA:CE:00:00:{number:02X}"
        self._signals = signals
        self._properties: Properties = {
            "Address": Variant("s", self.address),
            "AddressType": Variant("s", "public"),
            "Name": Variant("s", f"virtual {name}"),
            "Alias": Variant("s", f"virtual {name}"),
            "Class": Variant("u", 0),
            "Powered": Variant("b", True),
            "Discoverable": Variant("b", False),
            "DiscoverableTimeout": Variant("u", 180),
            "Pairable": Variant("b", True),
            "PairableTimeout": Variant("u", 0),
            "Discovering": Variant("b", False),
            "UUIDs": Variant("as", []),
            "Modalias": Variant("s", "usb:v1D6Bp0246d0552"),
            "Roles": Variant("as", ["central", "peripheral"]),
        }

    @property
    def powered(self) -> bool:
        return bool(self._properties["Powered"].value)

    @property
    def discovering(self) -> bool:
        return bool(self._properties["Discovering"].value)

    def properties(self) -> Properties:
        return dict(self._properties)

    def change(self, name: str, value: bool | int | str) -> None:
        """Set a property and announce it if it is new."""
        old = self._properties[name]
        if old.value != value:
            self._properties[name] = Variant(old.signature, value)
            self._signals.changed(self.path, ADAPTER, {name: self._properties[name]})

    def check_writable(self, name: str, value: Variant) -> None:
        """Raises what BlueZ answers to a bad Set."""
        if name not in _WRITABLE:
            raise bus_error("PropertyReadOnly", f"property '{name}' cannot be set")
        if value.signature != _WRITABLE[name]:
            raise bus_error("InvalidArgs", f"property '{name}' has another type")
