"""D-Bus names of BlueZ, and its errors.

Source: the D-Bus specification, "Standard interfaces"; the BlueZ D-Bus API.
"""

from __future__ import annotations

from dbus_fast import DBusError, Variant

BLUEZ = "org.bluez"
ROOT = "/org/bluez"
BUS = "org.freedesktop.DBus"
PROPERTIES = "org.freedesktop.DBus.Properties"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"

ADAPTER = "org.bluez.Adapter1"
DEVICE = "org.bluez.Device1"
ADVERTISING_MANAGER = "org.bluez.LEAdvertisingManager1"
ADVERTISEMENT = "org.bluez.LEAdvertisement1"
MONITOR_MANAGER = "org.bluez.AdvertisementMonitorManager1"
MONITOR = "org.bluez.AdvertisementMonitor1"
GATT_MANAGER = "org.bluez.GattManager1"
AGENT_MANAGER = "org.bluez.AgentManager1"
PROFILE_MANAGER = "org.bluez.ProfileManager1"

Properties = dict[str, Variant]
Interfaces = dict[str, Properties]


def bluez_error(name: str, text: str) -> DBusError:
    """An error of BlueZ's own, e.g. "NotReady"."""
    return DBusError(f"org.bluez.Error.{name}", text)


def bus_error(name: str, text: str) -> DBusError:
    """An error of the D-Bus specification, e.g. "UnknownObject"."""
    return DBusError(f"org.freedesktop.DBus.Error.{name}", text)
