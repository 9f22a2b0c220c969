"""Our scanner and our advertiser on a BlueZ, each against the other and against plain ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import pytest
from dbus_fast import DBusError

from hybrid.adapters.bleak_scanner import BluetoothScanner
from hybrid.adapters.bluez_advertiser import BluezAdvertiser
from hybrid.errors import BluetoothProblem, BluetoothUnavailable
from hybrid.events import Proximity
from hybrid.ports import Advert, Advertiser, Scanner
from tests.radio.bench import ADAPTER, FIDO, MANAGER, OLD_FIDO, WITHIN, Radio

pytestmark = pytest.mark.radio


async def first_with(adverts: AsyncIterator[Advert], data: bytes) -> Advert:
    async with asyncio.timeout(WITHIN):
        async for advert in adverts:
            if advert.data == data:
                return advert
    raise AssertionError("the iterator ended by itself")


def ports(radio: Radio) -> tuple[Scanner, Advertiser]:
    return BluetoothScanner(radio.laptop), BluezAdvertiser(radio.phone)


@pytest.mark.parametrize("connectable", [False, True])
@pytest.mark.parametrize("size", [20, 27])
async def test_the_scanner_hears_byte_for_byte_what_the_advertiser_sends(
    radio: Radio, size: int, connectable: bool
) -> None:
    scanner, advertiser = ports(radio)
    data = os.urandom(size)
    async with scanner.scan() as adverts, advertiser.advertise(data, connectable=connectable):
        advert = await first_with(adverts, data)
    assert advert.adapter == radio.laptop
    assert advert.address_type == ("public" if connectable else "random")
    assert (advert.address == await radio.get(radio.phone, ADAPTER, "Address")) is connectable
    assert scanner.proximity == advertiser.proximity == Proximity.BLUETOOTH


async def test_an_advert_that_was_there_first_is_heard(radio: Radio) -> None:
    scanner, advertiser = ports(radio)
    data = os.urandom(20)
    async with advertiser.advertise(data), scanner.scan() as adverts:
        await first_with(adverts, data)


async def test_the_uuid_is_listed_for_those_who_filter(radio: Radio) -> None:
    data = os.urandom(20)
    async with radio.bleak(uuids=[FIDO]) as heard, BluezAdvertiser(radio.phone).advertise(data):
        await heard.wait_for(data)


async def test_the_old_uuid_is_sent_for_phones_that_do(radio: Radio) -> None:
    data = os.urandom(20)
    advertising = BluezAdvertiser(radio.phone).advertise(data, service_uuid=OLD_FIDO)
    async with radio.bleak(uuids=[OLD_FIDO]) as heard, advertising:
        await heard.wait_for(data, uuid=OLD_FIDO)


async def test_the_old_uuid_is_heard(radio: Radio) -> None:
    data = os.urandom(20)
    async with BluetoothScanner(radio.laptop).scan() as adverts, radio.advert(data, uuid=OLD_FIDO):
        await first_with(adverts, data)


async def test_each_data_is_given_once(radio: Radio) -> None:
    first, second = os.urandom(20), os.urandom(20)
    given = []
    async with BluetoothScanner(radio.laptop).scan() as adverts, radio.advert(first):
        given.append(await first_with(adverts, first))
        async with radio.advert(second), asyncio.timeout(WITHIN):
            given.append(await anext(adverts))
    assert [advert.data for advert in given] == [first, second]


async def test_two_scans_one_after_the_other(radio: Radio) -> None:
    data = os.urandom(20)
    async with BluezAdvertiser(radio.phone).advertise(data):
        for _ in range(2):
            async with BluetoothScanner(radio.laptop).scan() as adverts:
                await first_with(adverts, data)


async def test_leaving_takes_scan_and_advert_away(radio: Radio) -> None:
    scanner, advertiser = ports(radio)
    async with scanner.scan(), advertiser.advertise(os.urandom(20)):
        assert await radio.get(radio.laptop, ADAPTER, "Discovering")
        assert await radio.get(radio.phone, MANAGER, "ActiveInstances") == 1
    assert not await radio.get(radio.phone, MANAGER, "ActiveInstances")
    await radio.becomes(radio.laptop, ADAPTER, "Discovering", False)


async def test_switched_off_in_mid_scan_says_so_and_leaves_quietly(radio: Radio) -> None:
    async with BluetoothScanner(radio.laptop).scan() as adverts:
        await radio.power(radio.laptop, False)
        with pytest.raises(BluetoothUnavailable) as caught:
            async with asyncio.timeout(WITHIN):
                await anext(adverts)
    assert caught.value.reason is BluetoothProblem.OFF


async def test_switched_off_and_on_in_mid_scan_says_so_and_the_next_scan_works(radio: Radio) -> None:
    scanner, advertiser = ports(radio)
    data = os.urandom(20)
    async with scanner.scan() as adverts:
        await radio.power(radio.laptop, False)
        await radio.power(radio.laptop, True)
        with pytest.raises(BluetoothUnavailable) as caught:
            async with asyncio.timeout(WITHIN):
                await anext(adverts)
        assert caught.value.reason is BluetoothProblem.OFF
    async with scanner.scan() as adverts, advertiser.advertise(data):
        await first_with(adverts, data)


async def test_switched_off_and_on_in_mid_advert_it_is_on_the_air_again(radio: Radio) -> None:
    data = os.urandom(20)
    async with BluezAdvertiser(radio.phone).advertise(data):
        await radio.power(radio.phone, False)
        await radio.power(radio.phone, True)
        async with BluetoothScanner(radio.laptop).scan() as adverts:
            await first_with(adverts, data)
    assert not await radio.get(radio.phone, MANAGER, "ActiveInstances")


async def test_switched_off_in_mid_advert_leaves_quietly(radio: Radio) -> None:
    async with BluezAdvertiser(radio.phone).advertise(os.urandom(20)):
        await radio.power(radio.phone, False)
    await radio.power(radio.phone, True)
    assert not await radio.get(radio.phone, MANAGER, "ActiveInstances")


@pytest.mark.parametrize("port", ["scanner", "advertiser"])
async def test_an_unknown_adapter_is_no_adapter(radio: Radio, port: str) -> None:
    assert await reason_not_to(port, "hci9") is BluetoothProblem.NO_ADAPTER


@pytest.mark.parametrize("port", ["scanner", "advertiser"])
async def test_an_adapter_that_is_off_is_off(radio: Radio, port: str) -> None:
    await radio.power(radio.laptop, False)
    assert await reason_not_to(port, radio.laptop) is BluetoothProblem.OFF


@pytest.mark.parametrize("port", ["scanner", "advertiser"])
async def test_all_adapters_off_is_off(radio: Radio, port: str) -> None:
    await radio.power(radio.laptop, False)
    await radio.power(radio.phone, False)
    assert await reason_not_to(port, None) is BluetoothProblem.OFF


async def test_without_a_name_an_adapter_that_is_on_is_taken(radio: Radio) -> None:
    await radio.power(radio.laptop, False)
    async with BluetoothScanner().scan():
        assert await radio.get(radio.phone, ADAPTER, "Discovering")
    await radio.becomes(radio.phone, ADAPTER, "Discovering", False)
    async with BluezAdvertiser().advertise(os.urandom(20)):
        assert await radio.get(radio.phone, MANAGER, "ActiveInstances") == 1


async def test_without_names_laptop_and_phone_take_different_adapters(radio: Radio) -> None:
    data = os.urandom(20)
    async with BluetoothScanner().scan() as adverts, BluezAdvertiser().advertise(data):
        async with asyncio.timeout(WITHIN):
            assert (await anext(adverts)).data == data


async def test_no_free_set_is_no_advertising(radio: Radio) -> None:
    async with contextlib.AsyncExitStack() as stack:
        with contextlib.suppress(DBusError):
            for _ in range(12):
                await stack.enter_async_context(radio.advert(os.urandom(20)))
        assert await reason_not_to("advertiser", radio.phone) is BluetoothProblem.NO_ADVERTISING


async def reason_not_to(port: str, adapter: str | None) -> BluetoothProblem:
    """Why a port cannot be used."""
    context = BluetoothScanner(adapter).scan() if port == "scanner" else BluezAdvertiser(adapter).advertise(bytes(20))
    with pytest.raises(BluetoothUnavailable) as caught:
        async with context:
            pass
    return caught.value.reason


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8, 13, 21])
async def test_cancelled_at_any_await_nothing_stays(radio: Radio, turns: int) -> None:
    scanner, advertiser = ports(radio)

    async def both() -> None:
        async with scanner.scan(), advertiser.advertise(os.urandom(20)):
            await asyncio.Event().wait()

    task = asyncio.create_task(both())
    for _ in range(turns):
        await asyncio.sleep(0.002)  # the moment of the cancel
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await radio.becomes(radio.phone, MANAGER, "ActiveInstances", 0)
    await radio.becomes(radio.laptop, ADAPTER, "Discovering", False)
