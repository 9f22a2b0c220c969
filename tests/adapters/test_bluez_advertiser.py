"""The advertiser without a radio: what it refuses before it asks anybody. With one: ``tests/radio``."""

from __future__ import annotations

import pytest

from hybrid.adapters.bluez_advertiser import MAX_DATA, BluezAdvertiser
from hybrid.errors import BluetoothProblem, BluetoothUnavailable, LocalProtocolError


@pytest.fixture(autouse=True)
def no_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus")


async def test_what_does_not_fit_is_refused_before_the_bus() -> None:
    with pytest.raises(LocalProtocolError, match="28 bytes"):
        async with BluezAdvertiser().advertise(bytes(MAX_DATA + 1)):
            pass


async def test_what_fits_gets_as_far_as_the_bus() -> None:
    with pytest.raises(BluetoothUnavailable) as caught:
        async with BluezAdvertiser().advertise(bytes(MAX_DATA)):
            pass
    assert caught.value.reason is BluetoothProblem.NO_SERVICE


async def test_elsewhere_than_on_linux_it_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(BluetoothUnavailable) as caught:
        async with BluezAdvertiser().advertise(bytes(20)):
            pass
    assert caught.value.reason is BluetoothProblem.NOT_SUPPORTED
