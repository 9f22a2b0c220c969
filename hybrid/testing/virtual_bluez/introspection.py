"""Introspect: what the objects of the virtual BlueZ look like to programs that ask before they call.

Source: the D-Bus specification, "Introspection Data Format"; signatures from the BlueZ D-Bus API. dbus-python needs it:
it cannot send an empty dictionary to a method whose signature it has not been told.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree

from hybrid.testing.virtual_bluez.names import (
    ADAPTER,
    ADVERTISING_MANAGER,
    AGENT_MANAGER,
    GATT_MANAGER,
    INTROSPECTABLE,
    MONITOR_MANAGER,
    OBJECT_MANAGER,
    PROFILE_MANAGER,
    PROPERTIES,
    Interfaces,
)

_DOCTYPE = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN" '
    '"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">'
)

# Interface to method to the signatures of each argument in, and of the result.
_METHODS: dict[str, dict[str, tuple[tuple[str, ...], str]]] = {
    INTROSPECTABLE: {"Introspect": ((), "s")},
    OBJECT_MANAGER: {"GetManagedObjects": ((), "a{oa{sa{sv}}}")},
    PROPERTIES: {"Get": (("s", "s"), "v"), "Set": (("s", "s", "v"), ""), "GetAll": (("s",), "a{sv}")},
    ADAPTER: {
        "SetDiscoveryFilter": (("a{sv}",), ""),
        "StartDiscovery": ((), ""),
        "StopDiscovery": ((), ""),
        "GetDiscoveryFilters": ((), "as"),
        "RemoveDevice": (("o",), ""),
    },
    ADVERTISING_MANAGER: {
        "RegisterAdvertisement": (("o", "a{sv}"), ""),
        "UnregisterAdvertisement": (("o",), ""),
    },
    MONITOR_MANAGER: {"RegisterMonitor": (("o",), ""), "UnregisterMonitor": (("o",), "")},
    GATT_MANAGER: {"RegisterApplication": (("o", "a{sv}"), ""), "UnregisterApplication": (("o",), "")},
    AGENT_MANAGER: {
        "RegisterAgent": (("o", "s"), ""),
        "UnregisterAgent": (("o",), ""),
        "RequestDefaultAgent": (("o",), ""),
    },
    PROFILE_MANAGER: {"RegisterProfile": (("o", "s", "a{sv}"), ""), "UnregisterProfile": (("o",), "")},
}


def describe(path: str, objects: dict[str, Interfaces]) -> str | None:
    """Introspection data of the object at `path`, or of the way to objects below it; None if there is neither."""
    below = sorted({child for child in (_child(path, other) for other in objects) if child})
    interfaces = objects.get(path)
    if interfaces is None and not below:
        return None
    node = ElementTree.Element("node")
    standing: Interfaces = {} if interfaces is None else {PROPERTIES: {}, **interfaces}
    for interface, properties in {INTROSPECTABLE: {}, **standing}.items():
        _add_interface(node, interface, ((name, value.signature) for name, value in properties.items()))
    for child in below:
        ElementTree.SubElement(node, "node", name=child)
    return _DOCTYPE + ElementTree.tostring(node, encoding="unicode")


def _child(path: str, other: str) -> str:
    prefix = path.rstrip("/") + "/"
    return other[len(prefix) :].split("/", 1)[0] if other.startswith(prefix) else ""


def _add_interface(node: ElementTree.Element, name: str, properties: Iterable[tuple[str, str]]) -> None:
    interface = ElementTree.SubElement(node, "interface", name=name)
    for method, (arguments, result) in _METHODS.get(name, {}).items():
        described = ElementTree.SubElement(interface, "method", name=method)
        for argument in arguments:
            ElementTree.SubElement(described, "arg", type=argument, direction="in")
        if result:
            ElementTree.SubElement(described, "arg", type=result, direction="out")
    for property_name, signature in properties:
        ElementTree.SubElement(interface, "property", name=property_name, type=signature, access="read")
