"""No secret leaves a session by a log line, a repr, an event or a traceback, even with everything at debug level."""

from __future__ import annotations

import asyncio
import base64
import logging
import traceback

import pytest

import hybrid
from hybrid.driving import EventStream
from hybrid.errors import HybridError
from hybrid.protocol.client import ClientMachine, Send
from hybrid.protocol.frames import Frame, MessageType, Opener, Sealer
from hybrid.testing.peers import clients, phones
from tests.ceremony.rig import REQUEST, RESPONSE, Backend, Place

PREFIX = 8  # as many bytes of a secret in a row are a leak: some reprs cut long values short


def _forms(secret: bytes) -> list[str]:
    """How a secret would look in text, whole or cut short."""
    start = secret[:PREFIX]
    shown = [repr(bytes([byte]))[2:-1] for byte in start]
    return [
        start.hex(),
        start.hex().upper(),
        start.hex(" "),
        "".join(shown),
        "".join("\\'" if char == "'" else char for char in shown),  # as written where there is a double quote, too
        str(list(start))[1:-1],
        base64.b64encode(secret)[:PREFIX].decode(),
        base64.urlsafe_b64encode(secret)[:PREFIX].decode(),
    ]


def _leaks(text: str, secrets: dict[str, bytes], digits: str) -> list[str]:
    found = [name for name, secret in secrets.items() if any(form in text for form in _forms(secret))]
    chunks = [digits[at : at + 17] for at in range(0, len(digits) - 16, 17)]
    return found + ["QR digits" for chunk in chunks if chunk in text]


def _digits(invitation: hybrid.Invitation) -> str:
    return invitation.url.removeprefix("FIDO:/")


def _secrets(invitation: hybrid.Invitation, machine: ClientMachine | None = None) -> dict[str, bytes]:
    """Everything that a session keeps to itself, by name."""
    scalar = invitation.identity.private_numbers().private_value.to_bytes(32, "big")
    secrets = {
        "QR secret": invitation.qr.secret,
        "EID key": invitation.qr.eid_key(),
        "identity key": scalar,
        "request": REQUEST[PREFIX:],
        "response": RESPONSE[PREFIX:],
    }
    if machine is not None and machine.eid is not None:
        secrets["PSK"] = invitation.qr.psk(machine.eid)
    if machine is not None and machine._keys is not None:
        secrets["client's key"] = machine._keys.client_to_phone
        secrets["phone's key"] = machine._keys.phone_to_client
    return secrets


@pytest.fixture
async def everything(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """All loggers at debug level, and asyncio tells of every single step."""
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0
    return caplog


def test_the_search_finds_what_it_is_for() -> None:
    invitation = hybrid.invite()
    secrets = _secrets(invitation)
    for name, secret in secrets.items():
        for text in (repr(secret), f"<{secret.hex()}>", secret.hex().upper(), base64.b64encode(secret).decode()):
            assert _leaks(f"log: {text}", secrets, "") == [name]
    assert "QR digits" in _leaks(f"showing {invitation.url}", secrets, _digits(invitation))


async def test_a_good_ceremony(place: Place, everything: pytest.LogCaptureFixture) -> None:
    invitation = hybrid.invite(accept_link=True)
    backend = Backend()
    stream = EventStream()
    phone = asyncio.create_task(place.answer(invitation.url, backend))
    said = []
    async with place.connect(invitation) as session:
        # Awaited as it is: a task of the caller's own would show its result, which asyncio cuts short, in its repr.
        assert await session.call(REQUEST) == RESPONSE
        machine = session._run.machine
        said += [repr(session), repr(machine), repr(session._run), repr(machine.greeting)]
        said += [repr(machine._keys), repr(machine._sealer), repr(machine._opener), repr(machine._initiator)]
    served = await phone
    said += [repr(value) for value in (invitation, invitation.qr, served, stream, backend.peers, place.tunnels)]
    said += [repr(event) for event in place.client_events + place.phone_events]
    secrets = _secrets(invitation, machine)
    assert {"PSK", "client's key", "phone's key"} <= set(secrets)
    assert "Executing" in everything.text  # asyncio did tell
    assert "hybrid" in {record.name.partition(".")[0] for record in everything.records}
    assert _leaks(everything.text, secrets, _digits(invitation)) == []
    assert _leaks("\n".join(said), secrets, _digits(invitation)) == []


BAD_PHONES = [
    phones.WrongPsk,
    phones.TamperedMessage2,
    phones.UnreadableGreeting,
    phones.BadPadding,
    phones.SkippedCounter,
    phones.TypeNine,
    phones.AnswersTwice,
    phones.UnreadableUpdate,
    phones.ClosesWithoutAnswer,
]


@pytest.mark.parametrize("phone_type", BAD_PHONES)
async def test_failures_of_the_client(
    place: Place, everything: pytest.LogCaptureFixture, phone_type: type[phones.Phone]
) -> None:
    invitation = hybrid.invite()
    phone = phone_type(response=RESPONSE)
    running = asyncio.create_task(phone.run(invitation.url, advertiser=place.air, tunnels=place.tunnels))
    said = ""
    machine = None
    try:
        async with place.connect(invitation) as session:
            machine = session._run.machine
            await session.call(REQUEST)
            await session.call(REQUEST)
    except HybridError as error:
        said = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__)
    await running
    assert "Traceback" in said or phone_type is phones.UnreadableUpdate
    assert _leaks(everything.text + said, _secrets(invitation, machine), _digits(invitation)) == []


@pytest.mark.parametrize("client_type", [clients.WrongMessage1, clients.TwoRequests, clients.BadPadding])
async def test_failures_of_the_phone(
    place: Place, everything: pytest.LogCaptureFixture, client_type: type[clients.Client]
) -> None:
    invitation = hybrid.invite()
    client = client_type(REQUEST)
    running = asyncio.create_task(client.run(invitation, scanner=place.air, tunnels=place.tunnels))
    with pytest.raises(HybridError) as caught:
        await place.answer(invitation.url, Backend(prompts=True))
    await running
    said = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert _leaks(everything.text + said, _secrets(invitation), _digits(invitation)) == []


@pytest.mark.parametrize(
    "spoil", [lambda digits: digits[:-1], lambda digits: digits[:-1] + "x", lambda digits: "9" * 17 + digits]
)
async def test_a_code_that_cannot_be_read_is_not_repeated(place: Place, spoil: object) -> None:
    assert callable(spoil)
    invitation = hybrid.invite()
    with pytest.raises(hybrid.InvalidQR) as caught:
        await place.answer("FIDO:/" + spoil(_digits(invitation)))
    said = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(caught.value.__dict__)
    assert _leaks(said, _secrets(invitation), _digits(invitation)) == []


def test_a_link_and_the_parts_of_a_session_are_silent() -> None:
    phone = phones.Linking()
    key = bytes(range(32))
    secrets = {"link secret": phone.link.link_secret, "key": key, "request": REQUEST[PREFIX:]}
    said = [
        repr(phone.link),
        repr(Sealer(key)),
        repr(Opener(key)),
        repr(Send(REQUEST)),
        repr(Frame(MessageType.CTAP, REQUEST)),
    ]
    assert _leaks("\n".join(said), secrets, "") == []
