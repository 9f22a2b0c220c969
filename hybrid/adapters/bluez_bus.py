"""What the two BlueZ adapters share: calls on the system bus with a time limit, the choice of an adapter, and a
watch over it, with every failure told as `BluetoothUnavailable`.

Source: the BlueZ D-Bus API, ``org.bluez.Adapter``. Not an adapter itself: it implements no port. Linux only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dbus_fast import BusType, DBusError, Message, MessageType, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.errors import AuthError, DBusFastError

from hybrid.errors import BluetoothProblem, BluetoothUnavailable

_log = logging.getLogger(__name__)

BLUEZ = "org.bluez"
ADAPTER = "org.bluez.Adapter1"
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
BUS = "org.freedesktop.DBus"

# BlueZ normally answers within milliseconds, but starts a controller for up to some seconds.
ANSWER_TIMEOUT = 10.0
# On the way out nobody waits for an answer that may never come: leaving the bus ends what we had there.
GOODBYE_TIMEOUT = 2.0

_PROBLEM_OF_ERROR = {
    "org.bluez.Error.NotReady": BluetoothProblem.OFF,
    "org.bluez.Error.NotPermitted": BluetoothProblem.DENIED,
    "org.bluez.Error.NotAuthorized": BluetoothProblem.DENIED,
    "org.freedesktop.DBus.Error.AccessDenied": BluetoothProblem.DENIED,
    "org.freedesktop.DBus.Error.AuthFailed": BluetoothProblem.DENIED,
    "org.freedesktop.DBus.Error.UnknownObject": BluetoothProblem.NO_ADAPTER,
    "org.freedesktop.DBus.Error.UnknownMethod": BluetoothProblem.NO_ADAPTER,
    "org.freedesktop.DBus.Error.ServiceUnknown": BluetoothProblem.NO_SERVICE,
    "org.freedesktop.DBus.Error.NameHasNoOwner": BluetoothProblem.NO_SERVICE,
    "org.freedesktop.DBus.Error.NoReply": BluetoothProblem.NO_SERVICE,
    "org.freedesktop.DBus.Error.Disconnected": BluetoothProblem.NO_SERVICE,
}

_SENTENCES = {
    BluetoothProblem.OFF: "Bluetooth is switched off",
    BluetoothProblem.DENIED: "the Bluetooth service does not let this program in",
    BluetoothProblem.NO_SERVICE: "the Bluetooth service does not run",
    BluetoothProblem.NO_ADAPTER: "the Bluetooth adapter is gone",
}

FAILURES = (DBusFastError, OSError, EOFError)
"""Every way a call on the bus can fail; a time-out is an `OSError`."""

Interfaces = dict[str, dict[str, Any]]
"""The interfaces of one D-Bus object with their properties, variants taken off."""


def problem_of_dbus_error(name: str) -> BluetoothProblem:
    """What an error name of BlueZ or of the bus daemon means to a person who wants to use Bluetooth."""
    if name.startswith("org.freedesktop.DBus.Error.Spawn."):
        return BluetoothProblem.NO_SERVICE
    return _PROBLEM_OF_ERROR.get(name, BluetoothProblem.UNKNOWN)


def unavailable(error: Exception) -> BluetoothUnavailable:
    """Turn what the bus or BlueZ said into our own error."""
    match error:
        case BluetoothUnavailable():
            return error
        case DBusError():
            problem = problem_of_dbus_error(error.type)
            told = _SENTENCES.get(problem) or f"the Bluetooth service says {error.type}: {error.text}"
            return BluetoothUnavailable(told, problem)
        case AuthError() | PermissionError():
            return BluetoothUnavailable("the system bus does not let us in", BluetoothProblem.DENIED)
        case TimeoutError():
            return BluetoothUnavailable("the Bluetooth service does not answer", BluetoothProblem.UNKNOWN)
        case OSError() | EOFError():
            return BluetoothUnavailable("there is no system bus", BluetoothProblem.NO_SERVICE)
        case _:
            return BluetoothUnavailable(f"Bluetooth failed: {error}", BluetoothProblem.UNKNOWN)


@contextlib.contextmanager
def failures_as_unavailable() -> Iterator[None]:
    """Turn the failures of bus calls made in this block into `BluetoothUnavailable`."""
    try:
        yield
    except FAILURES as error:
        raise unavailable(error) from error


@dataclass(frozen=True, slots=True)
class SystemBus:
    """An open connection, and a task that is done when it is closed, by whomever."""

    bus: MessageBus
    closed: asyncio.Task[None]


async def _closed(bus: MessageBus) -> None:
    with contextlib.suppress(OSError, EOFError):
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # dbus-fast leaves it so


@contextlib.asynccontextmanager
async def system_bus(address: str | None = None) -> AsyncIterator[SystemBus]:
    """A connection of our own to the system bus, or to the bus at `address`.

    Leaving closes it, and so all that BlueZ does for it.
    """
    with failures_as_unavailable():
        bus = MessageBus(bus_address=address, bus_type=BusType.SYSTEM)
        async with asyncio.timeout(ANSWER_TIMEOUT):
            await bus.connect()
    connection = SystemBus(bus, asyncio.create_task(_closed(bus)))
    try:
        yield connection
    finally:
        bus.disconnect()
        await asyncio.wait({connection.closed}, timeout=GOODBYE_TIMEOUT)


async def request(connection: SystemBus, message: Message) -> Message:
    """Send a method call and give the answer. Raises `DBusError`, `TimeoutError`, `OSError` or `EOFError`."""
    if not connection.bus.connected:
        # dbus-fast would write to the closed socket, and leave the failure in a future that nobody can reach
        raise ConnectionResetError("the connection to the system bus is closed")
    async with asyncio.timeout(ANSWER_TIMEOUT):
        reply: Message | None = await connection.bus.call(message)
    if reply is None:  # the connection was closed under the call
        raise ConnectionResetError("the connection to the system bus is closed")
    if reply.message_type is MessageType.ERROR:
        text = str(reply.body[0]) if reply.body else ""
        raise DBusError(reply.error_name or "org.freedesktop.DBus.Error.Failed", text)
    return reply


async def call(
    connection: SystemBus, path: str, interface: str, member: str, signature: str = "", *body: Any
) -> list[Any]:
    """Call a method of BlueZ and give the answer's values. Raises as `request`."""
    message = Message(
        destination=BLUEZ, path=path, interface=interface, member=member, signature=signature, body=list(body)
    )
    return list((await request(connection, message)).body)


async def set_match(connection: SystemBus, rule: str) -> None:
    """Ask the bus daemon to send us the signals that `rule` describes."""
    await request(
        connection,
        Message(
            destination=BUS,
            path="/org/freedesktop/DBus",
            interface=BUS,
            member="AddMatch",
            signature="s",
            body=[rule],
        ),
    )


class WatchedAdapter:
    """One local adapter and what is known about it now.

    `outages` counts the times that it went off, went away or lost its service: whatever was registered before
    the last outage is not on the air any more, even if the adapter is back.
    """

    def __init__(
        self,
        path: str,
        interfaces: Interfaces,
        owner: str,
        on_change: Callable[[BluetoothUnavailable | None], None],
    ) -> None:
        self.path = path
        self.name = path.rsplit("/", 1)[-1]
        self.outages = 0
        self._owner = owner
        self._present = True
        self._powered = bool(interfaces[ADAPTER].get("Powered"))
        self._on_change = on_change

    @property
    def problem(self) -> BluetoothUnavailable | None:
        """Why the adapter cannot be used now, if so."""
        if not self._owner:
            return BluetoothUnavailable("the Bluetooth service is gone", BluetoothProblem.NO_SERVICE)
        if not self._present:
            return BluetoothUnavailable(f"the adapter {self.name} is gone", BluetoothProblem.NO_ADAPTER)
        if not self._powered:
            return BluetoothUnavailable(f"the adapter {self.name} is switched off", BluetoothProblem.OFF)
        return None

    @property
    def match_rules(self) -> list[str]:
        """The signals that `handle` needs. Exact paths: a crowded room's devices must not wake us."""
        from_bluez = f"type='signal',sender='{BLUEZ}'"
        return [
            f"type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{BLUEZ}'",
            f"{from_bluez},interface='{PROPERTIES}',path='{self.path}',arg0='{ADAPTER}'",
            f"{from_bluez},interface='{OBJECT_MANAGER}',arg0path='{self.path}'",
        ]

    def handle(self, message: Message) -> None:
        """Take note of a signal."""
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.sender == BUS and message.member == "NameOwnerChanged" and message.body[0] == BLUEZ:
            # a new service will announce the adapter again when it has one
            self.update(owner=message.body[2], present=False, powered=False)
        elif message.sender != self._owner:
            return
        elif message.interface == PROPERTIES and message.path == self.path and message.body[0] == ADAPTER:
            powered: Variant | None = message.body[1].get("Powered")
            if powered is not None:
                self.update(powered=powered.value)
        elif message.interface == OBJECT_MANAGER and message.body[0] == self.path:
            if message.member == "InterfacesRemoved" and ADAPTER in message.body[1]:
                self.update(present=False, powered=False)
            elif message.member == "InterfacesAdded" and ADAPTER in message.body[1]:
                self.update(present=True, powered=message.body[1][ADAPTER]["Powered"].value)

    def update(self, *, owner: str | None = None, present: bool | None = None, powered: bool | None = None) -> None:
        """Set what changed, count an outage, tell whoever watches."""
        was_usable = self.problem is None
        self._owner = self._owner if owner is None else owner
        self._present = self._present if present is None else present
        self._powered = self._powered if powered is None else powered
        if was_usable and self.problem is not None:
            self.outages += 1
            _log.debug("%s", self.problem)
        self._on_change(self.problem)


def _by_number(path: str) -> tuple[int, str]:
    digits = re.search(r"\d+$", path)
    return (int(digits[0]) if digits else 0, path)


def _choose(
    adapters: dict[str, Interfaces],
    named: str | None,
    objection: Callable[[Interfaces], BluetoothUnavailable | None],
    from_last: bool,
) -> str:
    """Path of the adapter to use: the named one, or the first or last that is on and that nothing speaks against."""
    if named is not None:
        candidates = [f"/org/bluez/{named}"]
        if candidates[0] not in adapters:
            raise BluetoothUnavailable(f"there is no adapter {named}", BluetoothProblem.NO_ADAPTER)
    else:
        candidates = sorted(adapters, key=_by_number, reverse=from_last)
        if not candidates:
            raise BluetoothUnavailable("there is no Bluetooth adapter", BluetoothProblem.NO_ADAPTER)
    powered = [path for path in candidates if adapters[path][ADAPTER].get("Powered")]
    if not powered:
        what = f"the adapter {named} is" if named is not None else "every adapter is"
        raise BluetoothUnavailable(f"{what} switched off", BluetoothProblem.OFF)
    objections = []
    for path in powered:
        against = objection(adapters[path])
        if against is None:
            return path
        objections.append(against)
    raise objections[0]


def no_objection(interfaces: Interfaces) -> BluetoothUnavailable | None:
    """Any adapter will do."""
    return None


@contextlib.asynccontextmanager
async def watched_adapter(
    connection: SystemBus,
    named: str | None,
    *,
    on_change: Callable[[BluetoothUnavailable | None], None],
    objection: Callable[[Interfaces], BluetoothUnavailable | None] = no_objection,
    from_last: bool = False,
) -> AsyncIterator[WatchedAdapter]:
    """Choose an adapter and know its state while the context is open. `from_last`: the order when none is named.

    `on_change` is called with the problem, if any, whenever something about it may have changed. Entering
    raises `BluetoothUnavailable` if no adapter is there, on, and free of `objection`.
    """
    with failures_as_unavailable():
        listing = await request(
            connection,
            Message(destination=BLUEZ, path="/", interface=OBJECT_MANAGER, member="GetManagedObjects"),
        )
        adapters = {
            path: {
                interface: {name: value.value for name, value in properties.items()}
                for interface, properties in interfaces.items()
            }
            for path, interfaces in listing.body[0].items()
            if ADAPTER in interfaces
        }
        path = _choose(adapters, named, objection, from_last)
        adapter = WatchedAdapter(path, adapters[path], listing.sender or "", on_change)
        connection.bus.add_message_handler(adapter.handle)
        for rule in adapter.match_rules:
            await set_match(connection, rule)
        # it may have been switched off before the bus daemon knew what we want to hear
        (powered,) = await call(connection, path, PROPERTIES, "Get", "ss", ADAPTER, "Powered")
        adapter.update(powered=powered.value)
        if adapter.problem is not None:
            raise adapter.problem

    def lost(_: asyncio.Task[None]) -> None:
        adapter.update(owner="")

    connection.closed.add_done_callback(lost)
    try:
        yield adapter
    finally:
        connection.closed.remove_done_callback(lost)
        connection.bus.remove_message_handler(adapter.handle)
