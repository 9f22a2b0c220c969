"""The ceremony as it should be: events in order, results, and nothing left behind."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import pytest

import hybrid
from hybrid.adapters.memory import MemoryTunnels
from hybrid.driving import EventStream
from hybrid.events import Proximity
from hybrid.protocol.ctap import Status
from hybrid.protocol.qr import Transport
from hybrid.testing.peers import clients, relays
from tests.ceremony.rig import GET_INFO, REQUEST, RESPONSE, Backend, Place, SlowAir, SlowTunnels, ask, until

CLIENT_EVENTS = [
    hybrid.Scanning,
    hybrid.AdvertSeen,
    hybrid.TunnelOpened,
    hybrid.HandshakeDone,
    hybrid.Ready,
    hybrid.RequestSent,
    hybrid.ResponseReceived,
    hybrid.Closed,
]
PHONE_EVENTS = [
    hybrid.TunnelOpened,
    hybrid.Advertising,
    hybrid.ClientArrived,
    hybrid.RequestReceived,
    hybrid.ResponseSent,
    hybrid.Closed,
]


async def test_phone_answers_one_request(either_place: Place) -> None:
    invitation = hybrid.invite()
    backend = Backend()
    phone = asyncio.create_task(either_place.answer(invitation.url, backend))
    async with either_place.connect(invitation) as session:
        assert session.get_info == GET_INFO
        assert session.features == ("ctap",)
        assert session.proximity is Proximity.SIMULATED
        assert session.link is None
        assert await session.call(REQUEST) == RESPONSE
    assert (await phone).statuses == [Status.OK]
    assert backend.requests == [REQUEST]
    assert [type(event) for event in either_place.client_events] == CLIENT_EVENTS
    assert [type(event) for event in either_place.phone_events] == PHONE_EVENTS
    either_place.assert_nothing_left()


async def test_events_carry_the_facts(place: Place) -> None:
    invitation = hybrid.invite()
    phone = asyncio.create_task(place.answer(invitation.url))
    await ask(place.connect(invitation))
    await phone
    assert hybrid.AdvertSeen("cable.ua5v.com", Proximity.SIMULATED, None) in place.client_events
    assert hybrid.Ready(("ctap",)) in place.client_events
    assert hybrid.RequestSent(2, 120) in place.client_events
    assert hybrid.ResponseReceived(0) in place.client_events
    assert hybrid.RequestReceived(2) in place.phone_events
    assert hybrid.ResponseSent(0) in place.phone_events


async def test_backend_is_told_who_asks(place: Place) -> None:
    invitation = hybrid.invite(hybrid.Hint.GET_ASSERTION)
    backend = Backend()
    phone = asyncio.create_task(place.answer(invitation.url, backend))
    await ask(place.connect(invitation))
    await phone
    (peer,) = backend.peers
    assert (peer.channel, peer.hint, peer.linked_name) == ("qr", hybrid.Hint.GET_ASSERTION, None)
    assert peer.proximity is Proximity.SIMULATED


async def test_phone_that_advertises_first_is_heard(place: Place) -> None:
    invitation = hybrid.invite()
    phone = asyncio.create_task(place.answer(invitation.url))
    await until(lambda: bool(place.air.adverts))
    assert await ask(place.connect(invitation)) == RESPONSE
    await phone
    place.assert_nothing_left()


async def test_adverts_of_strangers_are_passed_over(place: Place) -> None:
    invitation = hybrid.invite()
    client = asyncio.create_task(ask(place.connect(invitation)))
    await until(lambda: place.air.listeners == 1)
    for stranger in (b"", b"\x00", bytes(19), bytes(20), bytes(300), bytes(20)):
        place.air.broadcast(stranger)
    await place.answer(invitation.url)
    assert await client == RESPONSE
    assert [type(event) for event in place.client_events] == CLIENT_EVENTS


async def test_every_step_may_take_its_time(place: Place) -> None:
    invitation = hybrid.invite()
    air, tunnels = SlowAir(place.air), SlowTunnels(place.tunnels)
    phone = asyncio.create_task(
        hybrid.answer(invitation.url, Backend(), advertiser=air, tunnels=tunnels, on_event=place.phone_events.append)
    )
    session = hybrid.connect(invitation, scanner=air, tunnels=tunnels, on_event=place.client_events.append)
    assert await ask(session) == RESPONSE
    assert (await phone).statuses == [Status.OK]
    assert [type(event) for event in place.client_events] == CLIENT_EVENTS
    assert [type(event) for event in place.phone_events] == PHONE_EVENTS
    place.assert_nothing_left()


async def test_greeting_and_answer_may_overtake_the_sender(place: Place) -> None:
    # The send of message 1, and of the request, returns only after their answers are there.
    invitation = hybrid.invite()
    phone = asyncio.create_task(place.answer(invitation.url))
    slow = relays.SlowToSend(place.tunnels, 0.02)
    assert await ask(place.connect(invitation, tunnels=slow)) == RESPONSE
    await phone
    assert [type(event) for event in place.client_events] == CLIENT_EVENTS
    place.assert_nothing_left()


async def test_a_late_relay_changes_nothing(place: Place) -> None:
    invitation = hybrid.invite()
    phone = asyncio.create_task(place.answer(invitation.url, tunnels=relays.Delays(place.tunnels, 0.001)))
    assert await ask(place.connect(invitation, tunnels=relays.Delays(place.tunnels, 0.001))) == RESPONSE
    await phone
    place.assert_nothing_left()


async def test_event_stream_ends_after_close(place: Place) -> None:
    invitation = hybrid.invite()
    stream = EventStream()
    phone = asyncio.create_task(place.answer(invitation.url))
    async with hybrid.connect(invitation, scanner=place.air, tunnels=place.tunnels, on_event=stream) as session:
        await session.call(REQUEST)
    stream.close()
    await phone
    assert [type(event) async for event in stream] == CLIENT_EVENTS


# --- more than one request --------------------------------------------------------------------------------------------


async def test_many_serves_until_the_client_leaves(either_place: Place) -> None:
    invitation = hybrid.invite()
    backend = Backend()
    phone = asyncio.create_task(either_place.answer(invitation.url, backend, many=True))
    async with either_place.connect(invitation) as session:
        for _ in range(3):
            assert await session.call(REQUEST) == RESPONSE
    assert (await phone).statuses == [0, 0, 0]
    assert backend.requests == [REQUEST] * 3
    either_place.assert_nothing_left()


async def test_a_phone_that_serves_one_command_closes_after_a_second_request(place: Place) -> None:
    invitation = hybrid.invite()
    backend = Backend()
    phone = asyncio.create_task(place.answer(invitation.url, backend))
    async with place.connect(invitation) as session:
        assert await session.call(REQUEST) == RESPONSE
        with pytest.raises(hybrid.PeerClosed) as caught:
            await session.call(REQUEST)
        assert caught.value.stage is hybrid.Stage.RESPONSE
    assert (await phone).statuses == [0]
    assert backend.requests == [REQUEST]
    place.assert_nothing_left()


async def test_one_call_at_a_time(place: Place) -> None:
    invitation = hybrid.invite()
    backend = Backend(prompts=True)
    phone = asyncio.create_task(place.answer(invitation.url, backend))
    async with place.connect(invitation) as session:
        first = asyncio.create_task(session.call(REQUEST))
        await until(lambda: bool(backend.is_open))
        with pytest.raises(hybrid.LocalProtocolError):
            await session.call(REQUEST)
        backend.approve()
        assert await first == RESPONSE
    await phone
    assert backend.requests == [REQUEST]
    place.assert_nothing_left()


async def test_an_empty_request_is_refused_and_the_session_goes_on(place: Place) -> None:
    invitation = hybrid.invite()
    phone = asyncio.create_task(place.answer(invitation.url))
    async with place.connect(invitation) as session:
        with pytest.raises(hybrid.LocalProtocolError):
            await session.call(b"")
        assert await session.call(REQUEST) == RESPONSE
    await phone


async def test_a_request_too_large_for_the_channel_is_refused(place: Place) -> None:
    invitation = hybrid.invite()
    backend = Backend()
    phone = asyncio.create_task(place.answer(invitation.url, backend))
    async with place.connect(invitation) as session:
        with pytest.raises(hybrid.LocalProtocolError):
            await session.call(b"\x02" + bytes(1 << 20))
    await phone
    assert backend.requests == []
    place.assert_nothing_left()


async def test_no_call_after_the_goodbye(place: Place) -> None:
    invitation = hybrid.invite()
    phone = asyncio.create_task(place.answer(invitation.url))
    async with place.connect(invitation) as session:
        await session.finish()
        with pytest.raises((hybrid.LocalProtocolError, hybrid.PeerClosed)):
            await session.call(REQUEST)
    with pytest.raises(hybrid.LocalProtocolError, match="over"):
        await session.call(REQUEST)
    assert (await phone).statuses == []


async def test_a_client_that_asks_nothing_is_no_error(place: Place) -> None:
    invitation = hybrid.invite()
    phone = asyncio.create_task(place.answer(invitation.url))
    async with place.connect(invitation):
        pass
    assert (await phone).statuses == []
    place.assert_nothing_left()


async def test_get_info_can_be_asked_and_does_not_count(place: Place) -> None:
    invitation = hybrid.invite()
    backend = Backend()
    phone = asyncio.create_task(place.answer(invitation.url, backend))
    async with place.connect(invitation) as session:
        assert await session.call(b"\x04") == b"\x00" + GET_INFO
        assert await session.call(REQUEST) == RESPONSE
    assert (await phone).statuses == [0]
    assert backend.requests == [REQUEST]


# --- the code ---------------------------------------------------------------------------------------------------------


async def test_another_command_than_announced_is_refused(place: Place) -> None:
    invitation = hybrid.invite(hybrid.Hint.MAKE_CREDENTIAL)
    backend = Backend()
    phone = asyncio.create_task(place.answer(invitation.url, backend))
    assert await ask(place.connect(invitation)) == b"\x30"
    assert (await phone).statuses == [0x30]
    assert backend.requests == []
    assert hybrid.HintViolated(2) in place.phone_events
    place.assert_nothing_left()


@pytest.mark.parametrize("text", [None, "new-in-2030", "dcp"])
async def test_without_a_known_hint_any_command_goes(place: Place, text: str | None) -> None:
    made = hybrid.invite()
    invitation = hybrid.Invitation(dataclasses.replace(made.qr, hint_text=text), made.identity)
    phone = asyncio.create_task(place.answer(invitation.url))
    assert await ask(place.connect(invitation)) == RESPONSE
    await phone
    assert not any(isinstance(event, hybrid.HintViolated) for event in place.phone_events)


async def test_an_invitation_is_good_for_one_session(place: Place) -> None:
    invitation = hybrid.invite()
    phone = asyncio.create_task(place.answer(invitation.url))
    await ask(place.connect(invitation))
    await phone
    with pytest.raises(hybrid.LocalProtocolError, match="used already"):
        await ask(place.connect(invitation))
    place.assert_nothing_left()


async def test_a_code_is_answered_once(place: Place) -> None:
    invitation = hybrid.invite()
    phone = asyncio.create_task(place.answer(invitation.url))
    await ask(place.connect(invitation))
    await phone
    opened = len(place.tunnels.opened)
    with pytest.raises(hybrid.InvalidQR) as caught:
        await place.answer(invitation.url)
    assert caught.value.reason is hybrid.QRProblem.USED
    assert len(place.tunnels.opened) == opened


@pytest.mark.parametrize(("age", "warned"), [(0, False), (290, False), (400, True), (-1000, False)])
async def test_an_old_code_warns_and_is_served(place: Place, age: int, warned: bool) -> None:
    made = hybrid.invite()
    qr = dataclasses.replace(made.qr, timestamp=int(time.time()) - age)
    phone = asyncio.create_task(place.answer(qr.url))
    assert await ask(place.connect(hybrid.Invitation(qr, made.identity))) == RESPONSE
    await phone
    assert any(isinstance(event, hybrid.CodeIsOld) for event in place.phone_events) is warned


async def test_a_client_that_does_not_know_our_relay_is_refused_before_any_traffic(place: Place) -> None:
    url = dataclasses.replace(hybrid.invite().qr, known_domains=0).url
    with pytest.raises(hybrid.InvalidQR) as caught:
        await place.answer(url)
    assert caught.value.reason is hybrid.QRProblem.UNKNOWN_RELAY
    assert place.tunnels.opened == []
    assert place.phone_events == []


async def test_a_client_without_a_common_channel_is_refused_before_any_traffic(place: Place) -> None:
    # A code whose list of channels names only unknown ones.
    from hybrid import cbor
    from hybrid.protocol.qr import SCHEME, encode_digits

    fields = cbor.decode_map(hybrid.invite().qr.to_cbor())
    fields[6] = [77]
    with pytest.raises(hybrid.InvalidQR) as caught:
        await place.answer(SCHEME + encode_digits(cbor.encode(fields)))
    assert caught.value.reason is hybrid.QRProblem.NO_CHANNEL
    assert place.tunnels.opened == []


async def test_a_code_that_names_its_channels_is_served(place: Place) -> None:
    made = hybrid.invite()
    qr = dataclasses.replace(made.qr, transports=(Transport.WEBSOCKET, Transport.L2CAP), transports_stated=True)
    phone = asyncio.create_task(place.answer(qr.url))
    assert await ask(place.connect(hybrid.Invitation(qr, made.identity))) == RESPONSE
    await phone


@pytest.mark.parametrize("code", ["", "https://example.com", "FIDO:/", "FIDO:/12345", "FIDO:/" + "9" * 40])
async def test_what_is_no_code_is_refused_before_any_traffic(place: Place, code: str) -> None:
    with pytest.raises(hybrid.InvalidQR):
        await place.answer(code)
    assert place.tunnels.opened == []


class _DistantTunnels(MemoryTunnels):
    loopback = False


async def test_the_simulated_air_does_not_reach_other_machines(place: Place) -> None:
    invitation = hybrid.invite()
    distant = _DistantTunnels()
    with pytest.raises(hybrid.LocalProtocolError, match="simulated air"):
        await place.answer(invitation.url, tunnels=distant)
    with pytest.raises(hybrid.LocalProtocolError, match="simulated air"):
        await ask(place.connect(invitation, tunnels=distant))
    assert distant.opened == []
    assert place.air.listeners == 0
    # Neither side has spent the code on it.
    phone = asyncio.create_task(place.answer(invitation.url))
    assert await ask(place.connect(invitation)) == RESPONSE
    await phone


async def test_a_second_client_finds_no_tunnel(place: Place) -> None:
    made = hybrid.invite()
    backend = Backend(prompts=True)
    phone = asyncio.create_task(place.answer(made.url, backend))
    first = asyncio.create_task(clients.Client(REQUEST).run(made, scanner=place.air, tunnels=place.tunnels))
    advert = b""
    while not backend.is_open:
        advert = (place.air.adverts or (advert,))[0]
        await asyncio.sleep(0)
    second = asyncio.create_task(ask(place.connect(hybrid.Invitation(made.qr, made.identity))))
    await until(lambda: bool(place.air.listeners))
    place.air.broadcast(advert)
    with pytest.raises(hybrid.TunnelError) as caught:
        await second
    assert caught.value.status == 404
    backend.approve()
    assert (await phone).statuses == [0]
    await first
    place.assert_nothing_left()
