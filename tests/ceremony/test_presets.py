"""Presets behind a code: whole ceremonies with our own client, and each habit as a client sees it.

The phones behind the presets were never here. What this shows is that a preset does what its data say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from fido2.server import Fido2Server
from fido2.webauthn import PublicKeyCredentialRpEntity, PublicKeyCredentialUserEntity

import hybrid
from hybrid import cbor
from hybrid.adapters.memory import MemoryAir
from hybrid.errors import Stage
from hybrid.events import LeftUnanswered, RequestIgnored, ResponseSent, TunnelOpened
from hybrid.fido2_bridge import HybridClientDataCollector, HybridWebAuthnClient
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.presets import PRESETS, phone_for
from hybrid.protocol.eid import FIDO_UUID
from hybrid.protocol.frames import MessageType
from hybrid.testing.peers import clients
from hybrid.testing.peers.wire import PeerLeft
from tests.ceremony.rig import Place

IPHONES = ("iphone", "iphone-ios18.0", "iphone-ios16")
SIGN_IN = b"\x02" + cbor.encode({1: "example.com", 2: bytes(32)})
NAMING = b"\x02" + cbor.encode({1: "example.com", 2: bytes(32), 3: [{"id": b"nobody's", "type": "public-key"}]})
UNSORTED = b"\x02\xa2\x02" + cbor.encode(bytes(32)) + b"\x01" + cbor.encode("example.com")
NAMELESS = b"\x01" + cbor.encode(
    {1: bytes(32), 2: {"id": "example.com"}, 3: {"id": b"u"}, 4: [{"alg": -7, "type": "public-key"}]}
)
MISTYPED = b"\x02" + cbor.encode({1: 7, 2: bytes(32)})
SELECTION = b"\x0b"


@asynccontextmanager
async def meeting(
    place: Place, phone: SoftwareAuthenticator, hint: hybrid.Hint, *, accept_link: bool = False
) -> AsyncIterator[hybrid.Session]:
    """A session of our client with `phone`."""
    invitation = hybrid.invite(hint, accept_link=accept_link)
    running = asyncio.create_task(place.answer(invitation.url, phone, habits=phone.profile.habits))
    try:
        async with place.connect(invitation) as session:
            yield session
    finally:
        await running


async def visit(
    place: Place,
    name: str,
    client: clients.Client,
    *,
    hint: str = "ga",
    many: bool = False,
    accept_link: bool = True,
) -> hybrid.Served:
    """Have a foreign client meet the phone. Those of the first generation do not say whether they accept a link."""
    phone = phone_for(name)
    invitation = hybrid.invite(hybrid.Hint(hint), accept_link=accept_link)
    visiting = asyncio.create_task(client.run(invitation, scanner=place.air, tunnels=place.tunnels))
    try:
        return await place.answer(invitation.url, phone, habits=phone.profile.habits, many=many)
    finally:
        await visiting
        place.assert_nothing_left()


# --- whole ceremonies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept_link", [False, True])
@pytest.mark.parametrize("name", PRESETS)
async def test_our_client_registers_and_signs_in(place: Place, name: str, accept_link: bool) -> None:
    phone = phone_for(name)
    rp = Fido2Server(PublicKeyCredentialRpEntity(id="example.com", name="Example"))
    creation, state = rp.register_begin(PublicKeyCredentialUserEntity(id=b"u", name="ann"))
    collector = HybridClientDataCollector("https://example.com")
    async with meeting(place, phone, hybrid.Hint.MAKE_CREDENTIAL, accept_link=accept_link) as session:
        client = HybridWebAuthnClient(session, collector)
        made = rp.register_complete(state, await asyncio.to_thread(client.make_credential, creation.public_key))
    assert made.credential_data is not None
    for allowed in ([made.credential_data], []):
        asked, state = rp.authenticate_begin(allowed)
        async with meeting(place, phone, hybrid.Hint.GET_ASSERTION, accept_link=accept_link) as session:
            client = HybridWebAuthnClient(session, collector)
            selection = await asyncio.to_thread(client.get_assertion, asked.public_key)
        rp.authenticate_complete(state, [made.credential_data], selection.get_response(0))
    place.assert_nothing_left()


# --- the way to each other --------------------------------------------------------------------------------------------


class _NotedAir(MemoryAir):
    """Remembers under which UUID it was used."""

    def __init__(self) -> None:
        super().__init__()
        self.uuids: list[str] = []

    @asynccontextmanager
    async def advertise(
        self, service_data: bytes, *, connectable: bool = False, service_uuid: str = FIDO_UUID
    ) -> AsyncIterator[None]:
        self.uuids.append(service_uuid)
        async with super().advertise(service_data, connectable=connectable):
            yield


@pytest.mark.parametrize("name", PRESETS)
async def test_relay_and_advert(name: str) -> None:
    air = _NotedAir()
    place = Place(air=air)
    await visit(place, name, clients.Client(NAMING))
    domain = "cable.auth.com" if name in IPHONES else "cable.ua5v.com"
    assert TunnelOpened(domain) in place.phone_events
    assert air.uuids == [f"0000{'fde2' if name == 'iphone-ios16' else 'fff9'}-0000-1000-8000-00805f9b34fb"]


async def test_another_relay_may_be_asked_for(place: Place) -> None:
    phone = phone_for("iphone")
    invitation = hybrid.invite()
    visiting = asyncio.create_task(clients.Client(NAMING).run(invitation, scanner=place.air, tunnels=place.tunnels))
    await hybrid.answer(
        invitation.url,
        phone,
        habits=phone.profile.habits,
        service_id=0,
        advertiser=place.air,
        tunnels=place.tunnels,
        on_event=place.phone_events.append,
    )
    await visiting
    assert TunnelOpened("cable.ua5v.com") in place.phone_events


@pytest.mark.parametrize("name", PRESETS)
async def test_a_code_that_lists_channels(place: Place, name: str) -> None:
    invitation = hybrid.invite()
    invitation.qr = replace(invitation.qr, transports_stated=True, state_assisted=False)
    phone = phone_for(name)
    answering = place.answer(invitation.url, phone, habits=phone.profile.habits)
    if name == "android":
        with pytest.raises(hybrid.InvalidQR) as caught:
            await answering
        assert caught.value.reason is hybrid.QRProblem.CHANNEL_LIST
        assert place.tunnels.opened == []
        return
    client = clients.Client(NAMING)
    visiting = asyncio.create_task(client.run(invitation, scanner=place.air, tunnels=place.tunnels))
    await answering
    await visiting
    assert client.answers == [b"\x2e"]


# --- the greeting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "greeting"),
    [
        ("iphone", "03 82 64 63746170 62 6463"),
        ("iphone-ios16", ""),
        ("android", "03 82 64 63746170 62 6463"),
        ("android-chrome2022", ""),
        ("microg", "03 82 62 6463 64 63746170"),
    ],
)
async def test_the_greeting_byte_for_byte(place: Place, name: str, greeting: str) -> None:
    client = clients.Client(NAMING)
    await visit(place, name, client)
    features = bytes.fromhex(greeting)
    get_info = phone_for(name).get_info
    head = bytes([0xA2 if features else 0xA1]) + b"\x01" + cbor.encode(get_info)
    assert client.greeting == head + features


@pytest.mark.parametrize("name", PRESETS)
async def test_old_chrome_speaks_revision_0_to_who_does_not_say_whether_it_links(place: Place, name: str) -> None:
    old = name == "android-chrome2022"
    client = _OfRevision0(NAMING) if old else clients.Client(NAMING)
    served = await visit(place, name, client, accept_link=False)
    get_info = b"\xa1\x01" + cbor.encode(phone_for(name).get_info)
    padded = get_info + bytes(510 - len(get_info)) + (510 - len(get_info)).to_bytes(2, "little")
    assert (client.greeting == padded) is old
    assert (client.answers, served.statuses) == ([b"\x2e"], [0x2E])


@pytest.mark.parametrize("name", PRESETS)
async def test_an_update_follows_the_greeting_of_android(place: Place, name: str) -> None:
    client = clients.Client(NAMING)
    await visit(place, name, client)
    # As Chrome sends it: type 02, a map of nothing but padding, so that nobody sees whether the phone links.
    update = b"\xa1\x00\x59\x01\xf9" + bytes(0x1F9)
    assert client.updates == ([update] if name.startswith("android") else [])
    async with meeting(place, phone_for(name), hybrid.Hint.GET_ASSERTION) as session:
        assert (await session.call(NAMING))[0] == 0x2E
        assert session.link is None


class _OfRevision0(clients.Client):
    """Knows no message types, and says goodbye by closing."""

    async def ask(self) -> None:
        await self.wire.send_plaintext(self.request)

    async def read_answer(self) -> None:
        self.answers.append(await self.wire.receive_plaintext())

    async def say_goodbye(self) -> None:
        raise PeerLeft


# --- questions --------------------------------------------------------------------------------------------------------


class _AsksGetInfoFirst(clients.Client):
    """Asks for getInfo, and for the rest without waiting."""

    async def talk(self) -> None:
        await self.wire.send_frame(MessageType.CTAP, b"\x04")
        await super().talk()


@pytest.mark.parametrize("name", IPHONES)
async def test_an_iphone_says_nothing_to_a_second_get_info(place: Place, name: str) -> None:
    client = clients.AsksOnlyGetInfo()
    served = await visit(place, name, client)
    assert (client.answers, served.statuses) == ([], [])
    assert RequestIgnored(4) in place.phone_events


async def test_an_iphone_serves_who_does_not_wait_for_it(place: Place) -> None:
    client = _AsksGetInfoFirst(NAMING)
    await visit(place, "iphone", client)
    assert client.answers == [b"\x2e"]


@pytest.mark.parametrize("name", sorted(set(PRESETS) - set(IPHONES)))
async def test_others_answer_a_second_get_info(place: Place, name: str) -> None:
    client = clients.AsksGetInfo(NAMING)
    await visit(place, name, client)
    assert client.answers == [b"\x00" + phone_for(name).get_info, b"\x2e"]


@pytest.mark.parametrize("name", PRESETS)
async def test_one_command_and_no_more(place: Place, name: str) -> None:
    client = clients.AsksAgainAfterAnswer(NAMING)
    served = await visit(place, name, client, many=True)
    assert (served.statuses, client.answers) == ([0x2E], [b"\x2e"])


async def test_our_own_phone_may_serve_more(place: Place) -> None:
    client = clients.AsksAgainAfterAnswer()
    invitation = hybrid.invite()
    visiting = asyncio.create_task(client.run(invitation, scanner=place.air, tunnels=place.tunnels))
    assert len((await place.answer(invitation.url, many=True)).statuses) == 2
    await visiting


LEAVES = {
    "android": {UNSORTED: 0x12},
    "android-chrome2022": {SIGN_IN: 0x2E, UNSORTED: 0x12, NAMELESS: 0x14, MISTYPED: 0x11, SELECTION: 0x01},
}
STATUSES = {SIGN_IN: 0x2E, NAMING: 0x2E, UNSORTED: 0x12, NAMELESS: 0x00, MISTYPED: 0x11, SELECTION: 0x01}


@pytest.mark.parametrize(
    "request_", STATUSES, ids=["sign-in", "naming", "unsorted", "nameless", "mistyped", "selection"]
)
@pytest.mark.parametrize("name", PRESETS)
async def test_who_leaves_in_place_of_an_answer(place: Place, name: str, request_: bytes) -> None:
    client = clients.Client(request_)
    served = await visit(place, name, client, hint="mc" if request_ == NAMELESS else "dcp")
    leaves = LEAVES.get(name, {}).get(request_)
    if leaves is not None:
        assert (client.answers, served.statuses) == ([], [])
        assert place.phone_events[-2:] == [LeftUnanswered(request_[0], leaves), hybrid.Closed()]
        return
    (answer,) = client.answers
    expected = STATUSES[request_]
    if name in IPHONES and request_ == NAMELESS:
        expected = 0x14
    if request_ == UNSORTED and name in (*IPHONES, "microg"):
        expected = 0x2E
    assert answer[0] == expected
    assert ResponseSent(expected) in place.phone_events


async def test_a_get_info_with_a_parameter_ends_chromes_session(place: Place) -> None:
    client = clients.AsksGetInfoBadly(NAMING)
    await visit(place, "android-chrome2022", client)
    assert client.answers == []
    assert LeftUnanswered(4, 0x03) in place.phone_events


async def test_our_client_names_a_phone_that_left_empty_handed(place: Place) -> None:
    with pytest.raises(hybrid.PeerClosed) as caught:
        async with meeting(place, phone_for("android-chrome2022"), hybrid.Hint.GET_ASSERTION) as session:
            await session.call(SIGN_IN)
    assert caught.value.stage is Stage.RESPONSE
    place.assert_nothing_left()


async def test_few_lines_are_enough(place: Place) -> None:
    invitation = hybrid.invite(hybrid.Hint.MAKE_CREDENTIAL)
    phone = phone_for("iphone")
    running = asyncio.create_task(
        hybrid.answer(invitation.url, phone, habits=phone.profile.habits, advertiser=place.air, tunnels=place.tunnels)
    )
    async with place.connect(invitation) as session:
        assert session.features == ("ctap", "dc")
        assert session.get_info == phone.get_info
    await running
