"""One whole sign-in in one process: machines, handshake, encryption, the software phone; no radio, no sockets.

The yardstick is the public-key arithmetic that any such ceremony needs: three key pairs, five exchanges, one signature.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

import hybrid
from benchmarks.pairs import Pair, measure
from hybrid.adapters.memory import MemoryAir, MemoryTunnels
from hybrid.fido2_bridge.ceremony import plan_assertion, plan_registration
from hybrid.fido2_bridge.options import assertion_options, registration_options
from hybrid.passkeys.consent import AlwaysApprove
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.store import MemoryStore

_ORIGIN = "https://example.com"


def run(rounds: int) -> list[Pair]:
    phone = SoftwareAuthenticator(MemoryStore(), AlwaysApprove())
    creation = registration_options("example.com", user_name="ada", challenge=b"c" * 32, user_id=b"u" * 32)
    request = plan_registration(creation, _ORIGIN).request(phone.get_info)
    asyncio.run(_ceremony(phone, request.message))
    assertion = plan_assertion(assertion_options("example.com", challenge=b"c" * 32), _ORIGIN)
    message = assertion.request(phone.get_info).message

    def whole(clock: Callable[[], float]) -> Callable[[], float]:
        def once() -> float:
            start = clock()
            asyncio.run(_ceremony(phone, message))
            return clock() - start

        return once

    def bare(clock: Callable[[], float]) -> Callable[[], float]:
        def once() -> float:
            start = clock()
            _arithmetic()
            return clock() - start

        return once

    return [
        measure(f"one loopback get, {name} time, against its bare P-256 arithmetic", whole(clock), bare(clock), rounds)
        for name, clock in (("wall", time.perf_counter), ("CPU", time.process_time))
    ]


async def _ceremony(phone: SoftwareAuthenticator, message: bytes) -> None:
    air, relay = MemoryAir(), MemoryTunnels()
    hint = hybrid.Hint.GET_ASSERTION if message[0] == 2 else hybrid.Hint.MAKE_CREDENTIAL
    invitation = hybrid.invite(hint)
    serving = asyncio.create_task(hybrid.answer(invitation.url, phone, advertiser=air, tunnels=relay))
    async with hybrid.connect(invitation, scanner=air, tunnels=relay) as session:
        if (await session.call(message))[0] != 0:
            raise RuntimeError("the phone refused")
    await serving


def _arithmetic() -> None:
    curve = ec.SECP256R1()
    keys = [ec.generate_private_key(curve) for _ in range(3)]
    for mine in (keys[0], keys[1], keys[1], keys[2], keys[2]):
        mine.exchange(ec.ECDH(), keys[0].public_key())
    keys[0].sign(b"", ec.ECDSA(hashes.SHA256()))
