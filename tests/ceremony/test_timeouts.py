"""Each stage's time-out has the name of its stage. That a silent peer meets it is in the tests of bad peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import hybrid
from hybrid.adapters.memory import MemoryAir
from hybrid.errors import Stage
from hybrid.events import Proximity
from hybrid.ports import Advert
from hybrid.protocol.eid import FIDO_UUID
from hybrid.testing.peers import phones, relays
from tests.ceremony.rig import REQUEST, RESPONSE, Backend, Place, ask, until

TINY = 0.02


class _StuckRadio:
    """Neither a scan nor an advert ever starts. `entered` counts those that are not over."""

    proximity = Proximity.SIMULATED

    def __init__(self) -> None:
        self.entered = 0

    @asynccontextmanager
    async def scan(self) -> AsyncIterator[AsyncIterator[Advert]]:
        await self._wait_for_ever()
        async with MemoryAir().scan() as adverts:
            yield adverts

    @asynccontextmanager
    async def advertise(
        self, service_data: bytes, *, connectable: bool = False, service_uuid: str = FIDO_UUID
    ) -> AsyncIterator[None]:
        await self._wait_for_ever()
        yield

    async def _wait_for_ever(self) -> None:
        self.entered += 1
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.entered -= 1


async def test_a_scan_that_does_not_start(place: Place) -> None:
    radio = _StuckRadio()
    with pytest.raises(hybrid.PeerTimeout) as caught:
        await ask(
            hybrid.connect(
                hybrid.invite(),
                scanner=radio,
                tunnels=place.tunnels,
                timeouts=hybrid.ClientTimeouts(scan=TINY),
            )
        )
    assert caught.value.stage is Stage.SCAN
    assert caught.value.identifier == "timeout.scan"
    assert radio.entered == 0
    place.assert_nothing_left()


async def test_an_advert_that_does_not_start(place: Place) -> None:
    radio = _StuckRadio()
    with pytest.raises(hybrid.PeerTimeout) as caught:
        await hybrid.answer(
            hybrid.invite().url,
            Backend(),
            advertiser=radio,
            tunnels=place.tunnels,
            timeouts=hybrid.PhoneTimeouts(advertise=TINY),
        )
    assert caught.value.stage is Stage.ADVERTISE
    assert radio.entered == 0
    place.assert_nothing_left()


async def test_nobody_comes(place: Place) -> None:
    with pytest.raises(hybrid.PeerTimeout) as caught:
        await place.answer(hybrid.invite().url, timeouts=hybrid.PhoneTimeouts(advertise=TINY))
    assert caught.value.stage is Stage.ADVERTISE
    assert caught.value.seconds == TINY
    place.assert_nothing_left()


async def test_a_call_can_have_its_own_time(place: Place) -> None:
    invitation = hybrid.invite()
    phone = phones.NeverAnswers()
    running = asyncio.create_task(phone.run(invitation.url, advertiser=place.air, tunnels=place.tunnels))
    async with place.connect(invitation) as session:
        with pytest.raises(hybrid.PeerTimeout) as caught:
            await session.call(REQUEST, timeout=TINY)
        # The person is not left with a prompt that nobody waits for.
        await until(lambda: phone.was_told_goodbye)
    assert (caught.value.stage, caught.value.seconds) == (Stage.RESPONSE, TINY)
    assert hybrid.RequestSent(2, TINY) in place.client_events
    await running
    place.assert_nothing_left()


async def test_the_time_of_the_person_is_the_backends_own(place: Place) -> None:
    invitation = hybrid.invite()
    backend = Backend(prompts=True)
    timeouts = hybrid.PhoneTimeouts(request=0.25)
    phone = asyncio.create_task(place.answer(invitation.url, backend, timeouts=timeouts))
    client = asyncio.create_task(ask(place.connect(invitation)))
    await until(lambda: backend.is_open)
    await asyncio.sleep(0.3)  # longer than a request may take
    backend.approve()
    assert await client == RESPONSE
    assert (await phone).statuses == [0]


class _Clogged(relays.Relay):
    """Takes messages 1 and the request, and then none."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.tunnels)
        self.sent = 0

    async def before_send(self) -> None:
        self.sent += 1
        if self.sent > 2:
            await asyncio.get_running_loop().create_future()


async def test_a_goodbye_that_cannot_be_said_does_not_hold_the_result(place: Place) -> None:
    invitation = hybrid.invite()
    phone = asyncio.create_task(phones.Phone().run(invitation.url, advertiser=place.air, tunnels=place.tunnels))
    timeouts = hybrid.ClientTimeouts(close=TINY)
    assert await ask(place.connect(invitation, tunnels=_Clogged(place), timeouts=timeouts)) == phones.DENIED
    await phone
    place.assert_nothing_left()


@pytest.mark.parametrize("stage", list(Stage))
def test_every_stage_has_a_time(stage: Stage) -> None:
    assert hybrid.ClientTimeouts().of(stage) > 0
    assert hybrid.PeerTimeout(stage, 1).identifier == f"timeout.{stage}"
