"""The world fails at any moment: the relay dies, the radio fails, the caller's own listener raises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import hybrid
from hybrid.errors import BluetoothProblem, BluetoothUnavailable, HybridError
from hybrid.events import Event, Proximity
from hybrid.ports import Advert
from hybrid.protocol.eid import FIDO_UUID
from hybrid.protocol.linking import Link
from hybrid.testing.peers import phones
from tests.ceremony.rig import RESPONSE, Backend, Place, SlowAir, SlowTunnels, ask, turns

OFF = BluetoothUnavailable("the adapter is off", BluetoothProblem.OFF)


# --- the relay dies ---------------------------------------------------------------------------------------------------


async def _die_at(turn: int) -> tuple[bool, bool]:
    """Close every channel at this turn of a ceremony; tell whether client and phone had their success."""
    place = Place()
    invitation = hybrid.invite()
    air, tunnels = SlowAir(place.air), SlowTunnels(place.tunnels)
    client = asyncio.create_task(ask(hybrid.connect(invitation, scanner=air, tunnels=tunnels)))
    phone = asyncio.create_task(hybrid.answer(invitation.url, Backend(), advertiser=air, tunnels=tunnels))
    await turns(turn)
    for channel in place.tunnels.opened:
        await channel.aclose()
    succeeded = await _ended_well(client), await _ended_well(phone)
    assert client.cancelled() or client.exception() is not None or client.result() == RESPONSE
    place.assert_nothing_left()
    return succeeded


async def _ended_well(task: asyncio.Task[Any]) -> bool:
    """Give a side the time to notice, then cancel it: it may wait for a peer that will not come."""
    await turns(40)
    task.cancel()
    await asyncio.wait([task])
    if task.cancelled():
        return False
    error = task.exception()
    assert error is None or isinstance(error, HybridError)
    return error is None


async def test_the_relay_dies_at_every_turn() -> None:
    outcomes = [await _die_at(turn) for turn in range(80)]
    assert (False, False) in outcomes
    assert outcomes[-1] == (True, True)


# --- the radio fails --------------------------------------------------------------------------------------------------


class _FailingRadio:
    """Fails when it is switched on, or with `late` a few turns afterwards."""

    proximity = Proximity.SIMULATED

    def __init__(self, *, late: bool = False) -> None:
        self._late = late

    @asynccontextmanager
    async def scan(self) -> AsyncIterator[AsyncIterator[Advert]]:
        if not self._late:
            raise OFF
        yield self._fail()

    async def _fail(self) -> AsyncIterator[Advert]:
        yield Advert(bytes(20))
        await turns(3)
        raise OFF

    @asynccontextmanager
    async def advertise(
        self, service_data: bytes, *, connectable: bool = False, service_uuid: str = FIDO_UUID
    ) -> AsyncIterator[None]:
        if not self._late:
            raise OFF
        yield


def _link() -> Link:
    return phones.Linking().link


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("linked", [False, True])
async def test_a_scan_that_fails(place: Place, late: bool, linked: bool) -> None:
    to = _link() if linked else hybrid.invite()
    with pytest.raises(BluetoothUnavailable) as caught:
        await ask(hybrid.connect(to, scanner=_FailingRadio(late=late), tunnels=SlowTunnels(place.tunnels)))
    assert caught.value.reason is BluetoothProblem.OFF
    place.assert_nothing_left()


async def test_an_advert_that_is_refused(place: Place) -> None:
    with pytest.raises(BluetoothUnavailable):
        await hybrid.answer(hybrid.invite().url, Backend(), advertiser=_FailingRadio(), tunnels=place.tunnels)
    place.assert_nothing_left()


# --- the caller's listener raises -------------------------------------------------------------------------------------


class _Bug(Exception):
    pass


class _RaisesAt:
    """A listener that fails at its N-th event."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self, event: Event) -> None:
        self._left -= 1
        if self._left == -1:
            raise _Bug(type(event).__name__)


@pytest.mark.parametrize("at", range(8))
async def test_a_listener_of_the_client_that_raises(place: Place, at: int) -> None:
    invitation = hybrid.invite()
    phone = asyncio.create_task(place.answer(invitation.url))
    with pytest.raises(_Bug):
        await ask(hybrid.connect(invitation, scanner=place.air, tunnels=place.tunnels, on_event=_RaisesAt(at)))
    await _ended_well(phone)
    place.assert_nothing_left()


@pytest.mark.parametrize("at", range(6))
async def test_a_listener_of_the_phone_that_raises(place: Place, at: int) -> None:
    invitation = hybrid.invite()
    client = asyncio.create_task(ask(place.connect(invitation)))
    with pytest.raises(_Bug):
        await hybrid.answer(
            invitation.url, Backend(), advertiser=place.air, tunnels=place.tunnels, on_event=_RaisesAt(at)
        )
    await _ended_well(client)
    place.assert_nothing_left()


# --- several sessions at once -----------------------------------------------------------------------------------------


async def test_sessions_side_by_side_do_not_meet(place: Place) -> None:
    invitations = [hybrid.invite() for _ in range(5)]
    answers = [b"\x00" + bytes([number]) for number in range(5)]
    waiting = [asyncio.create_task(ask(place.connect(invitation))) for invitation in invitations]
    serving = [
        asyncio.create_task(place.answer(invitation.url, Backend(answer)))
        for invitation, answer in zip(invitations, answers, strict=True)
    ]
    assert await asyncio.gather(*waiting) == answers
    assert [served.statuses for served in await asyncio.gather(*serving)] == [[0]] * 5
    place.assert_nothing_left()


async def test_one_failure_does_not_touch_another_session(place: Place) -> None:
    good, bad = hybrid.invite(), hybrid.invite()
    waiting = [asyncio.create_task(ask(place.connect(invitation))) for invitation in (good, bad)]
    evil = asyncio.create_task(phones.TypeNine().run(bad.url, advertiser=place.air, tunnels=place.tunnels))
    assert (await place.answer(good.url)).statuses == [0]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert answers[0] == RESPONSE
    assert isinstance(answers[1], hybrid.RemoteProtocolError)
    await evil
    place.assert_nothing_left()
