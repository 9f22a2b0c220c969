"""How do I answer a code with passkeys of my own? With anything that takes CTAP requests; this one declines all."""

from __future__ import annotations

import asyncio

import cbor2

import hybrid
from hybrid.adapters.memory import MemoryAir, MemoryTunnels
from hybrid.ports import Peer


class AlwaysNo:
    """A `hybrid.ports.CtapBackend`."""

    get_info = cbor2.dumps({1: ["FIDO_2_0"], 3: bytes(16)})

    async def call(self, request: bytes, *, peer: Peer) -> bytes:
        return b"\x27"  # CTAP2_ERR_OPERATION_DENIED


async def main() -> None:
    air, relay, code = MemoryAir(), MemoryTunnels(), hybrid.invite()
    serving = asyncio.create_task(hybrid.answer(code.url, AlwaysNo(), advertiser=air, tunnels=relay))
    async with hybrid.connect(code, scanner=air, tunnels=relay) as session:
        status = (await session.call(b"\x02\xa0"))[0]
    await serving
    print(f"the phone answers 0x{status:02x}")


if __name__ == "__main__":
    asyncio.run(main())
