"""The bridge over real sessions: in-memory air and relay, our own phone behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fido2.server import Fido2Server
from fido2.webauthn import (
    PublicKeyCredentialRequestOptions,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialUserEntity,
)

import hybrid
from hybrid.adapters.memory import MemoryAir, MemoryTunnels
from hybrid.errors import LocalProtocolError
from hybrid.fido2_bridge import HybridClientDataCollector, HybridWebAuthnClient
from hybrid.passkeys.consent import AlwaysApprove
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.store import MemoryStore
from hybrid.ports import CtapBackend

ORIGIN = "https://example.com"


@asynccontextmanager
async def meeting(backend: CtapBackend, hint: hybrid.Hint) -> AsyncIterator[HybridWebAuthnClient]:
    air, tunnels = MemoryAir(), MemoryTunnels()
    invitation = hybrid.invite(hint)
    phone = asyncio.create_task(hybrid.answer(invitation.url, backend, advertiser=air, tunnels=tunnels))
    try:
        async with hybrid.connect(invitation, scanner=air, tunnels=tunnels) as session:
            yield HybridWebAuthnClient(session, HybridClientDataCollector(ORIGIN))
    finally:
        await asyncio.wait([phone])


async def test_a_passkey_is_made_and_used_over_two_sessions() -> None:
    backend = SoftwareAuthenticator(MemoryStore(), AlwaysApprove())
    rp = Fido2Server(PublicKeyCredentialRpEntity(id="example.com", name="Example"))
    creation, state = rp.register_begin(PublicKeyCredentialUserEntity(id=b"u", name="alice"))
    async with meeting(backend, hybrid.Hint.MAKE_CREDENTIAL) as client:
        registered = await asyncio.to_thread(client.make_credential, creation.public_key)
    credential = rp.register_complete(state, registered).credential_data
    assert credential is not None
    asked, state = rp.authenticate_begin()
    async with meeting(backend, hybrid.Hint.GET_ASSERTION) as client:
        selection = await asyncio.to_thread(client.get_assertion, asked.public_key)
    rp.authenticate_complete(state, [credential], selection.get_response(0))


class Silent:
    """Asks its user, who does not react."""

    get_info = SoftwareAuthenticator(MemoryStore(), AlwaysApprove()).get_info

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def call(self, request: bytes, *, peer: Any) -> bytes:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


async def test_cancelling_the_users_task_ends_the_worker_thread_too() -> None:
    backend = Silent()
    options = PublicKeyCredentialRequestOptions(challenge=b"c" * 32, rp_id="example.com")
    with ThreadPoolExecutor(1) as pool:
        calls: list[asyncio.Future[Any]] = []

        async def sign_in() -> None:
            async with meeting(backend, hybrid.Hint.GET_ASSERTION) as client:
                call = asyncio.get_running_loop().run_in_executor(pool, client.get_assertion, options)
                calls.append(call)
                await asyncio.shield(call)

        task = asyncio.create_task(sign_in())
        await backend.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(LocalProtocolError, match="over"):
            await calls[0]
