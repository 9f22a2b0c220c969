"""How does my client get along with phones that I do not own? Let it meet their presets, all in one process.

The presets rest on what others have published about these phones; no real one was here to compare.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fido2.ctap import CtapError

import hybrid
from hybrid.adapters.memory import MemoryAir, MemoryTunnels
from hybrid.passkeys import SoftwareAuthenticator
from hybrid.passkeys.presets import PRESETS, phone_for

CREATE = {
    "rp": {"id": "example.com", "name": "An example"},
    "user": {"id": b"\x01", "name": "ann", "displayName": "Ann"},
    "challenge": b"from the website",
    "pubKeyCredParams": [{"type": "public-key", "alg": -7}],
}
GET = {"challenge": b"from another", "rpId": "example.org"}


@asynccontextmanager
async def meeting(phone: SoftwareAuthenticator, hint: hybrid.Hint) -> AsyncIterator[hybrid.Session]:
    """One code, scanned by `phone`, which keeps the session as its model does."""
    air, relay, code = MemoryAir(), MemoryTunnels(), hybrid.invite(hint)
    habits = phone.profile.habits
    serving = asyncio.create_task(hybrid.answer(code.url, phone, habits=habits, advertiser=air, tunnels=relay))
    async with hybrid.connect(code, scanner=air, tunnels=relay) as session:
        yield session
    await serving


async def nothing_found(phone: SoftwareAuthenticator) -> str:
    """What a client sees when the phone has no passkey for the site."""
    try:
        async with meeting(phone, hybrid.Hint.GET_ASSERTION) as session:
            await hybrid.get_assertion(session, GET, origin="https://example.org")
    except CtapError as error:
        return f"status 0x{error.code:02X}"
    except hybrid.PeerClosed:
        return "leaves without an answer"
    return "signs in"


async def main() -> None:
    for name in PRESETS:
        phone = phone_for(name)
        async with meeting(phone, hybrid.Hint.MAKE_CREDENTIAL) as session:
            await hybrid.make_credential(session, CREATE, origin="https://example.com")
            features = ", ".join(session.features)
        print(f"{name:20} announces {features:10} with nothing to sign in with: {await nothing_found(phone)}")


if __name__ == "__main__":
    asyncio.run(main())
