"""LEAdvertisingManager1: registered advertisements and what of them is on the air.

Source: the BlueZ D-Bus API, ``org.bluez.LEAdvertisingManager`` and ``org.bluez.LEAdvertisement``, with the
behaviour measured on each version.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from dbus_fast import Message, MessageType, Variant

from hybrid.testing.virtual_bluez import adverts
from hybrid.testing.virtual_bluez.adapter import Adapter
from hybrid.testing.virtual_bluez.adverts import OnAir, RefusedAdvert
from hybrid.testing.virtual_bluez.behaviour import Behaviour
from hybrid.testing.virtual_bluez.names import (
    ADVERTISEMENT,
    ADVERTISING_MANAGER,
    PROPERTIES,
    Properties,
    bluez_error,
)
from hybrid.testing.virtual_bluez.outbox import Outbox
from hybrid.testing.virtual_bluez.signals import Signals

Key = tuple[str, str, str]
"""Path of the adapter, unique name of the client, path of the advertisement."""


def random_address() -> str:
    """A fresh non-resolvable private address: the two most significant bits are zero."""
    raw = os.urandom(6)
    return ":".join(f"{byte:02X}" for byte in (raw[0] & 0x3F, *raw[1:]))


@dataclass(slots=True)
class Registered:
    """One registered advertisement. `on_air` is None if it is not sent: no object behind the path, or the adapter
    has been off since."""

    address: str = ""
    on_air: OnAir | None = None


class Advertising:
    """The advertisements of all clients on all adapters."""

    def __init__(self, outbox: Outbox, behaviour: Behaviour, signals: Signals) -> None:
        self._outbox = outbox
        self._behaviour = behaviour
        self._signals = signals
        self._registered: dict[Key, Registered] = {}
        self._registering: set[Key] = set()
        self.violations: list[str] = []

    def on_air(self) -> Iterator[tuple[str, Registered, OnAir]]:
        """Path of the adapter, registration and content of everything that its adapter sends while it is on."""
        for (adapter, _, _), registered in list(self._registered.items()):
            if registered.on_air is not None:
                yield adapter, registered, registered.on_air

    def active(self, adapter: str) -> int:
        """How many sets of an adapter are taken."""
        return sum(key[0] == adapter for key in self._registered)

    def instances(self, adapter: str) -> Properties:
        """The counting properties of the manager."""
        active = self.active(adapter)
        return {
            "ActiveInstances": Variant("y", active),
            "SupportedInstances": Variant("y", self._behaviour.advertising_sets - active),
        }

    def properties(self, adapter: str) -> Properties:
        """All properties of the manager."""
        includes = Variant("as", ["tx-power", "appearance", "local-name"])
        return self.instances(adapter) | {"SupportedIncludes": includes}

    async def register(self, adapter: Adapter, client: str, path: str) -> Registered:
        """RegisterAdvertisement."""
        key = (adapter.path, client, path)
        if key in self._registered:
            raise bluez_error("AlreadyExists", "Already Exists")
        if self.active(adapter.path) >= self._behaviour.advertising_sets:
            raise bluez_error("NotPermitted", "Maximum advertisements reached")
        if not adapter.powered:
            raise bluez_error("Failed", "Failed to register advertisement")
        registered = self._registered[key] = Registered()
        self._registering.add(key)
        try:
            await self._read(adapter, key, registered)
        except RefusedAdvert as error:
            self._registered.pop(key, None)
            raise bluez_error("Failed", str(error)) from error
        finally:
            self._registering.discard(key)
        if key not in self._registered:
            raise bluez_error("Failed", "Failed to register advertisement")
        self._announce(adapter.path)
        return registered

    async def refresh(self, adapter: Adapter, client: str, path: str) -> None:
        """The client announced new properties: send those, a broadcast from a fresh address."""
        key = (adapter.path, client, path)
        registered = self._registered.get(key)
        if registered is not None and registered.on_air is not None:
            try:
                await self._read(adapter, key, registered)
            except RefusedAdvert:
                return  # the old advert stays

    async def _read(self, adapter: Adapter, key: Key, registered: Registered) -> None:
        _, client, path = key
        reply = await self._outbox.call(
            Message(
                destination=client,
                path=path,
                interface=PROPERTIES,
                member="GetAll",
                signature="s",
                body=[ADVERTISEMENT],
            )
        )
        if reply.message_type is MessageType.ERROR:
            return  # no object there: BlueZ takes the registration all the same, and it holds a set
        properties = {name: value.value for name, value in reply.body[0].items()}
        on_air = adverts.build(properties, self._behaviour)
        if adapter.discovering and not on_air.connectable and not self._behaviour.broadcasts_while_scanning:
            raise RefusedAdvert("Failed to register advertisement")
        if adapter.powered:
            registered.address = adapter.address if on_air.connectable else random_address()
            registered.on_air = on_air

    def unregister(self, adapter: Adapter, client: str, path: str) -> None:
        """UnregisterAdvertisement."""
        if (adapter.path, client, path) in self._registering:
            self.violations.append(f"{path} is unregistered while it is being registered")
        if self._registered.pop((adapter.path, client, path), None) is None:
            raise bluez_error("DoesNotExist", "Does Not Exist")
        self._announce(adapter.path)

    def client_left(self, client: str) -> None:
        """A client left the bus: its advertisements are gone."""
        gone = [key for key in self._registered if key[1] == client]
        for key in gone:
            if key in self._registering:
                self.violations.append(f"the owner of {key[2]} leaves while it is being registered")
            del self._registered[key]
        for adapter in {key[0] for key in gone}:
            self._announce(adapter)

    def adapter_down(self, adapter: Adapter) -> None:
        """The adapter went off: registrations stay, but few are ever sent again, and no Release is called."""
        if self._behaviour.adverts_survive_power:
            return
        for key, registered in self._registered.items():
            if key[0] == adapter.path:
                registered.on_air = None

    def adapter_gone(self, adapter: Adapter) -> None:
        """The adapter was removed: each advertisement is released."""
        for key in [key for key in self._registered if key[0] == adapter.path]:
            del self._registered[key]
            self._signals.tell(key[1], key[2], ADVERTISEMENT, "Release")

    def forget_all(self) -> None:
        """BlueZ ends: nothing is registered any more."""
        self._registered.clear()

    def _announce(self, adapter: str) -> None:
        self._signals.changed(adapter, ADVERTISING_MANAGER, self.instances(adapter))
