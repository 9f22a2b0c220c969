"""Every phone that misbehaves, with what the client makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

import hybrid
from hybrid.errors import HybridError, Stage
from hybrid.testing.peers import phones
from tests.ceremony.rig import REQUEST, Place, ask, classes_in, until

TINY = 0.02


@dataclass(frozen=True)
class Case:
    """A phone, the exact error it causes, its words, its stage, and the time-outs where silence is the point."""

    phone: Callable[[], phones.Phone]
    error: type[HybridError]
    says: str = ""
    stage: Stage | None = None
    timeouts: hybrid.ClientTimeouts | None = None
    unbounded: bool = True  # whether a stream sees the same

    def __str__(self) -> str:
        phone = self.phone()
        return type(phone).__name__ + (f"-{phone.stage}" if hasattr(phone, "stage") else "")


SHORT_SCAN = hybrid.ClientTimeouts(scan=TINY)
REMOTE = hybrid.RemoteProtocolError
FAILED = hybrid.HandshakeFailed
CLOSED = hybrid.PeerClosed
LATE = hybrid.PeerTimeout

CASES = [
    Case(phones.WrongTag, LATE, stage=Stage.SCAN, timeouts=SHORT_SCAN),
    Case(phones.ShortAdvert, LATE, stage=Stage.SCAN, timeouts=SHORT_SCAN),
    Case(phones.WrongPsk, FAILED, "does not authenticate"),
    Case(phones.TamperedMessage2, FAILED, "does not authenticate"),
    Case(phones.ReflectsMessage1, FAILED, "does not authenticate"),
    Case(phones.BadPoint, FAILED, "P-256 point"),
    Case(phones.ShortMessage2, FAILED, "80 bytes", unbounded=False),
    Case(phones.LongMessage2, FAILED, "82 bytes", unbounded=False),
    Case(phones.NoGetInfo, REMOTE, "contradict"),
    Case(phones.GetInfoWithoutFeature, REMOTE, "contradict"),
    Case(phones.FeaturesAreText, REMOTE, "no list"),
    Case(phones.UnreadableGreeting, REMOTE, "neither a CBOR map nor a padded one"),
    Case(phones.EmptyGreeting, REMOTE, "neither a CBOR map nor a padded one"),
    Case(phones.FeaturesWithoutCtap, hybrid.LocalProtocolError, "does not speak CTAP"),
    Case(phones.BadPadding, REMOTE, "shorter than its padding"),
    Case(phones.NoPadding, REMOTE, "no padding"),
    Case(phones.SkippedCounter, REMOTE, "does not authenticate", unbounded=False),
    Case(phones.ReusedCounter, REMOTE, "does not authenticate", unbounded=False),
    Case(phones.PlainAnswer, REMOTE, "does not authenticate", unbounded=False),
    Case(phones.Oversize, REMOTE, "1 MiB"),
    Case(phones.TypeNine, REMOTE, "unknown type 9"),
    Case(phones.EmptyFrame, REMOTE, "is empty"),
    Case(phones.EmptyAnswer, REMOTE, "answer is empty"),
    Case(phones.AnswerOfOtherType, REMOTE, "nobody asked"),
    Case(phones.UnannouncedJson, REMOTE, "did not announce"),
    Case(phones.UnaskedAnswer, REMOTE, "nobody asked"),
    Case(phones.ShutdownInsteadOfAnswer, CLOSED, stage=Stage.RESPONSE),
    Case(phones.ClosesWithoutAnswer, CLOSED, stage=Stage.RESPONSE),
    Case(lambda: phones.HangsUp(Stage.HANDSHAKE), CLOSED, stage=Stage.HANDSHAKE),
    Case(lambda: phones.HangsUp(Stage.GREETING), CLOSED, stage=Stage.GREETING),
    Case(lambda: phones.HangsUp(Stage.REQUEST), CLOSED, stage=Stage.REQUEST),
    Case(lambda: phones.HangsUp(Stage.RESPONSE), CLOSED, stage=Stage.RESPONSE),
    Case(lambda: phones.HangsUp(Stage.SCAN), LATE, stage=Stage.SCAN, timeouts=SHORT_SCAN),
    Case(lambda: phones.SilentAt(Stage.SCAN), LATE, stage=Stage.SCAN, timeouts=SHORT_SCAN),
    Case(
        lambda: phones.SilentAt(Stage.HANDSHAKE),
        LATE,
        stage=Stage.HANDSHAKE,
        timeouts=hybrid.ClientTimeouts(handshake=TINY),
    ),
    Case(
        lambda: phones.SilentAt(Stage.GREETING),
        LATE,
        stage=Stage.GREETING,
        timeouts=hybrid.ClientTimeouts(greeting=TINY),
    ),
    Case(lambda: phones.SilentAt(Stage.REQUEST), LATE, stage=Stage.RESPONSE, timeouts=hybrid.ClientTimeouts(user=TINY)),
    Case(phones.NeverAnswers, LATE, stage=Stage.RESPONSE, timeouts=hybrid.ClientTimeouts(user=TINY)),
]


async def _meet(place: Place, case: Case) -> None:
    invitation = hybrid.invite()
    phone = asyncio.create_task(case.phone().run(invitation.url, advertiser=place.air, tunnels=place.tunnels))
    with pytest.raises(HybridError) as caught:
        await ask(place.connect(invitation, timeouts=case.timeouts))
    assert type(caught.value) is case.error
    assert case.says in str(caught.value)
    assert getattr(caught.value, "stage", None) is case.stage
    if case.timeouts is SHORT_SCAN:
        phone.cancel()  # nobody ever joined it
    await asyncio.wait([phone])
    assert phone.cancelled() or phone.exception() is None
    assert place.client_events[-1] == hybrid.Closed()
    assert place.client_events.count(hybrid.Closed()) == 1
    place.assert_nothing_left()


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_over_messages(place: Place, case: Case) -> None:
    await _meet(place, case)


@pytest.mark.parametrize("case", [case for case in CASES if case.unbounded], ids=str)
async def test_over_a_stream(stream_place: Place, case: Case) -> None:
    await _meet(stream_place, case)


STREAM_CASES = [
    Case(phones.ShortMessage2, REMOTE, "does not end after 81 bytes"),
    Case(phones.LongMessage2, REMOTE, "does not end after 81 bytes"),
    Case(phones.ManyFalseEnds, REMOTE, "at any of its ends"),
    # Where no end of a message authenticates, more bytes may always come.
    Case(phones.SkippedCounter, LATE, stage=Stage.RESPONSE, timeouts=hybrid.ClientTimeouts(user=TINY)),
    Case(phones.PlainAnswer, LATE, stage=Stage.RESPONSE, timeouts=hybrid.ClientTimeouts(user=TINY)),
]


@pytest.mark.parametrize("case", STREAM_CASES, ids=str)
async def test_a_stream_sees_it_differently(stream_place: Place, case: Case) -> None:
    await _meet(stream_place, case)


def test_every_phone_has_a_sentence_and_a_test() -> None:
    kinds = classes_in(phones, phones.Phone)
    tested = {type(case.phone()) for case in CASES + STREAM_CASES}
    assert set(kinds) == tested | ACCEPTED | {phones.Phone, phones.Linking}
    assert [kind for kind in kinds if not vars(kind).get("__doc__")] == []


# --- strange, but accepted --------------------------------------------------------------------------------------------

ACCEPTED: set[type[phones.Phone]] = {
    phones.AdvertWithSuffix,
    phones.PadsOddly,
    phones.SendsShutdown,
    phones.AnswersTwice,
    phones.NeverCloses,
    phones.LinksBefore,
    phones.LinksBetween,
    phones.LinksAfter,
    phones.LateLinking,
    phones.BadLinkingProof,
    phones.UnreadableUpdate,
    phones.EmptyUpdate,
    phones.Revision0,
}


@pytest.mark.parametrize("phone_type", sorted({phones.Phone, *ACCEPTED}, key=str))
async def test_accepted(either_place: Place, phone_type: type[phones.Phone]) -> None:
    invitation = hybrid.invite()
    phone = phone_type()
    running = asyncio.create_task(phone.run(invitation.url, advertiser=either_place.air, tunnels=either_place.tunnels))
    session = either_place.connect(invitation, timeouts=hybrid.ClientTimeouts(close=TINY))
    assert await ask(session) == phones.DENIED
    await running
    assert phone.requests == [REQUEST]
    either_place.assert_nothing_left()


async def test_a_second_answer_ends_the_session_for_the_next_call(place: Place) -> None:
    invitation = hybrid.invite()
    phone = asyncio.create_task(phones.AnswersTwice().run(invitation.url, advertiser=place.air, tunnels=place.tunnels))
    async with place.connect(invitation) as session:
        assert await session.call(REQUEST) == phones.DENIED
        with pytest.raises(hybrid.RemoteProtocolError, match="nobody asked"):
            await session.call(REQUEST)
    await phone
    place.assert_nothing_left()


async def test_shutdown_of_a_phone_is_a_clean_close(place: Place) -> None:
    invitation = hybrid.invite()
    phone = asyncio.create_task(phones.SendsShutdown().run(invitation.url, advertiser=place.air, tunnels=place.tunnels))
    async with place.connect(invitation) as session:
        assert await session.call(REQUEST) == phones.DENIED
        with pytest.raises(hybrid.PeerClosed) as caught:
            await session.call(REQUEST)
        assert caught.value.stage is Stage.REQUEST
    await phone
    place.assert_nothing_left()


async def test_a_phone_without_ctap_still_has_a_session(place: Place) -> None:
    invitation = hybrid.invite()
    phone = phones.FeaturesWithoutCtap()
    running = asyncio.create_task(phone.run(invitation.url, advertiser=place.air, tunnels=place.tunnels))
    async with place.connect(invitation) as session:
        assert session.features == ("dc",)
        assert session.get_info == b""
    await running
    assert phone.was_told_goodbye


@pytest.mark.parametrize("phone_type", [phones.Phone, phones.NeverCloses, phones.NeverAnswers])
async def test_a_phone_is_told_goodbye(place: Place, phone_type: type[phones.Phone]) -> None:
    invitation = hybrid.invite()
    phone = phone_type()
    running = asyncio.create_task(phone.run(invitation.url, advertiser=place.air, tunnels=place.tunnels))
    async with place.connect(invitation, timeouts=hybrid.ClientTimeouts(close=TINY)):
        pass
    await running
    assert phone.was_told_goodbye


async def test_revision_0_is_told_goodbye_by_closing(place: Place) -> None:
    invitation = hybrid.invite(accept_link=True)
    phone = phones.Revision0()
    running = asyncio.create_task(phone.run(invitation.url, advertiser=place.air, tunnels=place.tunnels))
    async with place.connect(invitation) as session:
        assert session.link == phone.link
        assert await session.call(REQUEST) == phones.DENIED
        assert await session.call(REQUEST) == phones.DENIED
    await running
    assert phone.requests == [REQUEST, REQUEST]
    assert not phone.was_told_goodbye
    place.assert_nothing_left()


async def test_a_phone_that_is_gone_when_its_advert_is_heard(place: Place) -> None:
    invitation = hybrid.invite()
    phone = asyncio.create_task(
        phones.SilentAt(Stage.HANDSHAKE).run(invitation.url, advertiser=place.air, tunnels=place.tunnels)
    )
    await until(lambda: bool(place.air.adverts))
    (advert,) = place.air.adverts
    phone.cancel()
    await asyncio.wait([phone])
    client = asyncio.create_task(ask(place.connect(invitation)))
    await until(lambda: bool(place.air.listeners))
    place.air.broadcast(advert)
    with pytest.raises(hybrid.TunnelError) as caught:
        await client
    assert (caught.value.reason, caught.value.status) == (hybrid.TunnelProblem.STATUS, 404)
    place.assert_nothing_left()
