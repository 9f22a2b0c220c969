"""The two adapters of a radio test: of a virtual BlueZ here, of the real one where `HYBRID_RADIO=real`.

The same tests run on both, so that the virtual one stays honest. `HYBRID_BLUEZ` and `HYBRID_RADIO_CONTROLLER` say
what the real one is; the virtual one is tried in every combination.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from hybrid.testing.virtual_bluez import VirtualBluez, virtual_bluez
from tests.radio.bench import Radio, system_bus

REAL = os.environ.get("HYBRID_RADIO") == "real"
SETUPS = (
    [(os.environ["HYBRID_BLUEZ"], os.environ["HYBRID_RADIO_CONTROLLER"])]
    if REAL
    else [(bluez, controller) for bluez in ("5.66", "5.82") for controller in ("dual", "le-only")]
)


@pytest.fixture(params=SETUPS, ids=lambda setup: f"{setup[0]}-{setup[1]}")
async def radio(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Radio]:
    """Two adapters that hear each other."""
    bluez, controller = request.param
    if REAL:
        laptop, phone = os.environ["HYBRID_RADIO_LAPTOP"], os.environ["HYBRID_RADIO_PHONE"]
        async with system_bus() as bus:
            real = Radio(bus, laptop, phone, bluez, controller, silence=4.0)
            yield real
            for adapter in (laptop, phone):
                await real.power(adapter, True)
        return
    async with virtual_bluez(bluez=bluez, le_only=controller == "le-only") as virtual:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", virtual.address)
        async with system_bus() as bus:
            yield Radio(bus, "hci0", "hci1", bluez, controller, silence=0.15)
        assert not virtual.violations


@pytest.fixture
async def virtual(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[VirtualBluez]:
    """A virtual BlueZ that is this process's system bus, for tests that need faults."""
    async with virtual_bluez() as running:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", running.address)
        yield running
