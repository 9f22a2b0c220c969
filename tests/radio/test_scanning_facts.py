"""What bleak and BlueZ do when they scan, one test a fact. Our scanner is built on these."""

from __future__ import annotations

import asyncio
import os

import pytest
from bleak import BleakScanner
from bleak.args.bluez import BlueZScannerArgs, OrPattern
from bleak.assigned_numbers import AdvertisementDataType
from bleak.exc import BleakDBusError, BleakError

from tests.radio.bench import FIDO, Radio

pytestmark = pytest.mark.radio


async def test_fact_1_a_uuid_filter_never_finds_service_data(radio: Radio) -> None:
    data = os.urandom(20)
    async with radio.advert(data), radio.bleak(uuids=[FIDO]) as heard:
        await radio.others_are_heard(heard)
        assert data not in heard.data


async def test_fact_1_without_a_filter_service_data_is_found(radio: Radio) -> None:
    data = os.urandom(20)
    async with radio.bleak() as heard, radio.advert(data):
        await heard.wait_for(data)


async def test_fact_2_without_duplicates_an_le_only_adapter_on_new_bluez_misses_non_discoverable_adverts(
    radio: Radio,
) -> None:
    data = os.urandom(20)
    async with radio.bleak(duplicates=False) as heard, radio.advert(data):
        if radio.bluez == "5.82" and radio.controller == "le-only":
            await radio.others_are_heard(heard)
            assert data not in heard.data
        else:
            await heard.wait_for(data)


async def test_fact_2_asking_for_duplicates_is_the_cure(radio: Radio) -> None:
    data = os.urandom(20)
    async with radio.bleak(duplicates=True) as heard, radio.advert(data):
        await heard.wait_for(data)
        count = heard.data.count(data)
        async with asyncio.timeout(30):
            while heard.data.count(data) < count + 2:  # and they come
                heard.news.clear()
                await heard.news.wait()


async def test_fact_3_passive_patterns_match_service_data_on_old_bluez_only(radio: Radio) -> None:
    data = os.urandom(20)
    pattern = OrPattern(0, AdvertisementDataType.SERVICE_DATA_UUID16, b"\xf9\xff")
    async with (
        radio.bleak(duplicates=False, scanning_mode="passive", bluez={"or_patterns": [pattern]}) as heard,
        radio.advert(data),
    ):
        if radio.bluez == "5.66":
            await heard.wait_for(data)
        else:
            await asyncio.sleep(radio.silence)  # silence takes time to be heard
            assert data not in heard.data


async def test_fact_4_the_key_is_the_full_uuid_and_the_value_is_bytes(radio: Radio) -> None:
    data = os.urandom(20)
    async with radio.bleak() as heard, radio.advert(data):
        _, advert = await heard.wait_for(data)
        assert advert.service_data == {"0000fff9-0000-1000-8000-00805f9b34fb": data}
        assert type(advert.service_data[FIDO]) is bytes


async def test_fact_4_a_renewed_broadcast_has_a_new_address(radio: Radio) -> None:
    addresses = set()
    async with radio.bleak() as heard:
        for _ in range(2):
            data = os.urandom(20)
            async with radio.advert(data):
                device, _ = await heard.wait_for(data)
                addresses.add(device.address)
    assert len(addresses) == 2


async def test_fact_4_the_callback_has_exactly_two_parameters(radio: Radio) -> None:
    with pytest.raises(TypeError):
        BleakScanner(lambda *both: None, bluez=BlueZScannerArgs(adapter=radio.laptop))


async def test_fact_5_the_old_adapter_argument_is_deprecated(radio: Radio) -> None:
    with pytest.warns(DeprecationWarning, match="adapter"):
        BleakScanner(adapter=radio.laptop)


async def test_fact_5_without_a_name_bleak_takes_an_adapter_that_is_on(radio: Radio) -> None:
    await radio.power(radio.laptop, False)
    async with BleakScanner():
        assert await radio.get(radio.phone, "org.bluez.Adapter1", "Discovering")


async def test_fact_6_an_unknown_adapter_is_not_found(radio: Radio) -> None:
    with pytest.raises(BleakError, match="adapter 'hci9' not found"):
        async with radio.bleak(adapter="hci9"):
            pass


async def test_fact_6_an_adapter_that_is_off_is_not_ready(radio: Radio) -> None:
    await radio.power(radio.laptop, False)
    with pytest.raises(BleakDBusError) as caught:
        async with radio.bleak():
            pass
    assert caught.value.dbus_error == "org.bluez.Error.NotReady"


async def test_fact_6_switched_off_in_mid_scan_stop_succeeds(radio: Radio) -> None:
    async with radio.bleak():
        await radio.power(radio.laptop, False)


async def test_fact_6_switched_off_and_on_in_mid_scan_the_scan_is_silent_and_stop_fails(radio: Radio) -> None:
    data = os.urandom(20)
    scanning = radio.bleak()
    heard = await scanning.__aenter__()
    await radio.power(radio.laptop, False)
    await radio.power(radio.laptop, True)
    async with radio.advert(data):
        await asyncio.sleep(radio.silence)  # silence takes time to be heard
    assert data not in heard.data
    with pytest.raises(BleakDBusError, match="No discovery started") as caught:
        await scanning.__aexit__(None, None, None)
    assert caught.value.dbus_error == "org.bluez.Error.Failed"
