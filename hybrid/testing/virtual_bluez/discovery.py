"""Scanning: which adverts an active discovery or a passive monitor lets through.

Source: the BlueZ D-Bus API, ``org.bluez.Adapter`` (SetDiscoveryFilter, StartDiscovery) and
``org.bluez.AdvertisementMonitorManager``, with the behaviour measured on each version.
"""

from __future__ import annotations

from typing import Any

from dbus_fast import Message, Variant

from hybrid.testing.virtual_bluez import adverts
from hybrid.testing.virtual_bluez.adapter import Adapter
from hybrid.testing.virtual_bluez.adverts import Content
from hybrid.testing.virtual_bluez.behaviour import Behaviour
from hybrid.testing.virtual_bluez.devices import Devices
from hybrid.testing.virtual_bluez.names import MONITOR, bluez_error
from hybrid.testing.virtual_bluez.signals import Signals

Session = tuple[str, str]
"""Path of the adapter, unique name of the client."""


class Discovery:
    """StartDiscovery and StopDiscovery of all clients on all adapters."""

    def __init__(self, behaviour: Behaviour, devices: Devices) -> None:
        self._behaviour = behaviour
        self._devices = devices
        self._filters: dict[Session, dict[str, Any]] = {}
        self._sessions: set[Session] = set()

    def set_filter(self, adapter: Adapter, client: str, wanted: dict[str, Variant]) -> None:
        """SetDiscoveryFilter."""
        self._filters[adapter.path, client] = {name: value.value for name, value in wanted.items()}

    def start(self, adapter: Adapter, client: str) -> None:
        """StartDiscovery."""
        if not adapter.powered:
            raise bluez_error("NotReady", "Resource Not Ready")
        if (adapter.path, client) in self._sessions:
            raise bluez_error("InProgress", "Operation already in progress")
        self._sessions.add((adapter.path, client))
        adapter.change("Discovering", True)

    def stop(self, adapter: Adapter, client: str) -> None:
        """StopDiscovery."""
        if not adapter.powered:
            raise bluez_error("NotReady", "Resource Not Ready")
        if (adapter.path, client) not in self._sessions:
            raise bluez_error("Failed", "No discovery started")
        self._sessions.discard((adapter.path, client))
        self._update(adapter)

    def client_left(self, adapter: Adapter, client: str) -> None:
        """A client left the bus: its discovery ends."""
        self._filters.pop((adapter.path, client), None)
        self._sessions.discard((adapter.path, client))
        self._update(adapter)

    def adapter_down(self, adapter: Adapter) -> None:
        """The adapter went off: nobody is told, and nothing resumes when it is back."""
        self._sessions = {session for session in self._sessions if session[0] != adapter.path}
        self._update(adapter)

    def _update(self, adapter: Adapter) -> None:
        on = any(session[0] == adapter.path for session in self._sessions)
        if adapter.discovering and not on:
            self._devices.discovery_stopped(adapter.path)
        adapter.change("Discovering", on)

    def accepts(self, adapter: Adapter, content: Content, rssi: int) -> bool | None:
        """None if no client gets to know of this advert; otherwise whether any of them wants duplicates."""
        accepted: bool | None = None
        for session in self._sessions:
            if session[0] == adapter.path and self._lets_through(self._filters.get(session, {}), content, rssi):
                duplicates = bool(self._filters.get(session, {}).get("DuplicateData"))
                accepted = duplicates or bool(accepted)
        return accepted

    def _lets_through(self, wanted: dict[str, Any], content: Content, rssi: int) -> bool:
        # A device that is not discoverable counts only for a client with a "real" filter; which keys make one
        # differs. DuplicateData=False is as good as none.
        filtered = (
            any(wanted.get(key) for key in ("UUIDs", "Pattern", "DuplicateData"))
            or "RSSI" in wanted
            or "Pathloss" in wanted
            or (wanted.get("Transport") == "le" and self._behaviour.transport_is_a_filter)
        )
        if not filtered and not content.discoverable:
            return False
        if wanted.get("UUIDs"):
            # the list of UUIDs in the advert counts, never the UUIDs of service data
            listed = {adverts.uuid_text(adverts.uuid_bytes(uuid)) for uuid in wanted["UUIDs"]}
            if not listed & set(content.uuids):
                return False
        return "RSSI" not in wanted or rssi >= wanted["RSSI"]


class Monitors:
    """Passive scanning: the patterns that clients have BlueZ watch for."""

    def __init__(self, behaviour: Behaviour, signals: Signals) -> None:
        self._behaviour = behaviour
        self._signals = signals
        self._roots: set[tuple[str, str, str]] = set()
        self._active: dict[tuple[str, str, str], list[tuple[int, int, bytes]]] = {}

    def register(self, adapter: Adapter, client: str, root: str) -> None:
        """RegisterMonitor."""
        if (adapter.path, client, root) in self._roots:
            raise bluez_error("AlreadyExists", "Already Exists")
        self._roots.add((adapter.path, client, root))

    def unregister(self, adapter: Adapter, client: str, root: str) -> None:
        """UnregisterMonitor."""
        if (adapter.path, client, root) not in self._roots:
            raise bluez_error("DoesNotExist", "Does Not Exist")
        self._roots.discard((adapter.path, client, root))
        self._forget(lambda at, by, path: at == adapter.path and by == client and path.startswith(root))

    def client_left(self, client: str) -> None:
        """A client left the bus: its monitors are gone."""
        self._roots = {root for root in self._roots if root[1] != client}
        self._forget(lambda at, by, path: by == client)

    def adapter_gone(self, adapter: Adapter) -> None:
        """An adapter was removed, and its monitors with it."""
        self._roots = {root for root in self._roots if root[0] != adapter.path}
        self._forget(lambda at, by, path: at == adapter.path)

    def _forget(self, gone: Any) -> None:
        self._active = {key: patterns for key, patterns in self._active.items() if not gone(*key)}

    def objects_changed(self, message: Message) -> None:
        """A client added or removed objects below a root that it registered."""
        if message.member == "InterfacesRemoved":
            self._forget(lambda at, by, path: by == message.sender and path == message.body[0])
            return
        path, interfaces = message.body
        if MONITOR not in interfaces or "Patterns" not in interfaces[MONITOR]:
            return
        for adapter, client, root in self._roots:
            if client == message.sender and path.startswith(root):
                patterns = interfaces[MONITOR]["Patterns"].value
                self._active[adapter, client, path] = [(at, kind, bytes(value)) for at, kind, value in patterns]
                self._signals.tell(client, path, MONITOR, "Activate")

    def interested(self, adapter: Adapter, content: Content) -> list[tuple[str, str]]:
        """Client and path of each monitor with a pattern that this advert matches."""
        return [
            (client, path)
            for (at, client, path), patterns in self._active.items()
            if at == adapter.path
            and any(self._matches(pattern, field) for pattern in patterns for field in content.fields)
        ]

    def _matches(self, pattern: tuple[int, int, bytes], field: tuple[int, bytes]) -> bool:
        at, kind, wanted = pattern
        if field[0] != kind or kind == adverts.FLAGS:
            return False
        value = field[1]
        if not self._behaviour.matches_service_data:
            # the daemon takes lists of UUIDs out before it compares, and looks behind the UUID of service data where
            # the kernel looks at the UUID: what passes the one fails the other
            if kind in (*adverts.UUIDS_16, *adverts.UUIDS_128):
                return False
            if kind in (adverts.SERVICE_DATA_16, adverts.SERVICE_DATA_128):
                behind = value[2 if kind == adverts.SERVICE_DATA_16 else 16 :]
                return value[at : at + len(wanted)] == wanted == behind[at : at + len(wanted)]
        return value[at : at + len(wanted)] == wanted

    def found(self, client: str, path: str, device: str) -> None:
        """Tell a client that a device matches."""
        self._signals.tell(client, path, MONITOR, "DeviceFound", "o", device)
