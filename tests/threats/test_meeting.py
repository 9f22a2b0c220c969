"""Threats to how laptop and phone meet: links, codes, nearness, the simulated air, the relay and its name (T1 to T7).

The threats and the table of their tests are in docs/security.md. Each test shows a control at work; the thorough tests
of the same code are beside it in the other folders.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import hybrid
from hybrid.adapters.memory import MemoryAir, MemoryTunnels
from hybrid.adapters.websocket_tunnel import WebSocketTunnels
from hybrid.cli import consent as terminal_consent
from hybrid.cli.consent import Terminal, TerminalConsent
from hybrid.cli.main import run
from hybrid.cli.vault_keys import UnlockedConsent
from hybrid.driving import check_simulation
from hybrid.events import Proximity
from hybrid.passkeys.store import MemoryStore
from hybrid.ports import TunnelService
from hybrid.protocol import eid, handshake
from hybrid.protocol.client import QrIntroduction
from hybrid.protocol.eid import Eid
from hybrid.protocol.tunnel import New, TunnelRequest, tunnel_domain
from hybrid.testing.peers import relays
from tests.ceremony.rig import REQUEST, RESPONSE, Backend, Place, ask
from tests.passkeys.rig import PEER, create, phone, sign_in

ROOT = Path(__file__).parents[2]
TINY = 0.02


@pytest.fixture
def place() -> Place:
    return Place()


def exit_code(*words: str) -> object:
    with pytest.raises(SystemExit) as caught:
        run(list(words))
    return caught.value.code


# --- T1: a link that arrives by itself --------------------------------------------------------------------------------


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Codes that the phone's command went on to answer: from there on it would talk to the network."""
    codes: list[str] = []

    async def answer(code: str, *_: object, **__: object) -> None:
        codes.append(code)

    monkeypatch.setattr("hybrid.cli.phone.answer", answer)
    return codes


def test_t1_nothing_that_is_installed_takes_links() -> None:
    installed = [path for path in (ROOT / "share").rglob("*") if path.is_file()]
    assert installed
    assert [path for path in installed if path.suffix in (".desktop", ".xml", ".list")] == []
    texts = [*installed, *(ROOT / "hybrid").rglob("*.py"), ROOT / "pyproject.toml"]
    assert [path for path in texts if "x-scheme-handler" in path.read_text().lower()] == []


def test_t1_a_link_alone_is_no_command(answered: list[str]) -> None:
    assert exit_code(hybrid.invite().url) == 2
    assert answered == []


def test_t1_without_a_person_at_a_terminal_a_link_starts_nothing(
    answered: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """How a URL handler would start us: with the link as an argument, and nobody at a terminal."""
    monkeypatch.setattr(terminal_consent, "Terminal", partial(Terminal, str(tmp_path / "no-terminal")))
    vault = tmp_path / "vault"
    assert exit_code("phone", hybrid.invite().url, "--vault", str(vault), "--vault-key", "none") == 2
    assert answered == []
    assert not vault.exists()


# --- T2: a code that an attacker shows --------------------------------------------------------------------------------


class Paper(Terminal):
    """A terminal that keeps what is written and answers every question with `line`."""

    def __init__(self, line: str) -> None:
        self.text = ""
        self._line = line

    def write(self, text: str) -> None:
        self.text += text

    async def read_line(self, question: str, *, echo: bool = True) -> str | None:
        self.write(question)
        return self._line


@pytest.mark.parametrize("request_", [create(), sign_in()], ids=["create", "sign in"])
async def test_t2_the_prompt_names_the_site_and_asks_who_shows_the_code(
    request_: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    store = MemoryStore()
    assert (await phone(store).call(create(), peer=PEER))[0] == 0
    paper = Paper("yes")
    assert (await phone(store, UnlockedConsent(TerminalConsent(paper))).call(request_, peer=PEER))[0] == 0
    assert "site      example.com" in paper.text
    assert "are you signing in on the device that shows this code?" in paper.text
    assert "[y/N]" in paper.text
    monkeypatch.setenv("TERM", "xterm")
    assert (await phone(store, UnlockedConsent(TerminalConsent(paper))).call(request_, peer=PEER))[0] == 0
    assert "site      \x1b[1mexample.com\x1b[0m\n" in paper.text


@pytest.mark.parametrize("line", ["", "n", "sure"])
async def test_t2_the_default_answer_is_no(line: str) -> None:
    store = MemoryStore()
    answer = await phone(store, UnlockedConsent(TerminalConsent(Paper(line)))).call(create(), peer=PEER)
    assert (answer, store.credentials()) == (b"\x27", [])


# --- T3: a code that is passed on to somebody far away ----------------------------------------------------------------


async def test_t3_no_advert_no_tunnel(place: Place) -> None:
    """Who knows the code but is not near hears nothing, and gets no further than listening."""
    with pytest.raises(hybrid.PeerTimeout) as caught:
        async with place.connect(hybrid.invite(), timeouts=hybrid.ClientTimeouts(scan=TINY)):
            pass
    assert caught.value.stage is hybrid.Stage.SCAN
    assert place.tunnels.opened == []


def test_t3_there_is_no_request_without_an_advert() -> None:
    invitation = hybrid.invite()
    with pytest.raises(hybrid.LocalProtocolError):
        QrIntroduction(invitation.qr, invitation.identity).request(None)


def test_t3_the_keys_need_what_the_advert_says() -> None:
    """Finding the tunnel without the advert does not help: its 80 random bits are in the keys."""
    invitation = hybrid.invite()

    def accepted(heard: bytes) -> bool:
        client = handshake.qr_client(
            invitation.qr, heard, identity=invitation.identity, ephemeral=ec.generate_private_key(ec.SECP256R1())
        )
        responder = handshake.qr_phone(invitation.qr, said, ephemeral=ec.generate_private_key(ec.SECP256R1()))
        try:
            responder.answer(client.write_message_1())
        except hybrid.HandshakeFailed:
            return False
        return True

    said = Eid(bytes(10), b"\x00\x00\x01", 0).pack()
    guessed = Eid(bytes(9) + b"\x01", b"\x00\x00\x01", 0).pack()
    assert (accepted(said), accepted(guessed)) == (True, False)


# --- T4: the air in memory, used for real -----------------------------------------------------------------------------


@pytest.mark.parametrize("relay", [None, "192.0.2.1:443", "relay.example:443", "localhost.example:443"])
async def test_t4_simulated_air_needs_a_loopback_relay(relay: str | None) -> None:
    air, tunnels = MemoryAir(), WebSocketTunnels(relay=relay)
    with pytest.raises(hybrid.LocalProtocolError):
        async with hybrid.connect(hybrid.invite(), scanner=air, tunnels=tunnels):
            pass
    with pytest.raises(hybrid.LocalProtocolError):
        await hybrid.answer(hybrid.invite().url, Backend(), advertiser=air, tunnels=tunnels)
    assert (air.listeners, air.adverts) == (0, ())


@pytest.mark.parametrize(
    "tunnels", [WebSocketTunnels(relay="127.0.0.1:1"), WebSocketTunnels(relay="[::1]:1"), MemoryTunnels()]
)
def test_t4_a_relay_on_this_machine_or_in_memory_will_do(tunnels: TunnelService) -> None:
    check_simulation(Proximity.SIMULATED, tunnels)


async def test_t4_simulated_nearness_is_marked(place: Place) -> None:
    invitation, backend = hybrid.invite(), Backend()
    serving = asyncio.create_task(place.answer(invitation.url, backend))
    async with place.connect(invitation) as session:
        await session.call(REQUEST)
        assert session.proximity is Proximity.SIMULATED
    await serving
    (seen,) = [event for event in place.client_events if isinstance(event, hybrid.AdvertSeen)]
    assert seen.proximity is Proximity.SIMULATED
    assert backend.peers[0].proximity is Proximity.SIMULATED


# --- T5: an old code, or one that is used again -----------------------------------------------------------------------


async def test_t5_a_code_is_answered_once(place: Place) -> None:
    invitation = hybrid.invite()
    serving = asyncio.create_task(place.answer(invitation.url))
    assert await ask(place.connect(invitation)) == RESPONSE
    await serving
    opened = len(place.tunnels.opened)
    with pytest.raises(hybrid.InvalidQR) as caught:
        await place.answer(invitation.url)
    assert caught.value.reason is hybrid.QRProblem.USED
    assert len(place.tunnels.opened) == opened


async def test_t5_an_old_code_warns(place: Place) -> None:
    old = dataclasses.replace(hybrid.invite().qr, timestamp=int(time.time()) - 3600)
    with pytest.raises(hybrid.PeerTimeout):
        await place.answer(old.url, timeouts=hybrid.PhoneTimeouts(advertise=TINY))
    assert any(isinstance(event, hybrid.CodeIsOld) for event in place.phone_events)


# --- T6: a relay that is hostile --------------------------------------------------------------------------------------


class Listens(relays.Relay):
    """Keeps a copy of whatever arrives."""

    def __init__(self, tunnels: TunnelService) -> None:
        super().__init__(tunnels)
        self.heard: list[bytes] = []

    async def deliver(self, index: int, message: bytes) -> list[bytes]:
        self.heard.append(message)
        return [message]


@asynccontextmanager
async def answering(
    place: Place, code: str, backend: Backend | None = None, relay: TunnelService | None = None
) -> AsyncIterator[asyncio.Task[hybrid.Served]]:
    """Our phone, whatever becomes of it."""
    task = asyncio.create_task(place.answer(code, backend, tunnels=relay))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_t6_the_relay_sees_no_content(place: Place) -> None:
    invitation = hybrid.invite()
    to_client, to_phone = Listens(place.tunnels), Listens(place.tunnels)
    async with answering(place, invitation.url, relay=to_phone) as serving:
        async with place.connect(invitation, tunnels=to_client) as session:
            assert await session.call(REQUEST) == RESPONSE
        await serving
    heard = b"".join(to_client.heard + to_phone.heard)
    assert len(to_client.heard) >= 3
    assert len(to_phone.heard) >= 2
    for secret in (REQUEST[-16:], RESPONSE[-16:], b"example.com", b"FIDO_2", invitation.qr.secret):
        assert secret not in heard


@pytest.mark.parametrize("at", [0, 1, 2], ids=["message 2", "greeting", "answer"])
@pytest.mark.parametrize("relay", [relays.FlipsBit, relays.CutsShort, relays.Oversize], ids=lambda made: made.__name__)
async def test_t6_what_the_relay_changes_ends_the_session(
    place: Place, relay: Callable[[TunnelService, int], relays.Relay], at: int
) -> None:
    invitation = hybrid.invite()
    async with answering(place, invitation.url):
        with pytest.raises(hybrid.RemoteProtocolError):
            await ask(place.connect(invitation, tunnels=relay(place.tunnels, at)))


@pytest.mark.parametrize("relay", [relays.Drops, relays.Reorders, relays.Repeats], ids=lambda made: made.__name__)
async def test_t6_dropped_moved_or_repeated_messages_end_the_session(
    place: Place, relay: Callable[[TunnelService, int], relays.Relay]
) -> None:
    invitation = hybrid.invite()
    async with answering(place, invitation.url):
        with pytest.raises(hybrid.RemoteProtocolError):
            await ask(place.connect(invitation, tunnels=relay(place.tunnels, 0)))


async def test_t6_a_changed_request_reaches_nobody(place: Place) -> None:
    invitation, backend = hybrid.invite(), Backend()
    changing = relays.FlipsBit(place.tunnels, 1)
    async with answering(place, invitation.url, backend, changing) as serving:
        with pytest.raises(hybrid.HybridError):
            await ask(place.connect(invitation))
        with pytest.raises(hybrid.RemoteProtocolError):
            await serving
    assert backend.requests == []


# --- T7: an advert that names the host to connect to ------------------------------------------------------------------


@pytest.mark.parametrize("service_id", [2, 100, 255, 65536, -1])
def test_t7_ids_that_nobody_was_given_name_no_host(service_id: int) -> None:
    with pytest.raises(hybrid.RemoteProtocolError):
        tunnel_domain(service_id)


@pytest.mark.parametrize("service_id", [0, 1, 256, 0xFFFF])
def test_t7_hosts_follow_from_the_rule_and_are_asked_over_tls(service_id: int) -> None:
    domain = tunnel_domain(service_id)
    name, _, top = domain.removeprefix("cable.").rpartition(".")
    assert domain.startswith("cable.")
    assert "." not in name
    assert top in ("com", "org", "net", "info")
    assert TunnelRequest(domain, New(bytes(16))).url == f"wss://{domain}/cable/new/{'00' * 16}"


async def test_t7_an_advert_with_such_an_id_is_passed_over(place: Place) -> None:
    invitation = hybrid.invite()
    hostile = eid.seal(Eid(bytes(10), bytes(3), 200).pack(), invitation.qr.eid_key())
    async with place.air.advertise(hostile):
        with pytest.raises(hybrid.PeerTimeout):
            async with place.connect(invitation, timeouts=hybrid.ClientTimeouts(scan=TINY)):
                pass
    assert place.tunnels.opened == []
