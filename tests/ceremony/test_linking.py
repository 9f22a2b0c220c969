"""Links: offered before, between and after CTAP, checked, handed on; and sessions that a link begins."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import hybrid
from hybrid.adapters.memory import MemoryTunnels
from hybrid.errors import Stage
from hybrid.ports import Channel
from hybrid.protocol.authenticator import LinkIntroduction
from hybrid.protocol.contact import ClientPayload
from hybrid.protocol.linking import Link
from hybrid.protocol.tunnel import TunnelRequest
from hybrid.testing.peers import phones
from tests.ceremony.rig import REQUEST, Place, SlowAir, SlowTunnels, ask, turns, until

TINY = 0.02


def _start(place: Place, invitation: hybrid.Invitation, phone: phones.Phone) -> asyncio.Task[None]:
    return asyncio.create_task(phone.run(invitation.url, advertiser=place.air, tunnels=place.tunnels))


# --- a link is offered ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phone_type", [phones.LinksBefore, phones.LinksBetween, phones.LinksAfter, phones.Revision0])
async def test_a_link_before_the_end_is_on_the_session(either_place: Place, phone_type: type[phones.Linking]) -> None:
    invitation = hybrid.invite(accept_link=True)
    phone = phone_type(name="my phone")
    running = _start(either_place, invitation, phone)
    async with either_place.connect(invitation) as session:
        assert await session.call(REQUEST) == phones.DENIED
        await until(lambda: session.link is not None)
        assert session.link == phone.link
    await running
    assert either_place.client_events.count(hybrid.LinkReceived("my phone")) == 1
    either_place.assert_nothing_left()


async def test_a_late_link_does_not_delay_the_result(place: Place) -> None:
    invitation = hybrid.invite(accept_link=True)
    phone = phones.LateLinking()
    running = _start(place, invitation, phone)
    async with place.connect(invitation) as session:
        # The phone links only after the goodbye, so a result that waited for the link would never come.
        assert await session.call(REQUEST) == phones.DENIED
        before = session.link
        assert await session.wait_for_link() == phone.link
        assert session.link == phone.link
    assert before is None
    await running
    assert hybrid.LinkReceived("a phone") in place.client_events
    place.assert_nothing_left()


async def test_a_late_link_is_read_while_the_session_closes(place: Place) -> None:
    invitation = hybrid.invite(accept_link=True)
    running = _start(place, invitation, phones.LateLinking())
    await ask(place.connect(invitation))
    await running
    assert place.client_events[-2:] == [hybrid.LinkReceived("a phone"), hybrid.Closed()]


async def test_finish_lets_the_link_come_in_the_background(place: Place) -> None:
    invitation = hybrid.invite(accept_link=True)
    phone = phones.LateLinking()
    running = _start(place, invitation, phone)
    async with place.connect(invitation) as session:
        await session.call(REQUEST)
        await session.finish()
        await session.finish()  # once more is nothing
        await until(lambda: session.link is not None)
    await running
    place.assert_nothing_left()


@pytest.mark.parametrize("phone_type", [phones.Phone, phones.EmptyUpdate])
async def test_without_a_link_the_wait_ends_when_the_phone_closes(place: Place, phone_type: type[phones.Phone]) -> None:
    invitation = hybrid.invite(accept_link=True)
    running = _start(place, invitation, phone_type())
    async with place.connect(invitation) as session:
        await session.call(REQUEST)
        assert await session.wait_for_link() is None
    await running
    place.assert_nothing_left()


async def test_without_a_link_the_wait_ends_in_time(place: Place) -> None:
    invitation = hybrid.invite(accept_link=True)
    running = _start(place, invitation, phones.NeverCloses())
    async with place.connect(invitation, timeouts=hybrid.ClientTimeouts(linger=TINY, close=TINY)) as session:
        await session.call(REQUEST)
        assert await session.wait_for_link() is None
    await running
    place.assert_nothing_left()


async def test_a_session_that_stays_open_stops_reading_in_time(place: Place) -> None:
    invitation = hybrid.invite(accept_link=True)
    running = _start(place, invitation, phones.NeverCloses())
    async with place.connect(invitation, timeouts=hybrid.ClientTimeouts(linger=TINY)) as session:
        await session.call(REQUEST)
        await session.finish()
        await running  # the phone sees the channel close while the session is still open
    place.assert_nothing_left()


@pytest.mark.parametrize("phone_type", [phones.BadLinkingProof, phones.UnreadableUpdate])
async def test_a_bad_link_is_dropped_and_the_session_goes_on(place: Place, phone_type: type[phones.Linking]) -> None:
    invitation = hybrid.invite(accept_link=True)
    running = _start(place, invitation, phone_type())
    async with place.connect(invitation) as session:
        assert await session.call(REQUEST) == phones.DENIED
        assert session.link is None
    await running
    assert place.client_events.count(hybrid.LinkDropped()) == 1
    assert not any(isinstance(event, hybrid.LinkReceived) for event in place.client_events)
    place.assert_nothing_left()


# --- a phone that is linked already -----------------------------------------------------------------------------------


class _Pair:
    """A link and the phone at its other end."""

    def __init__(self, name: str = "linked phone") -> None:
        self.identity = ec.generate_private_key(ec.SECP256R1())
        self.link = Link(
            contact_id=b"contact",
            link_id=b"link-id8",
            link_secret=secrets.token_bytes(32),
            public_key=self.identity.public_key(),
            name=name,
        )

    async def serve(self, place: Place, phone: phones.Phone, link: Link | None = None) -> ClientPayload:
        """Wait for a contact and serve it."""
        contact_id, header, tunnel_id = await place.tunnels.contacted()
        assert contact_id == self.link.contact_id
        payload = ClientPayload.parse_header(header)
        introduction = LinkIntroduction(
            link or self.link, self.identity, payload, b"\x00\x00\x01", tunnel_id, secrets.token_bytes(14) + b"\x01"
        )
        await phone.run(introduction, advertiser=place.air, tunnels=place.tunnels)
        return payload


@pytest.mark.parametrize("signals", [False, True])
async def test_a_linked_phone_is_contacted_without_a_code(signals: bool) -> None:
    place = Place(tunnels=MemoryTunnels(signals=signals))
    pair = _Pair()
    phone = phones.Phone()
    serving = asyncio.create_task(pair.serve(place, phone))
    assert await ask(place.connect(pair.link)) == phones.DENIED
    payload = await serving
    assert (payload.link_id, payload.hint) == (pair.link.link_id, "ga")
    assert phone.requests == [REQUEST]
    assert phone.was_told_goodbye
    seen = [type(event) for event in place.client_events]
    assert seen.count(hybrid.PhoneConnected) == signals
    assert [kind for kind in seen if kind is not hybrid.PhoneConnected] == [
        hybrid.Scanning,
        hybrid.TunnelOpened,
        hybrid.AdvertSeen,
        hybrid.HandshakeDone,
        hybrid.Ready,
        hybrid.RequestSent,
        hybrid.ResponseReceived,
        hybrid.Closed,
    ]
    place.assert_nothing_left()


async def test_a_link_serves_again_and_again(place: Place) -> None:
    pair = _Pair()
    nonces = set()
    for _ in range(2):
        serving = asyncio.create_task(pair.serve(place, phones.Phone()))
        assert await ask(place.connect(pair.link)) == phones.DENIED
        nonces.add((await serving).client_nonce)
    assert len(nonces) == 2


async def test_a_link_made_in_one_session_serves_in_the_next(place: Place) -> None:
    invitation = hybrid.invite(accept_link=True)
    first = phones.LinksBefore()
    running = _start(place, invitation, first)
    async with place.connect(invitation) as session:
        await session.call(REQUEST)
        link = session.link
    await running
    assert link is not None
    pair = _Pair()
    pair.identity, pair.link = first.identity, first.link
    serving = asyncio.create_task(pair.serve(place, phones.Phone()))
    assert await ask(place.connect(link)) == phones.DENIED
    await serving


async def test_the_relay_says_that_the_link_is_gone(place: Place) -> None:
    pair = _Pair(name="old phone")
    place.tunnels.gone.add(pair.link.contact_id)
    with pytest.raises(hybrid.LinkGone):
        await ask(place.connect(pair.link))
    assert hybrid.LinkForgotten("old phone") in place.client_events
    assert place.client_events[-1] == hybrid.Closed()
    place.assert_nothing_left()


async def test_another_phone_cannot_take_the_place_of_a_linked_one(place: Place) -> None:
    pair = _Pair()
    impostor = dataclasses.replace(pair.link, link_secret=secrets.token_bytes(32))
    serving = asyncio.create_task(pair.serve(place, phones.Phone(), impostor))
    with pytest.raises(hybrid.PeerTimeout) as caught:
        await ask(place.connect(pair.link, timeouts=hybrid.ClientTimeouts(scan=TINY)))
    assert caught.value.stage is Stage.SCAN
    await serving
    place.assert_nothing_left()


async def test_a_phone_with_the_secret_but_another_key_fails_the_handshake(place: Place) -> None:
    pair = _Pair()
    theirs = _Pair()
    link = dataclasses.replace(theirs.link, link_secret=pair.link.link_secret)
    serving = asyncio.create_task(pair.serve(place, phones.Phone()))
    with pytest.raises(hybrid.PeerClosed) as caught:
        await ask(place.connect(link))
    assert caught.value.stage is Stage.HANDSHAKE
    with pytest.raises(hybrid.HandshakeFailed):  # message 1 is for another phone
        await serving
    place.assert_nothing_left()


async def test_an_advert_may_be_heard_before_the_tunnel_stands(place: Place) -> None:
    pair = _Pair()
    phone = phones.Phone()
    held = _Held(place.tunnels)
    client = asyncio.create_task(ask(place.connect(pair.link, tunnels=held)))
    serving = asyncio.create_task(pair.serve(place, phone))
    await until(lambda: held.has_opened and place.air.adverts != () and place.air.listeners == 0)
    held.release()
    assert await client == phones.DENIED
    await serving
    place.assert_nothing_left()


class _Held:
    """A relay that has opened the tunnel long before it says so."""

    loopback = True

    def __init__(self, tunnels: MemoryTunnels) -> None:
        self._tunnels = tunnels
        self._released = asyncio.Event()
        self.has_opened = False

    def release(self) -> None:
        self._released.set()

    async def open(self, request: TunnelRequest) -> Channel:
        channel = await self._tunnels.open(request)
        self.has_opened = True
        await self._released.wait()
        return channel


async def test_a_contact_is_cancelled_at_every_turn() -> None:
    ended_well = 0
    for turn in range(80):
        place = Place(tunnels=MemoryTunnels(signals=True))
        pair = _Pair()
        serving = asyncio.create_task(pair.serve(place, phones.Phone()))
        session = hybrid.connect(pair.link, scanner=SlowAir(place.air), tunnels=SlowTunnels(place.tunnels))
        client = asyncio.create_task(ask(session))
        await turns(turn)
        client.cancel()
        await asyncio.wait([client])
        ended_well += not client.cancelled()
        await turns(20)
        serving.cancel()  # it may wait for a contact that never came
        await asyncio.wait([serving])
        place.assert_nothing_left()
    assert 0 < ended_well < 60
