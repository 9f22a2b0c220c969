"""The scanner without a radio: what it keeps, what it gives, how it names failures. With one: ``tests/radio``."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import (
    BleakBluetoothNotAvailableError,
    BleakBluetoothNotAvailableReason,
    BleakDBusError,
    BleakError,
)

from hybrid.adapters.bleak_scanner import (
    MAX_REMEMBERED,
    MAX_WAITING,
    Inbox,
    adverts_in,
    unavailable,
)
from hybrid.errors import BluetoothProblem, BluetoothUnavailable
from hybrid.ports import Advert

FFF9 = "0000fff9-0000-1000-8000-00805f9b34fb"
FDE2 = "0000fde2-0000-1000-8000-00805f9b34fb"


def numbered(number: int) -> Advert:
    return Advert(data=number.to_bytes(20, "big"))


async def waiting(inbox: Inbox) -> list[int]:
    """The adverts that can be read without waiting."""
    numbers = []
    inbox.fail(BluetoothUnavailable("the end of this test", BluetoothProblem.UNKNOWN))
    with contextlib.suppress(BluetoothUnavailable):
        async for advert in inbox:
            numbers.append(int.from_bytes(advert.data, "big"))
    return numbers


async def test_each_data_is_given_once() -> None:
    inbox = Inbox()
    for number in (1, 2, 1, 1, 2, 3):
        inbox.put(numbered(number))
    assert await waiting(inbox) == [1, 2, 3]


async def test_data_heard_before_are_not_given_again_after_reading() -> None:
    inbox = Inbox()
    inbox.put(numbered(1))
    assert await anext(inbox) == numbered(1)
    inbox.put(numbered(1))
    assert await waiting(inbox) == []


async def test_a_reader_who_falls_behind_loses_the_oldest() -> None:
    inbox = Inbox()
    for number in range(MAX_WAITING + 10):
        inbox.put(numbered(number))
    assert await waiting(inbox) == list(range(10, MAX_WAITING + 10))


async def test_lost_data_count_as_new_when_heard_again() -> None:
    inbox = Inbox()
    for number in range(MAX_WAITING + 1):
        inbox.put(numbered(number))
    inbox.put(numbered(0))
    assert await waiting(inbox) == [*range(2, MAX_WAITING + 1), 0]


async def test_memory_is_bounded_and_keeps_what_is_heard_again_and_again() -> None:
    inbox = Inbox()
    inbox.put(numbered(0))
    assert await anext(inbox) == numbered(0)
    for number in range(1, MAX_REMEMBERED * 2):
        inbox.put(numbered(number))
        assert await anext(inbox) == numbered(number)
        if number % 1000 == 0:
            inbox.put(numbered(0))
    assert len(inbox._seen) == MAX_REMEMBERED
    inbox.put(numbered(0))  # still known
    inbox.put(numbered(1))  # long forgotten
    assert await waiting(inbox) == [1]


async def test_a_waiting_reader_is_woken_by_an_advert_and_by_a_failure() -> None:
    inbox = Inbox()
    reader = asyncio.ensure_future(anext(inbox))
    await asyncio.sleep(0)
    inbox.put(numbered(1))
    assert await reader == numbered(1)
    reader = asyncio.ensure_future(anext(inbox))
    await asyncio.sleep(0)
    inbox.fail(None)  # a change that is no problem
    inbox.fail(BluetoothUnavailable("off", BluetoothProblem.OFF))
    inbox.fail(BluetoothUnavailable("later", BluetoothProblem.NO_SERVICE))
    with pytest.raises(BluetoothUnavailable) as caught:
        await reader
    assert caught.value.reason is BluetoothProblem.OFF


def heard(service_data: dict[str, bytes], rssi: int = -50) -> AdvertisementData:
    return AdvertisementData(
        local_name=None,
        manufacturer_data={},
        service_data=service_data,
        service_uuids=[],
        tx_power=None,
        rssi=rssi,
        platform_data=(),
    )


def test_service_data_of_both_uuids_the_old_one_first_and_nothing_else() -> None:
    device = BLEDevice("11:22:33:44:55:66", None, {"props": {"AddressType": "random"}})
    told = heard({FFF9: b"new", FDE2: b"old", "0000180f-0000-1000-8000-00805f9b34fb": b"\x64"})
    old, new = adverts_in(device, told, "hci3")
    assert (old.data, new.data) == (b"old", b"new")
    assert new == Advert(data=b"new", address="11:22:33:44:55:66", address_type="random", adapter="hci3", rssi=-50)


@pytest.mark.parametrize("rssi", [127, -127])
def test_no_measurement_is_no_rssi(rssi: int) -> None:
    (advert,) = adverts_in(BLEDevice("A-UUID", None, None), heard({FFF9: b"x"}, rssi), "")
    assert advert.rssi is None
    assert advert.address_type == ""


REASON = BleakBluetoothNotAvailableReason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "No such file"), BluetoothProblem.NO_SERVICE),
        (ConnectionRefusedError(), BluetoothProblem.NO_SERVICE),
        (EOFError(), BluetoothProblem.NO_SERVICE),
        (PermissionError(), BluetoothProblem.DENIED),
        (TimeoutError(), BluetoothProblem.UNKNOWN),
        (BleakDBusError("org.freedesktop.DBus.Error.ServiceUnknown", ["x"]), BluetoothProblem.NO_SERVICE),
        (BleakDBusError("org.freedesktop.DBus.Error.Spawn.ChildExited", []), BluetoothProblem.NO_SERVICE),
        (BleakDBusError("org.freedesktop.DBus.Error.AccessDenied", ["x"]), BluetoothProblem.DENIED),
        (BleakDBusError("org.bluez.Error.NotPermitted", ["x"]), BluetoothProblem.DENIED),
        (BleakDBusError("org.bluez.Error.NotReady", ["Resource Not Ready"]), BluetoothProblem.OFF),
        (BleakDBusError("org.freedesktop.DBus.Error.UnknownObject", ["x"]), BluetoothProblem.NO_ADAPTER),
        (BleakDBusError("org.bluez.Error.InProgress", ["x"]), BluetoothProblem.UNKNOWN),
        (BleakError("adapter 'hci9' not found"), BluetoothProblem.NO_ADAPTER),
        (BleakError("Unsupported platform: Plan9"), BluetoothProblem.NOT_SUPPORTED),
        (BleakError("something else"), BluetoothProblem.UNKNOWN),
        (BleakBluetoothNotAvailableError("x", REASON.NO_BLUETOOTH), BluetoothProblem.NO_ADAPTER),
        (BleakBluetoothNotAvailableError("x", REASON.NO_BLE_CENTRAL_ROLE), BluetoothProblem.NOT_SUPPORTED),
        (BleakBluetoothNotAvailableError("x", REASON.POWERED_OFF), BluetoothProblem.OFF),
        (BleakBluetoothNotAvailableError("x", REASON.DENIED_BY_USER), BluetoothProblem.DENIED),
        (BleakBluetoothNotAvailableError("x", REASON.DENIED_BY_SYSTEM), BluetoothProblem.DENIED),
        (BleakBluetoothNotAvailableError("x", REASON.DENIED_BY_UNKNOWN), BluetoothProblem.DENIED),
        (BleakBluetoothNotAvailableError("x", REASON.UNKNOWN), BluetoothProblem.UNKNOWN),
        (BluetoothUnavailable("x", BluetoothProblem.OFF), BluetoothProblem.OFF),
    ],
)
def test_every_failure_has_its_reason(error: Exception, reason: BluetoothProblem) -> None:
    assert unavailable(error).reason is reason
    assert "\n" not in str(unavailable(error))
