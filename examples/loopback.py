"""How do I test without a phone, a radio or a network? Laptop and phone in one process, over an air in memory."""

from __future__ import annotations

import asyncio

import hybrid
from hybrid.adapters.memory import MemoryAir, MemoryTunnels
from hybrid.passkeys import AlwaysApprove, MemoryStore, SoftwareAuthenticator

OPTIONS = {
    "rp": {"id": "example.com", "name": "Example"},
    "user": {"id": b"\x01", "name": "ada", "displayName": "Ada"},
    "challenge": b"from the website",
    "pubKeyCredParams": [{"type": "public-key", "alg": -7}],
}


async def main() -> None:
    air, relay = MemoryAir(), MemoryTunnels()
    phone = SoftwareAuthenticator(MemoryStore(), AlwaysApprove())
    code = hybrid.invite(hybrid.Hint.MAKE_CREDENTIAL)
    serving = asyncio.create_task(hybrid.answer(code.url, phone, advertiser=air, tunnels=relay))
    async with hybrid.connect(code, scanner=air, tunnels=relay, on_event=print) as session:
        passkey = await hybrid.make_credential(session, OPTIONS, origin="https://example.com")
    await serving
    print(passkey["id"], session.proximity)


if __name__ == "__main__":
    asyncio.run(main())
