"""``org.bluez`` on the bus: takes the method calls, and joins adapters, discovery, advertising and devices.

Source: the BlueZ D-Bus API. What each part does is in its own module; the time is `air`'s.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from dbus_fast import DBusError, Message, MessageType, NameFlag, Variant
from dbus_fast.aio import MessageBus

from hybrid.testing.virtual_bluez import adverts, introspection
from hybrid.testing.virtual_bluez.adapter import Adapter
from hybrid.testing.virtual_bluez.advertising import Advertising, Registered
from hybrid.testing.virtual_bluez.behaviour import Behaviour
from hybrid.testing.virtual_bluez.devices import Devices
from hybrid.testing.virtual_bluez.discovery import Discovery, Monitors
from hybrid.testing.virtual_bluez.names import (
    ADAPTER,
    ADVERTISEMENT,
    ADVERTISING_MANAGER,
    AGENT_MANAGER,
    BLUEZ,
    BUS,
    DEVICE,
    GATT_MANAGER,
    INTROSPECTABLE,
    MONITOR_MANAGER,
    OBJECT_MANAGER,
    PROFILE_MANAGER,
    PROPERTIES,
    ROOT,
    Interfaces,
    bus_error,
)
from hybrid.testing.virtual_bluez.outbox import Outbox, to_bus
from hybrid.testing.virtual_bluez.signals import Signals

HANG = "hang"
MAX_CALLS_KEPT = 1000

Answer = tuple[str, list[Any]]
"""Signature and values of a reply."""

_NOTHING: Answer = ("", [])

# Accepted and without effect: programs that pair or offer services want to see them before they believe in BlueZ.
_WITHOUT_EFFECT = {
    f"{AGENT_MANAGER}.RegisterAgent",
    f"{AGENT_MANAGER}.RequestDefaultAgent",
    f"{AGENT_MANAGER}.UnregisterAgent",
    f"{PROFILE_MANAGER}.RegisterProfile",
    f"{PROFILE_MANAGER}.UnregisterProfile",
    f"{GATT_MANAGER}.RegisterApplication",
    f"{GATT_MANAGER}.UnregisterApplication",
}

_SIGNALS_WANTED = (
    f"type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged'",
    f"type='signal',interface='{OBJECT_MANAGER}'",
    f"type='signal',interface='{PROPERTIES}',arg0='{ADVERTISEMENT}'",
)


class Service:
    """The virtual BlueZ itself."""

    def __init__(self, bus: MessageBus, outbox: Outbox, behaviour: Behaviour, adapters: int) -> None:
        self._bus = bus
        self._outbox = outbox
        self._signals = Signals(outbox)
        self.behaviour = behaviour
        self.adapters: dict[str, Adapter] = {}
        self.devices = Devices(behaviour, self._signals)
        self.discovery = Discovery(behaviour, self.devices)
        self.monitors = Monitors(behaviour, self._signals)
        self.advertising = Advertising(outbox, behaviour, self._signals)
        self.calls: deque[str] = deque(maxlen=MAX_CALLS_KEPT)
        self.denied: set[str] = set()
        self.deny_all = False
        self.failing: dict[str, tuple[str, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        for number in range(adapters):
            adapter = Adapter(f"hci{number}", self._signals)
            self.adapters[adapter.path] = adapter

    async def start(self) -> None:
        """Hear what is needed, then take the name: whoever sees the name sees everything."""
        self._bus.add_message_handler(self._on_message)
        for rule in _SIGNALS_WANTED:
            await self._outbox.call(to_bus("AddMatch", "s", rule))
        await self.own_name(True)

    async def stop(self) -> None:
        """End what is still being answered."""
        self._bus.remove_message_handler(self._on_message)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def own_name(self, on: bool) -> None:
        """Be ``org.bluez`` on the bus, or stop being it."""
        if on:
            await self._outbox.call(to_bus("RequestName", "su", BLUEZ, NameFlag.DO_NOT_QUEUE.value))
        else:
            self.advertising.forget_all()
            for adapter in self.adapters.values():
                self.discovery.adapter_down(adapter)
            await self._outbox.call(to_bus("ReleaseName", "s", BLUEZ))

    # --- adapters -----------------------------------------------------------------------------------------------

    def adapter(self, name: str) -> Adapter:
        """Raises `KeyError` for a name that is not there."""
        return self.adapters[f"{ROOT}/{name}"]

    def interfaces(self, adapter: Adapter) -> Interfaces:
        """Everything about one adapter, for GetManagedObjects and InterfacesAdded."""
        return {
            ADAPTER: adapter.properties(),
            ADVERTISING_MANAGER: self.advertising.properties(adapter.path),
            MONITOR_MANAGER: {
                "SupportedMonitorTypes": Variant("as", ["or_patterns"]),
                "SupportedFeatures": Variant("as", []),
            },
            GATT_MANAGER: {},
        }

    def add_adapter(self, name: str) -> None:
        """Plug an adapter in, switched on."""
        adapter = Adapter(name, self._signals)
        if adapter.path in self.adapters:
            raise ValueError(f"there is an adapter {name} already")
        self.adapters[adapter.path] = adapter
        self._signals.added(adapter.path, self.interfaces(adapter))

    def remove_adapter(self, name: str) -> None:
        """Unplug an adapter."""
        adapter = self.adapter(name)
        self.power(adapter, False)
        self.advertising.adapter_gone(adapter)
        self.monitors.adapter_gone(adapter)
        self.devices.drop_adapter(adapter.path)
        del self.adapters[adapter.path]
        self._signals.removed(adapter.path, self.interfaces(adapter))

    def power(self, adapter: Adapter, on: bool) -> None:
        """Switch an adapter on or off."""
        if not on and adapter.powered:
            self.advertising.adapter_down(adapter)
            self.discovery.adapter_down(adapter)
        adapter.change("Powered", on)

    # --- the air ------------------------------------------------------------------------------------------------

    def hear(self, adapter: Adapter, address: str, address_type: str, ad: bytes, rssi: int) -> None:
        """An advert reaches an adapter."""
        if not adapter.powered or (len(ad) > adverts.LEGACY_SIZE and not self.behaviour.hears_extended):
            return
        content = adverts.parse(ad)
        duplicates = self.discovery.accepts(adapter, content, rssi)
        monitors = self.monitors.interested(adapter, content)
        if duplicates is None and not monitors:
            return
        now = asyncio.get_running_loop().time()
        device = self.devices.hear(adapter.path, address, address_type, content, rssi, now, duplicates=bool(duplicates))
        for client, path in monitors:
            self.monitors.found(client, path, device)

    def on_air(self) -> Iterator[tuple[str, Registered, adverts.OnAir]]:
        """Path of the adapter, registration and content of everything that is being sent now."""
        for sender, registered, on_air in self.advertising.on_air():
            if self.adapters[sender].powered:
                yield sender, registered, on_air

    def send(self, sender: str, registered: Registered, on_air: adverts.OnAir, rssi: int) -> None:
        """An adapter's advert reaches all the others."""
        address_type = "public" if on_air.connectable else "random"
        for adapter in self.adapters.values():
            if adapter.path != sender:
                self.hear(adapter, registered.address, address_type, on_air.ad, rssi)

    # --- messages -----------------------------------------------------------------------------------------------

    def _on_message(self, message: Message) -> bool:
        if message.message_type is MessageType.SIGNAL:
            self._on_signal(message)
            return False
        if self._outbox.take_answer(message):
            return True
        if message.message_type is not MessageType.METHOD_CALL or message.interface not in _ANSWERED:
            return False
        self.calls.append(f"{message.path} {message.interface}.{message.member}")
        try:
            if self._intercepted(message):
                return True
            answer = self._dispatch(message)
        except DBusError as error:
            self._outbox.put(Message.new_error(message, error.type, error.text))
            return True
        if isinstance(answer, tuple):
            self._outbox.put(Message.new_method_return(message, *answer))
        else:
            self._start(self._answer_later(message, answer))
        return True

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_later(self, message: Message, answer: Coroutine[Any, Any, Answer]) -> None:
        try:
            signature, values = await answer
            self._outbox.put(Message.new_method_return(message, signature, values))
        except DBusError as error:
            self._outbox.put(Message.new_error(message, error.type, error.text))

    def _intercepted(self, message: Message) -> bool:
        """Play the faults that a test asked for. True: never answer."""
        if self.deny_all or message.member in self.denied:
            raise bus_error("AccessDenied", f"the bus does not let you call {message.interface}.{message.member}")
        error, text = self.failing.pop(message.member or "", ("", ""))
        if error and error != HANG:
            raise DBusError(error if "." in error else f"org.bluez.Error.{error}", text)
        return error == HANG

    def _dispatch(self, message: Message) -> Answer | Coroutine[Any, Any, Answer]:
        path, method = message.path or "", f"{message.interface}.{message.member}"
        if method == f"{OBJECT_MANAGER}.GetManagedObjects" and path == "/":
            return "a{oa{sa{sv}}}", [self._objects()]
        if message.interface == PROPERTIES:
            return self._properties(message)
        if method == f"{INTROSPECTABLE}.Introspect":
            return self._introspect(path)
        if method in _WITHOUT_EFFECT:
            return _NOTHING
        adapter = self.adapters.get(path)
        handler = _METHODS.get(method)
        if adapter is None or handler is None:
            kind = "UnknownObject" if path not in (*self.adapters, "/", ROOT) else "UnknownMethod"
            described = f'Method "{message.member}" with signature "{message.signature}"'
            raise bus_error(kind, f'{described} on interface "{message.interface}" doesn\'t exist')
        return handler(self, adapter, message)

    def _objects(self) -> dict[str, Interfaces]:
        objects: dict[str, Interfaces] = {ROOT: {AGENT_MANAGER: {}, PROFILE_MANAGER: {}}}
        objects |= {adapter.path: self.interfaces(adapter) for adapter in self.adapters.values()}
        return objects | self.devices.objects()

    def _introspect(self, path: str) -> Answer:
        objects: dict[str, Interfaces] = {"/": {OBJECT_MANAGER: {}}}
        described = introspection.describe(path, objects | self._objects())
        if described is None:
            raise bus_error("UnknownObject", f"there is no object {path}")
        return "s", [described]

    def _properties(self, message: Message) -> Answer:
        path = message.path or ""
        adapter = self.adapters.get(path)
        if adapter is not None:
            interfaces = self.interfaces(adapter)
        elif path in self.devices:
            interfaces = self.devices.properties(path)
        else:
            raise bus_error("UnknownObject", f"there is no object {path}")
        interface = message.body[0]
        if interface not in interfaces:
            raise bus_error("InvalidArgs", f"No such interface '{interface}'")
        if message.member == "GetAll":
            return "a{sv}", [interfaces[interface]]
        name = message.body[1]
        if name not in interfaces[interface]:
            raise bus_error("InvalidArgs", f"No such property '{name}'")
        if message.member == "Get":
            return "v", [interfaces[interface][name]]
        if adapter is None or interface != ADAPTER:
            raise bus_error("PropertyReadOnly", f"property '{name}' cannot be set")
        value: Variant = message.body[2]
        adapter.check_writable(name, value)
        if name == "Powered":
            self.power(adapter, value.value)
        else:
            adapter.change(name, value.value)
        return _NOTHING

    def _on_signal(self, message: Message) -> None:
        if message.member == "NameOwnerChanged" and message.sender == BUS:
            name, _, owner = message.body
            if not owner:
                self.advertising.client_left(name)
                self.monitors.client_left(name)
                for adapter in self.adapters.values():
                    self.discovery.client_left(adapter, name)
        elif message.sender == self._bus.unique_name:
            return
        elif message.interface == OBJECT_MANAGER:
            self.monitors.objects_changed(message)
        elif message.interface == PROPERTIES:
            for adapter in self.adapters.values():
                self._start(self.advertising.refresh(adapter, message.sender or "", message.path or ""))

    # --- methods of an adapter ----------------------------------------------------------------------------------

    def _set_discovery_filter(self, adapter: Adapter, message: Message) -> Answer:
        self.discovery.set_filter(adapter, message.sender or "", message.body[0])
        return _NOTHING

    def _start_discovery(self, adapter: Adapter, message: Message) -> Answer:
        self.discovery.start(adapter, message.sender or "")
        return _NOTHING

    def _stop_discovery(self, adapter: Adapter, message: Message) -> Answer:
        self.discovery.stop(adapter, message.sender or "")
        return _NOTHING

    def _get_discovery_filters(self, adapter: Adapter, message: Message) -> Answer:
        return "as", [["UUIDs", "RSSI", "Pathloss", "Transport", "DuplicateData", "Discoverable", "Pattern"]]

    def _remove_device(self, adapter: Adapter, message: Message) -> Answer:
        self.devices.drop(message.body[0])
        return _NOTHING

    async def _register_advertisement(self, adapter: Adapter, message: Message) -> Answer:
        await self.advertising.register(adapter, message.sender or "", message.body[0])
        return _NOTHING

    def _unregister_advertisement(self, adapter: Adapter, message: Message) -> Answer:
        self.advertising.unregister(adapter, message.sender or "", message.body[0])
        return _NOTHING

    def _register_monitor(self, adapter: Adapter, message: Message) -> Answer:
        self.monitors.register(adapter, message.sender or "", message.body[0])
        return _NOTHING

    def _unregister_monitor(self, adapter: Adapter, message: Message) -> Answer:
        self.monitors.unregister(adapter, message.sender or "", message.body[0])
        return _NOTHING


_Handler = Callable[[Service, Adapter, Message], Answer | Coroutine[Any, Any, Answer]]

_METHODS: dict[str, _Handler] = {
    f"{ADAPTER}.SetDiscoveryFilter": Service._set_discovery_filter,
    f"{ADAPTER}.StartDiscovery": Service._start_discovery,
    f"{ADAPTER}.StopDiscovery": Service._stop_discovery,
    f"{ADAPTER}.GetDiscoveryFilters": Service._get_discovery_filters,
    f"{ADAPTER}.RemoveDevice": Service._remove_device,
    f"{ADVERTISING_MANAGER}.RegisterAdvertisement": Service._register_advertisement,
    f"{ADVERTISING_MANAGER}.UnregisterAdvertisement": Service._unregister_advertisement,
    f"{MONITOR_MANAGER}.RegisterMonitor": Service._register_monitor,
    f"{MONITOR_MANAGER}.UnregisterMonitor": Service._unregister_monitor,
}

_ANSWERED = {
    INTROSPECTABLE,
    OBJECT_MANAGER,
    PROPERTIES,
    ADAPTER,
    DEVICE,
    ADVERTISING_MANAGER,
    MONITOR_MANAGER,
    GATT_MANAGER,
    AGENT_MANAGER,
    PROFILE_MANAGER,
}
