"""What only a virtual BlueZ can be made to do: faults, hot plug, floods. Not marked radio: the VM leaves these out."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dbus_fast import BusType, DBusError
from dbus_fast.aio import MessageBus
from dbus_fast.introspection import Node

from hybrid.adapters import bleak_scanner, bluez_advertiser, bluez_bus
from hybrid.adapters.bleak_scanner import BluetoothScanner
from hybrid.adapters.bluez_advertiser import BluezAdvertiser
from hybrid.errors import BluetoothProblem, BluetoothUnavailable
from hybrid.ports import Advert
from hybrid.testing.virtual_bluez import HANG, VirtualBluez, service_data_ad, virtual_bluez
from tests.radio.bench import WITHIN

CALLS = ["GetManagedObjects", "Get", "SetDiscoveryFilter", "StartDiscovery"]


async def reason_not_to_scan(adapter: str | None = "hci0") -> BluetoothProblem:
    with pytest.raises(BluetoothUnavailable) as caught:
        async with BluetoothScanner(adapter).scan():
            pass
    return caught.value.reason


async def reason_not_to_advertise(adapter: str | None = "hci1") -> BluetoothProblem:
    with pytest.raises(BluetoothUnavailable) as caught:
        async with BluezAdvertiser(adapter).advertise(bytes(20)):
            pass
    return caught.value.reason


async def reason_scan_ended(adverts: AsyncIterator[Advert]) -> BluetoothProblem:
    with pytest.raises(BluetoothUnavailable) as caught:
        async with asyncio.timeout(WITHIN):
            await anext(adverts)
    return caught.value.reason


async def wait_until_on_air(virtual: VirtualBluez, adapter: str) -> None:
    async with asyncio.timeout(WITHIN):
        while True:
            if virtual.on_air(adapter):
                return
            await asyncio.sleep(0.01)  # the air does not tell


async def wait_until_registering(virtual: VirtualBluez) -> None:
    async with asyncio.timeout(WITHIN):
        while True:
            if any(call.endswith(".RegisterAdvertisement") for call in virtual.calls):
                return
            await asyncio.sleep(0)  # the very next turn: the registration must still be under way


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs short enough for a test that lets them pass."""
    monkeypatch.setattr(bluez_bus, "ANSWER_TIMEOUT", 0.1)
    monkeypatch.setattr(bluez_bus, "GOODBYE_TIMEOUT", 0.1)
    monkeypatch.setattr(bleak_scanner, "START_TIMEOUT", 0.1)
    monkeypatch.setattr(bleak_scanner, "STOP_TIMEOUT", 0.1)
    monkeypatch.setattr(bleak_scanner, "SETTLE_TIMEOUT", 0.1)
    monkeypatch.setattr(bluez_advertiser, "SETTLE_TIMEOUT", 0.1)
    monkeypatch.setattr(bluez_advertiser, "RETRY_AFTER", 0.01)


@pytest.mark.parametrize("member", CALLS)
async def test_a_scan_that_is_not_answered_gives_up(virtual: VirtualBluez, impatient: None, member: str) -> None:
    await virtual.fail_next(member, HANG)
    assert await reason_not_to_scan() is BluetoothProblem.UNKNOWN
    assert not virtual.discovering("hci0")


@pytest.mark.parametrize("member", ["GetManagedObjects", "Get", "RegisterAdvertisement"])
async def test_an_advert_that_is_not_answered_gives_up(virtual: VirtualBluez, impatient: None, member: str) -> None:
    await virtual.fail_next(member, HANG)
    assert await reason_not_to_advertise() is BluetoothProblem.UNKNOWN
    assert virtual.registered("hci1") == 0


async def cancel_in_mid_registration(virtual: VirtualBluez) -> None:
    async def advertise() -> None:
        async with BluezAdvertiser("hci1").advertise(bytes(20)):
            await asyncio.Event().wait()

    task = asyncio.create_task(advertise())
    await wait_until_registering(virtual)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_in_mid_registration_it_waits_for_the_answer(virtual: VirtualBluez) -> None:
    await cancel_in_mid_registration(virtual)
    assert virtual.calls[-1].endswith("UnregisterAdvertisement")
    assert virtual.registered("hci1") == 0
    assert not virtual.violations


async def test_cancelled_in_a_registration_without_an_answer_it_just_leaves(
    virtual: VirtualBluez, impatient: None
) -> None:
    await virtual.fail_next("RegisterAdvertisement", HANG)
    await cancel_in_mid_registration(virtual)
    assert virtual.calls[-1].endswith(".RegisterAdvertisement")


async def test_leaving_is_quiet_though_nobody_answers(virtual: VirtualBluez, impatient: None) -> None:
    async with BluetoothScanner("hci0").scan(), BluezAdvertiser("hci1").advertise(bytes(20)):
        await virtual.fail_next("StopDiscovery", HANG)
        await virtual.fail_next("UnregisterAdvertisement", HANG)
    async with asyncio.timeout(WITHIN):  # the connection is gone, and with it the advert
        while True:
            if virtual.registered("hci1") == 0:
                break
            await asyncio.sleep(0.01)  # the bus does not tell us


@pytest.mark.parametrize("member", CALLS)
async def test_a_scan_that_is_not_allowed_is_denied(virtual: VirtualBluez, member: str) -> None:
    await virtual.deny(member)
    assert await reason_not_to_scan() is BluetoothProblem.DENIED


@pytest.mark.parametrize("member", ["GetManagedObjects", "Get", "RegisterAdvertisement"])
async def test_an_advert_that_is_not_allowed_is_denied(virtual: VirtualBluez, member: str) -> None:
    await virtual.deny(member)
    assert await reason_not_to_advertise() is BluetoothProblem.DENIED


async def test_denied_altogether_and_allowed_again(virtual: VirtualBluez) -> None:
    await virtual.deny()
    assert await reason_not_to_scan() is BluetoothProblem.DENIED
    assert await reason_not_to_advertise() is BluetoothProblem.DENIED
    await virtual.allow()
    async with BluetoothScanner("hci0").scan(), BluezAdvertiser("hci1").advertise(bytes(20)):
        assert virtual.discovering("hci0")


@pytest.mark.parametrize(
    ("error", "text", "reason"),
    [
        ("Failed", "Failed to register advertisement", BluetoothProblem.NO_ADVERTISING),
        ("NotSupported", "", BluetoothProblem.NO_ADVERTISING),
        ("NotPermitted", "Maximum advertisements reached", BluetoothProblem.NO_ADVERTISING),
        ("NotPermitted", "Not Permitted", BluetoothProblem.DENIED),
        ("NotReady", "Resource Not Ready", BluetoothProblem.OFF),
        ("org.freedesktop.DBus.Error.NoReply", "", BluetoothProblem.NO_SERVICE),
    ],
)
async def test_a_refused_advert_says_why(
    virtual: VirtualBluez, error: str, text: str, reason: BluetoothProblem
) -> None:
    await virtual.fail_next("RegisterAdvertisement", error, text)
    assert await reason_not_to_advertise() is reason


async def test_no_service_on_the_bus(virtual: VirtualBluez) -> None:
    await virtual.service(False)
    assert await reason_not_to_scan() is BluetoothProblem.NO_SERVICE
    assert await reason_not_to_advertise() is BluetoothProblem.NO_SERVICE


@pytest.mark.parametrize("address", ["unix:path=/nowhere/bus", "unix:path=/dev/null"])
async def test_no_bus(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    assert await reason_not_to_scan() is BluetoothProblem.NO_SERVICE
    assert await reason_not_to_advertise() is BluetoothProblem.NO_SERVICE


async def test_a_bus_that_says_nothing(monkeypatch: pytest.MonkeyPatch, impatient: None, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "bus"))
        server.listen()
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
        assert await reason_not_to_advertise() is BluetoothProblem.UNKNOWN


async def test_no_adapter_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async with virtual_bluez(adapters=0) as bluez:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bluez.address)
        assert await reason_not_to_scan(None) is BluetoothProblem.NO_ADAPTER
        assert await reason_not_to_advertise(None) is BluetoothProblem.NO_ADAPTER


async def test_unplugged_in_mid_scan(virtual: VirtualBluez) -> None:
    async with BluetoothScanner("hci0").scan() as adverts:
        await virtual.remove_adapter("hci0")
        assert await reason_scan_ended(adverts) in (BluetoothProblem.OFF, BluetoothProblem.NO_ADAPTER)
    assert await reason_not_to_scan() is BluetoothProblem.NO_ADAPTER


async def test_service_gone_in_mid_scan(virtual: VirtualBluez) -> None:
    async with BluetoothScanner("hci0").scan() as adverts:
        await virtual.service(False)
        assert await reason_scan_ended(adverts) is BluetoothProblem.NO_SERVICE


async def test_bus_gone_in_mid_scan_and_mid_advert(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    running = virtual_bluez()
    bluez = await running.__aenter__()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bluez.address)
    async with BluetoothScanner("hci0").scan() as adverts, BluezAdvertiser("hci1").advertise(bytes(20)):
        await running.__aexit__(None, None, None)
        assert await reason_scan_ended(adverts) is BluetoothProblem.NO_SERVICE
    gc.collect()  # "Future exception was never retrieved" comes with it
    assert complaints == []


async def test_unplugged_and_plugged_in_again_in_mid_advert(virtual: VirtualBluez, impatient: None) -> None:
    async with BluezAdvertiser("hci1").advertise(bytes(20)):
        await virtual.remove_adapter("hci1")
        await virtual.add_adapter("hci1")
        await wait_until_on_air(virtual, "hci1")


async def test_service_gone_and_back_in_mid_advert(virtual: VirtualBluez, impatient: None) -> None:
    async with BluezAdvertiser("hci1").advertise(bytes(20)):
        await virtual.service(False)
        assert virtual.on_air("hci1") == []
        await virtual.service(True)
        await virtual.power("hci1", False)
        await virtual.remove_adapter("hci1")
        await virtual.add_adapter("hci1")
        await wait_until_on_air(virtual, "hci1")


async def test_refused_after_off_and_on_it_tries_again(virtual: VirtualBluez, impatient: None) -> None:
    async with BluezAdvertiser("hci1").advertise(bytes(20)):
        await virtual.power("hci1", False)
        await virtual.fail_next("RegisterAdvertisement", "Failed")
        await virtual.power("hci1", True)
        await wait_until_on_air(virtual, "hci1")


async def test_both_uuids_in_one_advert_give_both_the_old_one_first(virtual: VirtualBluez) -> None:
    new, old = service_data_ad(b"n" * 10, "fff9"), service_data_ad(b"o" * 10, "fde2")
    async with BluetoothScanner("hci0").scan() as adverts:
        await virtual.inject("hci0", "11:22:33:44:55:66", new + old, rssi=-40)
        async with asyncio.timeout(WITHIN):
            first, second = await anext(adverts), await anext(adverts)
    assert (first.data, second.data) == (b"o" * 10, b"n" * 10)
    assert first.address == "11:22:33:44:55:66"
    assert first.rssi == -40


async def test_broken_advertising_data_do_no_harm(virtual: VirtualBluez) -> None:
    async with BluetoothScanner("hci0").scan() as adverts:
        for ad in (b"", b"\x00", b"\xff\x16", b"\x02\x16\xf9", b"\x05\x16\xf9\xff", b"\x03\x16\xf9\xff"):
            await virtual.inject("hci0", "11:22:33:44:55:66", ad)
        await virtual.inject("hci0", "11:22:33:44:55:66", service_data_ad(b"x" * 20))
        async with asyncio.timeout(WITHIN):
            heard = [advert.data async for advert in until(adverts, b"x" * 20)]
    assert heard in ([b"x" * 20], [b"", b"x" * 20])


async def until(adverts: AsyncIterator[Advert], data: bytes) -> AsyncIterator[Advert]:
    async for advert in adverts:
        yield advert
        if advert.data == data:
            return


async def test_an_extended_advert_is_not_heard_by_a_legacy_scanner(monkeypatch: pytest.MonkeyPatch) -> None:
    long, short = service_data_ad(b"l" * 40), service_data_ad(b"s" * 20)
    for le_only, expected in ((True, [b"s" * 20]), (False, [b"l" * 40, b"s" * 20])):
        async with virtual_bluez(le_only=le_only) as bluez:
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bluez.address)
            async with BluetoothScanner("hci0").scan() as adverts:
                await bluez.inject("hci0", "11:22:33:44:55:66", long)
                await bluez.inject("hci0", "11:22:33:44:55:67", short)
                async with asyncio.timeout(WITHIN):
                    assert [advert.data async for advert in until(adverts, b"s" * 20)] == expected


async def test_in_a_flood_of_strangers_the_phone_is_found(virtual: VirtualBluez) -> None:
    data = os.urandom(20)
    await virtual.strangers(1000)
    async with BluetoothScanner("hci0").scan() as adverts, asyncio.timeout(WITHIN):
        strangers = [await anext(adverts) for _ in range(100)]
        async with BluezAdvertiser("hci1").advertise(data):
            async for advert in adverts:
                if advert.data == data:
                    break
        await virtual.strangers(0)
    assert len({stranger.address for stranger in strangers}) == 100
    assert {len(stranger.data) for stranger in strangers} == {20}


async def test_the_service_stands_a_burst_when_a_crowded_scan_ends(virtual: VirtualBluez) -> None:
    async with BluetoothScanner("hci0").scan():
        for number in range(600):
            address = f"22:00:00:00:{number >> 8:02X}:{number & 255:02X}"
            await virtual.inject("hci0", address, service_data_ad(number.to_bytes(20, "big")))
    # hundreds of devices lose their signal strength at once, and BlueZ is still there
    async with BluetoothScanner("hci0").scan():
        assert virtual.discovering("hci0")


async def test_fault_injection_spares_the_next_call(virtual: VirtualBluez) -> None:
    await virtual.fail_next("StartDiscovery", "NotReady")
    assert await reason_not_to_scan() is BluetoothProblem.OFF
    async with BluetoothScanner("hci0").scan():
        assert "/org/bluez/hci0 org.bluez.Adapter1.StartDiscovery" in virtual.calls


async def introspected(path: str) -> Node | str:
    """What a program is told that asks before it calls, as dbus-python does; or the name of the error."""
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    try:
        return Node.parse((await bus.introspect("org.bluez", path, WITHIN)).tostring())
    except DBusError as error:
        return error.type
    finally:
        bus.disconnect()


async def test_an_adapter_tells_the_signatures_of_its_methods(virtual: VirtualBluez) -> None:
    node = await introspected("/org/bluez/hci1")
    assert isinstance(node, Node)
    methods = {
        (interface.name, method.name): (method.in_signature, method.out_signature)
        for interface in node.interfaces
        for method in interface.methods
    }
    assert methods["org.bluez.LEAdvertisingManager1", "RegisterAdvertisement"] == ("oa{sv}", "")
    assert methods["org.bluez.Adapter1", "SetDiscoveryFilter"] == ("a{sv}", "")
    assert methods["org.freedesktop.DBus.Properties", "GetAll"] == ("s", "a{sv}")
    properties = {prop.name: prop.signature for interface in node.interfaces for prop in interface.properties}
    assert properties["Powered"] == "b"
    assert properties["SupportedInstances"] == "y"


async def test_introspection_leads_from_the_root_to_each_adapter(virtual: VirtualBluez) -> None:
    children = []
    for path in ("/", "/org", "/org/bluez"):
        node = await introspected(path)
        assert isinstance(node, Node)
        children.append([child.name for child in node.nodes])
    assert children == [["org"], ["bluez"], ["hci0", "hci1"]]
    assert await introspected("/org/bluez/hci7") == "org.freedesktop.DBus.Error.UnknownObject"
