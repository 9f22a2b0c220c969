"""What BlueZ does when it advertises, one test a fact. Our advertiser is built on these."""

from __future__ import annotations

import contextlib
import os

import pytest
from dbus_fast import DBusError, Message, MessageType, Variant

from tests.radio.bench import ADAPTER, FIDO, MANAGER, Radio, properties, system_bus

pytestmark = pytest.mark.radio

FAILED = "org.bluez.Error.Failed"


async def refusal(radio: Radio, path: str, adapter: str | None = None) -> tuple[str, str]:
    """Name and text of the error with which BlueZ refuses an advertisement."""
    with pytest.raises(DBusError) as caught:
        await radio.register(path, adapter)
    return caught.value.type, caught.value.text


async def test_fact_7_a_broadcast_has_a_random_address(radio: Radio) -> None:
    data = os.urandom(20)
    async with radio.bleak() as heard, radio.advert(data, kind="broadcast"):
        device, _ = await heard.wait_for(data)
    assert device.details["props"]["AddressType"] == "random"
    assert int(device.address[:2], 16) < 0x40  # non-resolvable
    assert device.address != await radio.get(radio.phone, ADAPTER, "Address")


async def test_fact_7_a_peripheral_has_the_adapters_address(radio: Radio) -> None:
    data = os.urandom(20)
    async with radio.bleak() as heard, radio.advert(data, kind="peripheral"):
        device, _ = await heard.wait_for(data)
    assert device.details["props"]["AddressType"] == "public"
    assert device.address == await radio.get(radio.phone, ADAPTER, "Address")


async def test_fact_7_the_uuid_may_be_short(radio: Radio) -> None:
    data = os.urandom(20)
    async with radio.bleak() as heard, radio.advert(data, uuid="fff9"):
        _, advert = await heard.wait_for(data)
    assert list(advert.service_data) == [FIDO]


@pytest.mark.parametrize(("size", "listed"), [(20, True), (23, True), (27, False)])
async def test_fact_8_what_fits_is_heard(radio: Radio, size: int, listed: bool) -> None:
    data = os.urandom(size)
    async with radio.bleak() as heard, radio.advert(data, listed=listed):
        _, advert = await heard.wait_for(data)
    # newer BlueZ tells the UUID of service data as well, and yet does not count it when it filters (fact 1)
    assert advert.service_uuids == ([FIDO] if listed or radio.bluez == "5.82" else [])


@pytest.mark.parametrize(
    ("size", "listed", "text"),
    [
        (24, True, "Failed to register advertisement"),
        (28, False, "Failed to parse advertisement."),
        (40, False, "Failed to parse advertisement."),
    ],
)
async def test_fact_8_what_does_not_fit_is_refused_or_goes_out_extended(
    radio: Radio, size: int, listed: bool, text: str
) -> None:
    with radio.exported(properties(os.urandom(size), listed=listed)) as path:
        if radio.legacy:
            name, told = await refusal(radio, path)
            assert name == FAILED
            if radio.bluez == "5.66":
                assert told == text
        else:
            await radio.register(path)
            await radio.unregister(path)


async def test_fact_9_the_same_path_again_already_exists(radio: Radio) -> None:
    async with radio.advert(os.urandom(20)) as path:
        assert (await refusal(radio, path))[0] == "org.bluez.Error.AlreadyExists"


async def test_fact_9_one_too_many_is_not_permitted(radio: Radio) -> None:
    free = await radio.get(radio.phone, MANAGER, "SupportedInstances")
    assert free == 3 or radio.controller == "le-only"
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(free):
            await stack.enter_async_context(radio.advert(os.urandom(20)))
        assert await radio.get(radio.phone, MANAGER, "SupportedInstances") == 0
        with radio.exported(properties(os.urandom(20))) as path:
            assert await refusal(radio, path) == (
                "org.bluez.Error.NotPermitted",
                "Maximum advertisements reached",
            )


async def test_fact_9_an_unknown_type_fails(radio: Radio) -> None:
    with radio.exported(properties(os.urandom(20), kind="nonsense")) as path:
        assert (await refusal(radio, path))[0] == FAILED


async def test_fact_9_an_adapter_that_is_off_fails(radio: Radio) -> None:
    await radio.power(radio.phone, False)
    with radio.exported(properties(os.urandom(20))) as path:
        assert (await refusal(radio, path))[0] == FAILED


async def test_fact_9_an_le_only_adapter_that_scans_fails(radio: Radio) -> None:
    async with radio.bleak(adapter=radio.phone):
        with radio.exported(properties(os.urandom(20))) as path:
            if radio.controller == "le-only":
                assert await refusal(radio, path) == (FAILED, "Failed to register advertisement")
            else:
                await radio.register(path)
                await radio.unregister(path)


async def test_fact_9_unregistering_the_unknown_does_not_exist(radio: Radio) -> None:
    with pytest.raises(DBusError) as caught:
        await radio.unregister("/radiotest/nothing")
    assert caught.value.type == "org.bluez.Error.DoesNotExist"


async def test_fact_9_an_unknown_adapter_is_an_unknown_object(radio: Radio) -> None:
    with radio.exported(properties(os.urandom(20))) as path:
        name, _ = await refusal(radio, path, "hci9")
    assert name == "org.freedesktop.DBus.Error.UnknownObject"


async def test_fact_9_the_owner_leaving_the_bus_frees_its_adverts(radio: Radio) -> None:
    async with system_bus() as bus:
        owner = Radio(bus, radio.laptop, radio.phone, radio.bluez, radio.controller, radio.silence)
        with owner.exported(properties(os.urandom(20))) as path:
            await owner.register(path)
            assert await radio.get(radio.phone, MANAGER, "ActiveInstances") == 1
    await radio.becomes(radio.phone, MANAGER, "ActiveInstances", 0)


async def test_fact_9_a_path_without_an_object_is_accepted_and_holds_a_set(radio: Radio) -> None:
    async with system_bus() as bus:
        owner = Radio(bus, radio.laptop, radio.phone, radio.bluez, radio.controller, radio.silence)
        await owner.register("/radiotest/nothing")
        assert await radio.get(radio.phone, MANAGER, "ActiveInstances") == 1


async def test_fact_10_after_off_and_on_a_registered_advert_is_on_the_air_of_le_only_adapters_only(
    radio: Radio,
) -> None:
    lost, anew = os.urandom(20), os.urandom(20)
    async with radio.advert(lost) as path:
        await radio.power(radio.phone, False)
        await radio.power(radio.phone, True)
        async with radio.bleak() as heard:
            if radio.controller == "le-only":
                await heard.wait_for(lost)
            else:
                async with radio.advert(anew):
                    await heard.wait_for(anew)
                assert lost not in heard.data
        await radio.unregister(path)  # BlueZ still has it in its books


async def test_fact_10_changed_properties_change_the_running_advert(radio: Radio) -> None:
    before, after = os.urandom(20), os.urandom(20)
    told = properties(before)
    async with radio.bleak() as heard:
        with radio.exported(told) as path:
            await radio.register(path)
            first, _ = await heard.wait_for(before)
            told["ServiceData"] = properties(after)["ServiceData"]
            await announce(radio, path, told["ServiceData"])
            second, _ = await heard.wait_for(after)
            await radio.unregister(path)
    assert first.address != second.address


async def announce(radio: Radio, path: str, service_data: Variant) -> None:
    """Emit PropertiesChanged of an exported advertisement."""
    await radio.bus.send(
        Message(
            message_type=MessageType.SIGNAL,
            path=path,
            interface="org.freedesktop.DBus.Properties",
            member="PropertiesChanged",
            signature="sa{sv}as",
            body=["org.bluez.LEAdvertisement1", {"ServiceData": service_data}, []],
        )
    )
