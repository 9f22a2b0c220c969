"""The whole ceremony between two adapters: laptop, phone and relay as three processes, TLS, a website that judges.

Runs on the virtual BlueZ here and on the real one in the VM, through nothing but the command lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fido2.server import Fido2Server
from fido2.webauthn import PublicKeyCredentialRpEntity, PublicKeyCredentialUserEntity, UserVerificationRequirement

from hybrid.protocol.tunnel import tunnel_domain
from hybrid.testing.throwaway_ca import ThrowawayCA
from tests.radio.bench import Radio

pytestmark = [pytest.mark.radio, pytest.mark.slow, pytest.mark.timeout(300)]

RP_ID = "example.com"


@dataclass
class Desk:
    """A laptop and a phone in front of a relay."""

    radio: Radio
    relay: str
    folder: Path

    async def start(self, *words: str, stdin: bytes = b"") -> Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hybrid", *words, "--relay", self.relay, "--relay-ca", str(self.folder / "ca.pem")),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
        )
        assert process.stdin is not None
        process.stdin.write(stdin)
        process.stdin.close()
        return process

    async def ceremony(self, *words: str, stdin: bytes = b"") -> tuple[bytes, str, int, int]:
        """Give the laptop's output and talk, its exit code and the phone's."""
        async with contextlib.AsyncExitStack() as stack:
            laptop = await self.start(*words, "--adapter", self.radio.laptop, stdin=stdin)
            stack.push_async_callback(_end, laptop)
            assert laptop.stderr is not None
            code = await laptop.stderr.readline()
            assert code.startswith(b"FIDO:/"), code + await laptop.stderr.read()
            phone = await self.start(
                *("phone", "-", "--adapter", self.radio.phone, "--approve", "always"),
                *("--vault", str(self.folder / "vault"), "--vault-key", "none"),
                stdin=code,
            )
            stack.push_async_callback(_end, phone)
            (output, talk), (_, phone_talk) = await asyncio.gather(laptop.communicate(), phone.communicate())
            assert laptop.returncode is not None
            assert phone.returncode is not None
            return output, talk.decode() + phone_talk.decode(), laptop.returncode, phone.returncode


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


@pytest.fixture
async def desk(radio: Radio, tmp_path: Path) -> AsyncIterator[Desk]:
    files = ThrowawayCA.create().write(tmp_path, tunnel_domain(0))
    relay = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tunnel_server", "--port", "0", "--cert", str(files.chain), "--key", str(files.key)),
        stderr=PIPE,
    )
    try:
        assert relay.stderr is not None
        ready = (await relay.stderr.readline()).decode()
        yield Desk(radio, ready.removeprefix("listening on ").strip(), tmp_path)
    finally:
        if relay.returncode is None:
            relay.terminate()
        assert await relay.wait() == 0


async def test_a_passkey_is_made_and_used(desk: Desk) -> None:
    website = Fido2Server(PublicKeyCredentialRpEntity(id=RP_ID, name="Example"))
    user = PublicKeyCredentialUserEntity(id=b"ada", name="ada", display_name="Ada")

    creation, state = website.register_begin(user, user_verification=UserVerificationRequirement.REQUIRED)
    output, talk, laptop, phone = await desk.ceremony("create", RP_ID, "--options", "-", stdin=_json(creation))
    assert (laptop, phone) == (0, 0), talk
    registration = json.loads(output)
    assert "proximity" not in registration, "Bluetooth vouched for it"
    credential = website.register_complete(state, registration).credential_data
    assert credential is not None

    request, state = website.authenticate_begin([credential], user_verification=UserVerificationRequirement.REQUIRED)
    output, talk, laptop, phone = await desk.ceremony("get", RP_ID, "--options", "-", stdin=_json(request))
    assert (laptop, phone) == (0, 0), talk
    assertion = json.loads(output)
    website.authenticate_complete(state, [credential], assertion)
    assert assertion["id"] == registration["id"]


async def test_a_phone_without_the_passkey_says_so(desk: Desk) -> None:
    output, talk, laptop, phone = await desk.ceremony("get", RP_ID)
    assert (output, laptop, phone) == (b"", 4, 4), talk


def _json(options: Any) -> bytes:
    return json.dumps(dict(options)).encode()
