"""What a relay can do to a session: it may end it, and never change it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

import hybrid
from hybrid.errors import HybridError, Stage, TunnelProblem
from hybrid.ports import TunnelService
from hybrid.testing.peers import clients, phones, relays
from tests.ceremony.rig import REQUEST, RESPONSE, Backend, Place, ask

TINY = 0.02
MESSAGE_2, GREETING, ANSWER = range(3)  # what a client receives
MESSAGE_1, ASKED = range(2)  # what a phone receives


@dataclass(frozen=True)
class Case:
    """A relay on one side, and the error of that side."""

    relay: Callable[[TunnelService], relays.Relay]
    error: type[HybridError]
    stage: Stage | None = None
    reason: TunnelProblem | None = None


REMOTE = hybrid.RemoteProtocolError
FAILED = hybrid.HandshakeFailed
LATE = hybrid.PeerTimeout
LOST = hybrid.TunnelError

CLIENT_SIDE = {
    "drops message 2": Case(lambda t: relays.Drops(t, MESSAGE_2), FAILED),  # the greeting comes in its place
    "drops greeting": Case(lambda t: relays.Drops(t, GREETING), LATE, Stage.GREETING),
    "drops answer": Case(lambda t: relays.Drops(t, ANSWER), LATE, Stage.RESPONSE),
    "repeats message 2": Case(lambda t: relays.Repeats(t, MESSAGE_2), REMOTE),
    "repeats greeting": Case(lambda t: relays.Repeats(t, GREETING), REMOTE),
    "flips message 2": Case(lambda t: relays.FlipsBit(t, MESSAGE_2), FAILED),
    "flips greeting": Case(lambda t: relays.FlipsBit(t, GREETING), REMOTE),
    "flips answer": Case(lambda t: relays.FlipsBit(t, ANSWER), REMOTE),
    "cuts message 2": Case(lambda t: relays.CutsShort(t, MESSAGE_2), FAILED),
    "cuts answer": Case(lambda t: relays.CutsShort(t, ANSWER), REMOTE),
    "reorders": Case(lambda t: relays.Reorders(t, MESSAGE_2), FAILED),
    "oversize message 2": Case(lambda t: relays.Oversize(t, MESSAGE_2), FAILED),
    "oversize answer": Case(lambda t: relays.Oversize(t, ANSWER), REMOTE),
    "text": Case(lambda t: relays.Fails(t, MESSAGE_2, TunnelProblem.TEXT), LOST, reason=TunnelProblem.TEXT),
    "lost at greeting": Case(lambda t: relays.Fails(t, GREETING), LOST, reason=TunnelProblem.LOST),
    "lost at answer": Case(lambda t: relays.Fails(t, ANSWER), LOST, reason=TunnelProblem.LOST),
    "stuck": Case(relays.Stuck, LATE, Stage.TUNNEL),
}

PHONE_SIDE = {
    "drops message 1": Case(lambda t: relays.Drops(t, MESSAGE_1), LATE, Stage.ADVERTISE),
    "drops request": Case(lambda t: relays.Drops(t, ASKED), LATE, Stage.REQUEST),
    "repeats message 1": Case(lambda t: relays.Repeats(t, MESSAGE_1), REMOTE),
    "repeats request": Case(lambda t: relays.Repeats(t, ASKED), REMOTE),
    "flips message 1": Case(lambda t: relays.FlipsBit(t, MESSAGE_1), FAILED),
    "flips request": Case(lambda t: relays.FlipsBit(t, ASKED), REMOTE),
    "oversize request": Case(lambda t: relays.Oversize(t, ASKED), REMOTE),
    "text": Case(lambda t: relays.Fails(t, MESSAGE_1, TunnelProblem.TEXT), LOST, reason=TunnelProblem.TEXT),
    "lost at request": Case(lambda t: relays.Fails(t, ASKED), LOST, reason=TunnelProblem.LOST),
    "stuck": Case(relays.Stuck, LATE, Stage.TUNNEL),
}


def _check(case: Case, error: BaseException) -> None:
    assert type(error) is case.error
    assert getattr(error, "stage", None) is case.stage
    assert getattr(error, "reason", None) is case.reason


def _client_timeouts(stage: Stage | None) -> hybrid.ClientTimeouts:
    match stage:
        case Stage.TUNNEL:
            return hybrid.ClientTimeouts(tunnel=TINY)
        case Stage.GREETING:
            return hybrid.ClientTimeouts(greeting=TINY)
        case Stage.RESPONSE:
            return hybrid.ClientTimeouts(user=TINY)
        case _:
            return hybrid.ClientTimeouts()


def _phone_timeouts(stage: Stage | None) -> hybrid.PhoneTimeouts:
    match stage:
        case Stage.TUNNEL:
            return hybrid.PhoneTimeouts(tunnel=TINY)
        case Stage.ADVERTISE:
            return hybrid.PhoneTimeouts(advertise=TINY)
        case Stage.REQUEST:
            return hybrid.PhoneTimeouts(request=TINY)
        case _:
            return hybrid.PhoneTimeouts()


@pytest.mark.parametrize("name", CLIENT_SIDE)
async def test_on_the_way_to_the_client(place: Place, name: str) -> None:
    case = CLIENT_SIDE[name]
    invitation = hybrid.invite()
    phone = asyncio.create_task(phones.Phone().run(invitation.url, advertiser=place.air, tunnels=place.tunnels))
    session = place.connect(invitation, tunnels=case.relay(place.tunnels), timeouts=_client_timeouts(case.stage))
    with pytest.raises(HybridError) as caught:
        await ask(session)
    _check(case, caught.value)
    if name == "stuck":
        phone.cancel()  # nobody came
    await asyncio.wait([phone])
    place.assert_nothing_left()


@pytest.mark.parametrize("name", PHONE_SIDE)
async def test_on_the_way_to_the_phone(place: Place, name: str) -> None:
    case = PHONE_SIDE[name]
    invitation = hybrid.invite()
    backend = Backend(prompts=True)
    client = clients.Client(REQUEST)
    running = asyncio.create_task(client.run(invitation, scanner=place.air, tunnels=place.tunnels))
    with pytest.raises(HybridError) as caught:
        await place.answer(
            invitation.url, backend, tunnels=case.relay(place.tunnels), timeouts=_phone_timeouts(case.stage)
        )
    _check(case, caught.value)
    if name == "stuck":
        running.cancel()  # nobody advertised
    await asyncio.wait([running])
    assert client.answers == []
    assert not backend.is_open
    place.assert_nothing_left()


async def test_a_connection_lost_after_the_answer_changes_nothing_for_the_phone(place: Place) -> None:
    invitation = hybrid.invite()
    client = asyncio.create_task(clients.Client(REQUEST).run(invitation, scanner=place.air, tunnels=place.tunnels))
    served = await place.answer(invitation.url, tunnels=relays.Fails(place.tunnels, at=ASKED + 1))
    await client
    assert served.statuses == [0]
    place.assert_nothing_left()


async def test_a_connection_lost_while_the_answer_is_on_its_way_changes_nothing_for_the_phone(place: Place) -> None:
    invitation = hybrid.invite()
    client = asyncio.create_task(clients.Client(REQUEST).run(invitation, scanner=place.air, tunnels=place.tunnels))
    lossy = relays.Fails(place.tunnels, at=ASKED + 1)
    served = await place.answer(invitation.url, tunnels=relays.SlowToSend(lossy, TINY))
    await client
    assert served.statuses == [0]
    place.assert_nothing_left()


async def test_a_connection_lost_after_the_answer_changes_nothing_for_the_client(place: Place) -> None:
    invitation = hybrid.invite()
    phone = asyncio.create_task(phones.LateLinking().run(invitation.url, advertiser=place.air, tunnels=place.tunnels))
    relay = relays.Fails(place.tunnels, at=ANSWER + 1)
    assert await ask(place.connect(invitation, tunnels=relay)) == phones.DENIED
    await phone
    place.assert_nothing_left()


async def test_a_phone_that_closes_just_before_the_request_is_a_clean_close(place: Place) -> None:
    invitation = hybrid.invite()
    phone = phones.HangsUp(Stage.REQUEST)
    running = asyncio.create_task(phone.run(invitation.url, advertiser=place.air, tunnels=place.tunnels))
    with pytest.raises(hybrid.PeerClosed) as caught:
        await ask(place.connect(invitation, tunnels=relays.ClosesLate(place.tunnels, TINY)))
    assert caught.value.stage is Stage.RESPONSE
    await running
    place.assert_nothing_left()


@pytest.mark.parametrize("client_type", [clients.LeavesWhileAsking, clients.HangsUpWhileAsking])
async def test_a_client_that_leaves_just_before_the_answer_is_no_error(
    place: Place, client_type: type[clients.Client]
) -> None:
    invitation = hybrid.invite()
    client = asyncio.create_task(client_type(REQUEST).run(invitation, scanner=place.air, tunnels=place.tunnels))
    served = await place.answer(invitation.url, tunnels=relays.ClosesLate(place.tunnels, TINY))
    await client
    assert served.statuses in ([], [0])  # the answer was given, or the client seen leaving before
    place.assert_nothing_left()


async def test_a_relay_that_takes_nothing_is_lost_in_time(place: Place) -> None:
    # Sending fails, and nobody ever closes: the first failure stands.
    invitation = hybrid.invite()
    phone = asyncio.create_task(
        phones.SilentAt(Stage.HANDSHAKE).run(invitation.url, advertiser=place.air, tunnels=place.tunnels)
    )
    timeouts = hybrid.ClientTimeouts(close=TINY)
    with pytest.raises(hybrid.TunnelError) as caught:
        await ask(place.connect(invitation, tunnels=_TakesNothing(place.tunnels), timeouts=timeouts))
    assert caught.value.reason is TunnelProblem.LOST
    await phone
    place.assert_nothing_left()


class _TakesNothing(relays.Relay):
    async def before_send(self) -> None:
        raise hybrid.TunnelError("not taken", host="a relay", reason=TunnelProblem.LOST)


async def test_a_relay_that_only_hands_on(place: Place) -> None:
    invitation = hybrid.invite()
    phone = asyncio.create_task(place.answer(invitation.url, tunnels=relays.Relay(place.tunnels)))
    relay = relays.Relay(place.tunnels)
    assert await ask(place.connect(invitation, tunnels=relay)) == RESPONSE
    await phone
    assert [channel.closed for channel in relay.channels] == [True]
    place.assert_nothing_left()
