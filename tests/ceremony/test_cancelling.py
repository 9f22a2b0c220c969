"""Cancelled at any await, a session leaves nothing: no scan, no advert, no tunnel, no prompt, no task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

import hybrid
from hybrid.errors import Stage
from hybrid.events import Event
from hybrid.ports import Channel, Peer, TunnelService
from hybrid.protocol.tunnel import TunnelRequest
from hybrid.testing.peers import clients, phones, relays
from tests.ceremony.rig import REQUEST, Backend, Place, SlowAir, SlowTunnels, ask, turns, until

STAY = hybrid.ClientTimeouts(close=60, linger=60)  # nothing but the cancellation ends a wait


async def _cancel(task: asyncio.Task[object]) -> None:
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def _end(task: asyncio.Task[None], *, by_itself: bool) -> None:
    """The peer notices that the other side is gone, unless they never met."""
    if not by_itself:
        task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() is not by_itself


# --- the client -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClientStage:
    """A phone that holds the client in one stage, and how to know that it is there."""

    phone: Callable[[], phones.Phone]
    last_event: type[Event]
    tunnels: Callable[[TunnelService], TunnelService] = relays.Relay
    met: bool = True


CLIENT_STAGES = {
    "scanning": ClientStage(lambda: phones.SilentAt(Stage.SCAN), hybrid.Scanning, met=False),
    "opening the tunnel": ClientStage(phones.Phone, hybrid.AdvertSeen, relays.Stuck, met=False),
    "handshake": ClientStage(lambda: phones.SilentAt(Stage.HANDSHAKE), hybrid.TunnelOpened),
    "greeting": ClientStage(lambda: phones.SilentAt(Stage.GREETING), hybrid.HandshakeDone),
    "request": ClientStage(phones.NeverAnswers, hybrid.RequestSent),
    "goodbye": ClientStage(phones.NeverCloses, hybrid.ResponseReceived),
}


@pytest.mark.parametrize("name", CLIENT_STAGES)
async def test_the_client_in_every_stage(either_place: Place, name: str) -> None:
    place, stage = either_place, CLIENT_STAGES[name]
    invitation = hybrid.invite()
    phone = stage.phone()
    running = asyncio.create_task(phone.run(invitation.url, advertiser=place.air, tunnels=place.tunnels))
    session = place.connect(invitation, tunnels=stage.tunnels(place.tunnels), timeouts=STAY)
    client = asyncio.create_task(ask(session))
    await until(lambda: any(isinstance(event, stage.last_event) for event in place.client_events))
    if stage.phone in (phones.NeverAnswers, phones.NeverCloses):
        await until(lambda: phone.requests != [])
    if stage.phone is phones.NeverCloses:
        await until(lambda: phone.was_told_goodbye)
    await turns(5)
    assert not client.done()
    await _cancel(client)
    await _end(running, by_itself=stage.met)
    # After the greeting the phone is told; before, closing says it.
    assert phone.was_told_goodbye is (name in ("request", "goodbye"))
    assert place.client_events[-1] == hybrid.Closed()
    place.assert_nothing_left()


async def test_the_client_while_it_waits_for_a_link(place: Place) -> None:
    async def link() -> None:
        async with place.connect(invitation, timeouts=STAY) as session:
            await session.call(REQUEST)
            await session.wait_for_link()

    invitation = hybrid.invite(accept_link=True)
    phone = phones.NeverCloses()
    running = asyncio.create_task(phone.run(invitation.url, advertiser=place.air, tunnels=place.tunnels))
    client = asyncio.create_task(link())
    await until(lambda: phone.was_told_goodbye)
    await _cancel(client)
    await running
    place.assert_nothing_left()


async def test_the_prompt_of_our_own_phone_is_dismissed_when_the_client_is_cancelled(either_place: Place) -> None:
    place = either_place
    invitation = hybrid.invite()
    backend = Backend(prompts=True)
    phone = asyncio.create_task(place.answer(invitation.url, backend))
    client = asyncio.create_task(ask(place.connect(invitation)))
    await until(lambda: backend.is_open)
    await _cancel(client)
    assert (await phone).statuses == []
    assert backend.was_cancelled
    place.assert_nothing_left()


async def test_a_cancelled_call_leaves_the_session_to_its_owner(place: Place) -> None:
    invitation = hybrid.invite()
    phone = phones.NeverAnswers()
    running = asyncio.create_task(phone.run(invitation.url, advertiser=place.air, tunnels=place.tunnels))
    async with place.connect(invitation) as session:
        call = asyncio.create_task(session.call(REQUEST))
        await until(lambda: phone.requests != [])
        await _cancel(call)
        await until(lambda: phone.was_told_goodbye)
        with pytest.raises((hybrid.PeerClosed, hybrid.LocalProtocolError)):
            await session.call(REQUEST)
    await running
    place.assert_nothing_left()


async def test_an_error_of_the_caller_passes_through(place: Place) -> None:
    class Mine(Exception):
        pass

    invitation = hybrid.invite()
    phone = phones.NeverCloses()
    running = asyncio.create_task(phone.run(invitation.url, advertiser=place.air, tunnels=place.tunnels))
    with pytest.raises(Mine):
        async with place.connect(invitation, timeouts=STAY):
            raise Mine
    await running
    assert phone.was_told_goodbye
    place.assert_nothing_left()


class _Counts(relays.Relay):
    def __init__(self, tunnels: TunnelService) -> None:
        super().__init__(tunnels)
        self.asked = 0

    async def open(self, request: TunnelRequest) -> Channel:
        self.asked += 1
        return await super().open(request)


@pytest.mark.parametrize("turn", range(4))
async def test_a_client_that_gives_up_opens_no_tunnel(place: Place, turn: int) -> None:
    invitation = hybrid.invite()
    phone = asyncio.create_task(place.answer(invitation.url))
    await until(lambda: place.air.adverts != ())
    (advert,) = place.air.adverts
    await _cancel(phone)
    tunnels = _Counts(place.tunnels)
    client = asyncio.create_task(ask(place.connect(invitation, tunnels=tunnels)))
    await until(lambda: place.air.listeners == 1)
    place.air.broadcast(advert)
    await turns(turn)
    asked = tunnels.asked
    client.cancel()
    await asyncio.wait([client])
    assert tunnels.asked == asked
    place.assert_nothing_left()


# --- the phone --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PhoneStage:
    """A client that holds the phone in one stage, and how to know that it is there."""

    client: type[clients.Client]
    last_event: type[Event] | None
    tunnels: Callable[[TunnelService], TunnelService] = relays.Relay
    met: bool = True


PHONE_STAGES = {
    "opening the tunnel": PhoneStage(clients.Client, None, relays.Stuck, met=False),
    "advertising": PhoneStage(clients.NeverShakesHands, hybrid.Advertising),
    "waiting for a request": PhoneStage(clients.SilentAfterGreeting, hybrid.ClientArrived),
    "prompt": PhoneStage(clients.Client, hybrid.RequestReceived),
    "goodbye": PhoneStage(clients.StaysAfterAnswer, hybrid.ResponseSent),
}


@pytest.mark.parametrize("name", PHONE_STAGES)
async def test_the_phone_in_every_stage(either_place: Place, name: str) -> None:
    place, stage = either_place, PHONE_STAGES[name]
    invitation = hybrid.invite()
    backend = Backend(prompts=name == "prompt")
    running = asyncio.create_task(stage.client(REQUEST).run(invitation, scanner=place.air, tunnels=place.tunnels))
    phone = asyncio.create_task(
        place.answer(
            invitation.url,
            backend,
            tunnels=stage.tunnels(place.tunnels),
            timeouts=hybrid.PhoneTimeouts(close=60),
        )
    )
    kind = stage.last_event
    if kind is not None:
        await until(lambda: any(isinstance(event, kind) for event in place.phone_events))
    if name == "prompt":
        await until(lambda: backend.is_open)
    await turns(5)
    assert not phone.done()
    await _cancel(phone)
    await _end(running, by_itself=stage.met)
    assert backend.was_cancelled is (name == "prompt")
    assert place.phone_events[-1] == hybrid.Closed()
    place.assert_nothing_left()


class _SlowToDismiss(Backend):
    """Takes some turns to take its prompt off the screen."""

    async def call(self, request: bytes, *, peer: Peer) -> bytes:
        try:
            return await super().call(request, peer=peer)
        except asyncio.CancelledError:
            self.is_open = True
            await turns(10)
            self.is_open = False
            raise


@pytest.mark.parametrize("gap", range(1, 6))
async def test_the_phone_twice_while_its_prompt_is_dismissed(place: Place, gap: int) -> None:
    invitation = hybrid.invite()
    backend = _SlowToDismiss(prompts=True)
    running = asyncio.create_task(clients.Client(REQUEST).run(invitation, scanner=place.air, tunnels=place.tunnels))
    phone = asyncio.create_task(place.answer(invitation.url, backend))
    await until(lambda: backend.is_open)
    phone.cancel()
    await turns(gap)
    await _cancel(phone)
    assert not backend.is_open
    await running
    place.assert_nothing_left()


# --- at the N-th turn of the loop -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """Our client and our phone over an air and a relay whose every step takes some turns."""

    place: Place
    client: asyncio.Task[bytes]
    phone: asyncio.Task[hybrid.Served]
    backend: Backend


def _pair() -> Pair:
    place = Place()
    invitation = hybrid.invite()
    backend = Backend()
    air, tunnels = SlowAir(place.air), SlowTunnels(place.tunnels)
    # The one that is left behind must not wait for long for one that never comes.
    phone = hybrid.answer(
        invitation.url,
        backend,
        advertiser=air,
        tunnels=tunnels,
        on_event=place.phone_events.append,
        timeouts=hybrid.PhoneTimeouts(advertise=60),
    )
    session = hybrid.connect(invitation, scanner=air, tunnels=tunnels, on_event=place.client_events.append)
    return Pair(place, asyncio.create_task(ask(session)), asyncio.create_task(phone), backend)


async def _settle(pair: Pair, cancelled: asyncio.Task[object], other: asyncio.Task[object]) -> None:
    """The cancelled side ends; so does the other one, by itself if the two have met."""
    was_running = cancelled.cancel()
    await asyncio.wait([cancelled])
    # A cancellation that came too late to be one is no cancellation; one that came in time is never swallowed.
    assert cancelled.cancelled() is was_running
    if not any(isinstance(event, hybrid.ClientArrived) for event in pair.place.phone_events):
        other.cancel()  # it waits for somebody who will not come
    await asyncio.wait([other])
    if not other.cancelled() and (error := other.exception()) is not None:
        assert isinstance(error, hybrid.HybridError)
    assert not pair.backend.is_open
    pair.place.assert_nothing_left()


async def _length() -> int:
    """Turns of the loop that a good ceremony takes."""
    pair = _pair()
    count = 0
    while not (pair.client.done() and pair.phone.done()):
        await asyncio.sleep(0)
        count += 1
    pair.place.assert_nothing_left()
    return count


@pytest.mark.parametrize("side", ["client", "phone"])
async def test_cancelled_at_every_turn(side: str) -> None:
    length = await _length()
    assert length > 40
    ended_well = 0
    for turn in range(length + 2):
        pair = _pair()
        await turns(turn)
        first: asyncio.Task[object] = pair.client if side == "client" else pair.phone
        second: asyncio.Task[object] = pair.phone if side == "client" else pair.client
        await _settle(pair, first, second)
        ended_well += not first.cancelled()
    assert ended_well >= 1  # the sweep reached the end


@pytest.mark.parametrize("gap", [1, 2, 3, 5])
@pytest.mark.parametrize("side", ["client", "phone"])
async def test_cancelled_again_while_it_ends(side: str, gap: int) -> None:
    length = await _length()
    for turn in range(0, length + 2, 2):
        pair = _pair()
        await turns(turn)
        first: asyncio.Task[object] = pair.client if side == "client" else pair.phone
        second: asyncio.Task[object] = pair.phone if side == "client" else pair.client
        first.cancel()
        await turns(gap)
        await _settle_again(pair, first, second)


async def _settle_again(pair: Pair, cancelled: asyncio.Task[object], other: asyncio.Task[object]) -> None:
    cancelled.cancel()
    await asyncio.wait([cancelled])
    if not any(isinstance(event, hybrid.ClientArrived) for event in pair.place.phone_events):
        other.cancel()
    await asyncio.gather(other, return_exceptions=True)
    assert not pair.backend.is_open
    pair.place.assert_nothing_left()
