"""Every client that misbehaves, with what the phone makes of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

import hybrid
from hybrid.errors import HybridError, Stage
from hybrid.testing.peers import clients
from tests.ceremony.rig import GET_INFO, REQUEST, RESPONSE, Backend, Place, classes_in

TINY = 0.02


@dataclass(frozen=True)
class Refused:
    """A client, the exact error that it causes, its words and its stage."""

    client: type[clients.Client]
    error: type[HybridError]
    says: str = ""
    stage: Stage | None = None
    timeouts: hybrid.PhoneTimeouts | None = None
    unbounded: bool = True  # whether a stream sees the same

    def __str__(self) -> str:
        return self.client.__name__


REMOTE = hybrid.RemoteProtocolError
FAILED = hybrid.HandshakeFailed
LATE = hybrid.PeerTimeout

REFUSED = [
    Refused(clients.WrongMessage1, FAILED, "does not authenticate"),
    Refused(clients.BadPoint, FAILED, "P-256 point"),
    Refused(clients.ShortMessage1, FAILED, "80 bytes", unbounded=False),
    Refused(clients.LongMessage1, FAILED, "82 bytes", unbounded=False),
    Refused(clients.NeverShakesHands, LATE, stage=Stage.ADVERTISE, timeouts=hybrid.PhoneTimeouts(advertise=TINY)),
    Refused(clients.LeavesBeforeHandshake, hybrid.PeerClosed, stage=Stage.ADVERTISE),
    Refused(clients.SilentAfterGreeting, LATE, stage=Stage.REQUEST, timeouts=hybrid.PhoneTimeouts(request=TINY)),
    Refused(clients.TwoRequests, REMOTE, "second request"),
    Refused(clients.JsonRequest, REMOTE, "do not serve"),
    Refused(clients.TypeNine, REMOTE, "unknown type 9"),
    Refused(clients.EmptyFrame, REMOTE, "is empty"),
    Refused(clients.EmptyRequest, REMOTE, "is empty"),
    Refused(clients.UnreadableUpdate, REMOTE),
    Refused(clients.BadPadding, REMOTE, "shorter than its padding"),
    Refused(clients.SkippedCounter, REMOTE, "does not authenticate", unbounded=False),
    Refused(clients.ReusedCounter, REMOTE, "does not authenticate", unbounded=False),
    Refused(clients.Oversize, REMOTE, "1 MiB"),
    Refused(clients.RequestAfterShutdown, REMOTE, "said that it is done"),
]


async def _refuse(place: Place, case: Refused) -> None:
    invitation = hybrid.invite()
    backend = Backend(prompts=True)
    client = case.client(REQUEST)
    running = asyncio.create_task(client.run(invitation, scanner=place.air, tunnels=place.tunnels))
    with pytest.raises(HybridError) as caught:
        await place.answer(invitation.url, backend, timeouts=case.timeouts)
    assert type(caught.value) is case.error
    assert case.says in str(caught.value)
    assert getattr(caught.value, "stage", None) is case.stage
    await running
    assert client.answers == []
    assert not backend.is_open
    assert place.phone_events.count(hybrid.Closed()) == 1
    place.assert_nothing_left()


@pytest.mark.parametrize("case", REFUSED, ids=str)
async def test_refused(place: Place, case: Refused) -> None:
    await _refuse(place, case)


@pytest.mark.parametrize("case", [case for case in REFUSED if case.unbounded], ids=str)
async def test_refused_over_a_stream(stream_place: Place, case: Refused) -> None:
    await _refuse(stream_place, case)


async def test_the_prompt_of_a_client_that_breaks_the_rules_is_dismissed(place: Place) -> None:
    invitation = hybrid.invite()
    backend = Backend(prompts=True)
    running = asyncio.create_task(
        clients.TwoRequests(REQUEST).run(invitation, scanner=place.air, tunnels=place.tunnels)
    )
    with pytest.raises(hybrid.RemoteProtocolError):
        await place.answer(invitation.url, backend)
    # The second request came with the first: whether or not the prompt was opened, it is gone.
    assert not backend.is_open
    await running


# --- strange, but served ----------------------------------------------------------------------------------------------

SERVED: dict[type[clients.Client], tuple[list[bytes], list[int]]] = {
    # client: the answers that it gets, the statuses that count
    clients.Client: ([RESPONSE], [0]),
    clients.EarlyRequest: ([RESPONSE], [0]),
    clients.PadsOddly: ([RESPONSE], [0]),
    clients.SendsUpdate: ([RESPONSE], [0]),
    clients.ClosesAfterAnswer: ([RESPONSE], [0]),
    clients.StaysAfterAnswer: ([RESPONSE], [0]),
    clients.AsksAgainAfterAnswer: ([RESPONSE], [0]),
    clients.AsksGetInfo: ([b"\x00" + GET_INFO, RESPONSE], [0]),
    clients.AsksGetInfoBadly: ([b"\x03", RESPONSE], [0]),
    clients.AsksOnlyGetInfo: ([b"\x00" + GET_INFO], []),
    clients.LeavesAfterGreeting: ([], []),
    clients.HangsUpAfterGreeting: ([], []),
}


@pytest.mark.parametrize("client_type", SERVED, ids=str)
async def test_served(either_place: Place, client_type: type[clients.Client]) -> None:
    invitation = hybrid.invite()
    answers, statuses = SERVED[client_type]
    backend = Backend()
    client = client_type(REQUEST)
    running = asyncio.create_task(client.run(invitation, scanner=either_place.air, tunnels=either_place.tunnels))
    served = await either_place.answer(invitation.url, backend, timeouts=hybrid.PhoneTimeouts(close=TINY))
    await running
    assert served.statuses == statuses
    assert client.answers == answers
    assert backend.requests == [REQUEST] * len(statuses)
    either_place.assert_nothing_left()


@pytest.mark.parametrize("client_type", [clients.LeavesWhileAsking, clients.HangsUpWhileAsking])
async def test_a_client_that_leaves_while_asking_is_no_error(place: Place, client_type: type[clients.Client]) -> None:
    invitation = hybrid.invite()
    backend = Backend(prompts=True)
    client = client_type(REQUEST)
    running = asyncio.create_task(client.run(invitation, scanner=place.air, tunnels=place.tunnels))
    served = await place.answer(invitation.url, backend)
    await running
    assert served.statuses == []
    assert client.answers == []
    assert not backend.is_open
    place.assert_nothing_left()


async def test_many_answers_as_long_as_the_client_asks(place: Place) -> None:
    invitation = hybrid.invite()
    client = clients.AsksAgainAfterAnswer(REQUEST)
    running = asyncio.create_task(client.run(invitation, scanner=place.air, tunnels=place.tunnels))
    served = await place.answer(invitation.url, many=True)
    await running
    assert served.statuses == [0, 0]
    assert client.answers == [RESPONSE, RESPONSE]
    place.assert_nothing_left()


def test_every_client_has_a_sentence_and_a_test() -> None:
    kinds = classes_in(clients, clients.Client)
    leave = {clients.LeavesWhileAsking, clients.HangsUpWhileAsking}
    assert set(kinds) == {case.client for case in REFUSED} | set(SERVED) | leave
    assert [kind for kind in kinds if not vars(kind).get("__doc__")] == []


# --- the backend ------------------------------------------------------------------------------------------------------


class _Bug(Exception):
    pass


class _BrokenBackend(Backend):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    async def call(self, request: bytes, *, peer: object) -> bytes:
        raise self._error


@pytest.mark.parametrize("error", [_Bug("a bug"), hybrid.LocalProtocolError("ours"), asyncio.CancelledError()])
async def test_what_a_backend_raises_reaches_the_caller(place: Place, error: BaseException) -> None:
    invitation = hybrid.invite()
    running = asyncio.create_task(clients.Client(REQUEST).run(invitation, scanner=place.air, tunnels=place.tunnels))
    with pytest.raises(type(error)):
        await place.answer(invitation.url, _BrokenBackend(error))
    await running
    place.assert_nothing_left()


@pytest.mark.parametrize("response", [b"", b"\x00" + bytes(1 << 20)], ids=["empty", "too large"])
async def test_an_answer_that_does_not_fit_is_our_own_fault(place: Place, response: bytes) -> None:
    invitation = hybrid.invite()
    running = asyncio.create_task(clients.Client(REQUEST).run(invitation, scanner=place.air, tunnels=place.tunnels))
    with pytest.raises(hybrid.LocalProtocolError):
        await place.answer(invitation.url, Backend(response))
    await running
    place.assert_nothing_left()


async def test_a_listener_that_fails_ends_the_session(place: Place) -> None:
    def fail(event: hybrid.Event) -> None:
        raise _Bug(type(event).__name__)

    invitation = hybrid.invite()
    with pytest.raises(_Bug):
        await hybrid.answer(invitation.url, Backend(), advertiser=place.air, tunnels=place.tunnels, on_event=fail)
    place.assert_nothing_left()
