"""How do I run a relay inside my tests? In this process, on a free port of the loopback interface, with real TLS."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import hybrid
from examples.always_no import AlwaysNo
from hybrid.adapters.memory import MemoryAir
from hybrid.adapters.websocket_tunnel import WebSocketTunnels
from hybrid.testing.throwaway_ca import ThrowawayCA
from tunnel_server.app import serve


async def main(ca: ThrowawayCA, ca_file: Path) -> None:
    async with serve(port=0, ssl_context=ca.server_context("cable.ua5v.com")) as server:
        relay = WebSocketTunnels(relay=f"{server.host}:{server.port}", relay_ca=ca_file)
        air, code = MemoryAir(), hybrid.invite()
        serving = asyncio.create_task(hybrid.answer(code.url, AlwaysNo(), advertiser=air, tunnels=relay))
        async with hybrid.connect(code, scanner=air, tunnels=relay) as session:
            status = (await session.call(b"\x02\xa0"))[0]
        await serving
    print(f"through a relay at port {server.port}, the phone answers 0x{status:02x}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        authority = ThrowawayCA.create()
        authority_file = Path(folder, "ca.pem")
        authority_file.write_bytes(authority.certificate_pem)
        asyncio.run(main(authority, authority_file))
