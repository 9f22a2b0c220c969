"""What BlueZ tells everybody on the bus, and the calls that it makes without waiting for an answer.

Source: the D-Bus specification, "Standard interfaces".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dbus_fast import Message, MessageFlag, MessageType, Variant

from hybrid.testing.virtual_bluez.names import OBJECT_MANAGER, PROPERTIES, Interfaces
from hybrid.testing.virtual_bluez.outbox import Outbox


class Signals:
    """The virtual BlueZ's voice."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def _emit(self, path: str, interface: str, member: str, signature: str, body: list[object]) -> None:
        self._outbox.put(
            Message(
                message_type=MessageType.SIGNAL,
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=body,
            )
        )

    def changed(
        self, path: str, interface: str, properties: Mapping[str, Variant], invalidated: Iterable[str] = ()
    ) -> None:
        """PropertiesChanged."""
        self._emit(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", [interface, dict(properties), list(invalidated)])

    def added(self, path: str, interfaces: Interfaces) -> None:
        """InterfacesAdded."""
        self._emit("/", OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", [path, interfaces])

    def removed(self, path: str, interfaces: Iterable[str]) -> None:
        """InterfacesRemoved."""
        self._emit("/", OBJECT_MANAGER, "InterfacesRemoved", "oas", [path, list(interfaces)])

    def tell(self, client: str, path: str, interface: str, member: str, signature: str = "", *body: object) -> None:
        """Call a method of a client's object and want no answer."""
        self._outbox.put(
            Message(
                destination=client,
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=list(body),
                flags=MessageFlag.NO_REPLY_EXPECTED,
            )
        )
