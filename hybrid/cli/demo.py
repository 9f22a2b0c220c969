"""``hybrid demo``: a whole ceremony on this machine, told as it happens.

Laptop, phone and relay are three processes; the two radios are those of a virtual BlueZ, TLS comes from a throw-away
CA, and a website played by python-fido2's server judges the result. Where there is no `dbus-daemon`, laptop and phone
share one process and the simulated air, and the first line says so. Nothing is kept, and nobody is asked.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestedCredentialData,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialUserEntity,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from hybrid.adapters.memory import MemoryAir
from hybrid.adapters.websocket_tunnel import WebSocketTunnels
from hybrid.authenticator import answer
from hybrid.cli.running import run_politely
from hybrid.cli.terminal import Screen, event_name
from hybrid.client import connect
from hybrid.errors import HybridError
from hybrid.fido2_bridge.ceremony import plan_assertion, plan_registration
from hybrid.fido2_bridge.options import assertion_options, registration_options
from hybrid.invitation import Invitation, invite
from hybrid.passkeys.consent import AlwaysApprove
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.vault import open_vault
from hybrid.protocol.qr import Hint
from hybrid.protocol.tunnel import tunnel_domain
from hybrid.testing.throwaway_ca import ThrowawayCA
from hybrid.testing.virtual_bluez import virtual_bluez

RP_ID = "demo.example"
USER = "ada"
_SERVICE_ID = 0

_TOLD = {
    ("laptop", "invitation"): (
        "laptop ~> phone",
        "a QR code: the laptop's public key and a secret, seen by the camera",
    ),
    ("laptop", "scanning"): ("laptop", "listens for the phone's Bluetooth advert"),
    ("phone", "tunnel-opened"): ("phone -> relay", "opens a tunnel over TLS and learns its routing ID"),
    ("phone", "advertising"): ("phone ~> laptop", "Bluetooth advert, 20 encrypted bytes: who hears it is near"),
    ("laptop", "advert-seen"): ("laptop", "opens the advert with the code's secret and learns where to meet"),
    ("laptop", "tunnel-opened"): ("laptop -> relay", "joins the tunnel over TLS"),
    ("phone", "client-arrived"): ("laptop <-> phone", "Noise handshake: both know the code, both know the advert"),
    ("laptop", "ready"): ("phone => laptop", "says what it can do; the relay sees only sealed bytes from here on"),
    ("phone", "request-received"): ("laptop => phone", "the website's request"),
    ("phone", "response-sent"): ("phone => laptop", "the signed answer, after its user agreed"),
    ("laptop", "response-received"): ("laptop", "checks the answer for the website"),
}


class DemoFailed(HybridError):
    """A part of the demonstration went wrong; the message says which."""

    @property
    def identifier(self) -> str:
        return "demo"


class Story:
    """Prints what happens, with the time since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def chapter(self, title: str) -> None:
        print()
        _show(title)

    def tell(self, who: str, what: str) -> None:
        head = f"  {time.monotonic() - self._start:5.2f} s  {who:16}  "
        _show(head + what, hanging=len(head))

    def event(self, side: str, name: str) -> None:
        """Tell an event of a side, if it is one of those that make the story."""
        if (side, name) in _TOLD:
            self.tell(*_TOLD[side, name])


def _show(text: str, hanging: int = 0) -> None:
    """Print a line; on a terminal that is too narrow for it, several that break between words."""
    width = shutil.get_terminal_size().columns
    if sys.stdout.isatty() and len(text) > width:
        indent = " " * min(hanging, width // 2)
        text = textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    print(text, flush=True)


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the demonstration plays: the relay's address and CA, a vault, environment of the processes."""

    relay: str
    ca: Path
    vault: Path
    environment: dict[str, str]


Ceremony = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Takes "create" or "get" and the website's options; gives the WebAuthn JSON."""


def run_demo(screen: Screen) -> int:
    """Run it; exit code 0 if the website accepts both results. `screen` shows only what goes wrong."""
    return run_politely(_demo(), screen)


async def _demo() -> int:
    story = Story()
    daemon = shutil.which("dbus-daemon") is not None
    if daemon:
        _show("laptop, phone and relay: three processes on this machine, a virtual Bluetooth between the first two")
    else:
        _show(
            "simulated air: without dbus-daemon, laptop and phone share one process and prove no nearness "
            "(apt install dbus-daemon shows the real path)"
        )
    with tempfile.TemporaryDirectory(prefix="hybrid-demo-") as folder:
        async with _relay(Path(folder)) as stage:
            if daemon:
                async with virtual_bluez() as bluez:
                    environment = stage.environment | bluez.environment
                    stage = Stage(stage.relay, stage.ca, stage.vault, environment)
                    await _play(story, _Processes(stage, story).run)
            else:
                await _play(story, _OneProcess(stage, story).run)
    return 0


async def _play(story: Story, ceremony: Ceremony) -> None:
    website = Fido2Server(PublicKeyCredentialRpEntity(id=RP_ID, name="Demo"))
    story.chapter(f"1  {USER} makes a passkey for {RP_ID} on the phone")
    credential = await _register(website, ceremony)
    story.tell("website", "python-fido2 accepts the registration")
    story.chapter(f"2  {USER} signs in to {RP_ID} with it")
    await _sign_in(website, ceremony, credential)
    story.tell("website", "python-fido2 accepts the signature")
    print()
    _show("done: the passkey never left the phone, and the relay never saw a request")


async def _register(website: Fido2Server, ceremony: Ceremony) -> AttestedCredentialData:
    options, state = website.register_begin(
        PublicKeyCredentialUserEntity(id=b"ada's id", name=USER, display_name="Ada"),
        resident_key_requirement=ResidentKeyRequirement.REQUIRED,
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    result = website.register_complete(state, await ceremony("create", dict(options)))
    if result.credential_data is None:
        raise DemoFailed("the registration carries no passkey")
    return result.credential_data


async def _sign_in(website: Fido2Server, ceremony: Ceremony, credential: AttestedCredentialData) -> None:
    options, state = website.authenticate_begin([credential], user_verification=UserVerificationRequirement.REQUIRED)
    website.authenticate_complete(state, [credential], await ceremony("get", dict(options)))


# --- the relay: always a process of its own ---------------------------------------------------------------------------


@asynccontextmanager
async def _relay(folder: Path) -> AsyncIterator[Stage]:
    files = ThrowawayCA.create().write(folder, tunnel_domain(_SERVICE_ID))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tunnel_server", "--port", "0", "--cert", str(files.chain), "--key", str(files.key)),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        line = (await process.stderr.readline()).decode()
        prefix = "listening on "
        if not line.startswith(prefix):
            raise DemoFailed(f"the relay does not start: {line.strip()}")
        yield Stage(line.removeprefix(prefix).strip(), files.ca, folder / "vault", dict(os.environ))
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()


# --- laptop and phone as processes ------------------------------------------------------------------------------------


class _Processes:
    """``hybrid create``, ``hybrid get`` and ``hybrid phone``, as a person would type them."""

    def __init__(self, stage: Stage, story: Story) -> None:
        self._stage = stage
        self._story = story

    async def run(self, command: str, options: dict[str, Any]) -> dict[str, Any]:
        laptop = await self._start(command, RP_ID, "--options", "-", "--adapter", "hci0")
        phone: asyncio.subprocess.Process | None = None
        try:
            assert laptop.stdin is not None
            assert laptop.stdout is not None
            laptop.stdin.write(json.dumps(options).encode())
            laptop.stdin.close()
            code = await self._first_code(laptop)
            phone = await self._start(
                *("phone", "-", "--adapter", "hci1", "--approve", "always"),
                *("--vault", str(self._stage.vault), "--vault-key", "none"),
            )
            assert phone.stdin is not None
            phone.stdin.write(code.encode() + b"\n")
            phone.stdin.close()
            output, _, _ = await asyncio.gather(
                laptop.stdout.read(), self._follow("laptop", laptop), self._follow("phone", phone)
            )
            for side, process in (("laptop", laptop), ("phone", phone)):
                if await process.wait():
                    raise DemoFailed(f"the {side} ends with exit code {process.returncode}")
        finally:
            await _end(laptop)
            if phone is not None:
                await _end(phone)
        return dict(json.loads(output))

    async def _start(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hybrid", *words, "--json-events"),
            *("--relay", self._stage.relay, "--relay-ca", str(self._stage.ca)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._stage.environment,
        )

    async def _first_code(self, laptop: asyncio.subprocess.Process) -> str:
        assert laptop.stderr is not None
        line = await laptop.stderr.readline()
        if not line:
            raise DemoFailed("the laptop shows no code")
        event = json.loads(line)
        self._story.event("laptop", event["event"])
        return str(event.get("url", ""))

    async def _follow(self, side: str, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            event = json.loads(line)
            if event["event"] == "error":
                raise DemoFailed(f"{side}: {event['message']}")
            self._story.event(side, event["event"])


# --- laptop and phone in this process ---------------------------------------------------------------------------------


class _OneProcess:
    """The same ceremony through the library, over the simulated air."""

    def __init__(self, stage: Stage, story: Story) -> None:
        self._story = story
        self._air = MemoryAir()
        self._tunnels = WebSocketTunnels(relay=stage.relay, relay_ca=stage.ca)
        self._phone = SoftwareAuthenticator(open_vault(stage.vault), AlwaysApprove())

    async def run(self, command: str, options: dict[str, Any]) -> dict[str, Any]:
        hint = Hint.MAKE_CREDENTIAL if command == "create" else Hint.GET_ASSERTION
        invitation = invite(hint)
        self._story.event("laptop", "invitation")
        try:
            async with asyncio.TaskGroup() as sides:
                sides.create_task(self._be_phone(invitation.url))
                return await self._be_laptop(invitation, command, json.dumps(options))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures  # who failed first stopped the other

    async def _be_phone(self, code: str) -> None:
        await answer(
            code,
            self._phone,
            advertiser=self._air,
            tunnels=self._tunnels,
            on_event=lambda event: self._story.event("phone", event_name(event)),
            service_id=_SERVICE_ID,
        )

    async def _be_laptop(self, invitation: Invitation, command: str, options: str) -> dict[str, Any]:
        origin = f"https://{RP_ID}"
        async with connect(
            invitation,
            on_event=lambda event: self._story.event("laptop", event_name(event)),
            scanner=self._air,
            tunnels=self._tunnels,
        ) as session:
            if command == "create":
                wanted = registration_options(RP_ID, options, challenge=b"", user_id=b"")
                making = plan_registration(wanted, origin).request(session.get_info)
                return making.result(await session.call(making.message)).to_json()
            asked = assertion_options(RP_ID, options, challenge=b"")
            signing = plan_assertion(asked, origin).request(session.get_info)
            return signing.result(await session.call(signing.message)).to_json()
