"""``python -m benchmarks.relay.worker PORT FOLDER ROUTING-ID [CHAIN KEY]``: one worker of a relay, on its own port.

Real workers share their port, and chance decides who gets a join. Here the generator decides: at the owner's port a
join is local, at another worker's it is passed on.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import uvloop

from benchmarks.relay.byte_copier import server_context
from tunnel_server.app import serve
from tunnel_server.forwarding import Forwarder, gift_path, socket_path, take_gifts
from tunnel_server.metrics import Meter
from tunnel_server.relay import Limits
from tunnel_server.routing import owner_of


async def main(port: str, folder: str, routing_id: str, *tls: str) -> None:
    number = bytes.fromhex(routing_id)
    path = str(socket_path(Path(folder), number))
    with socket.socket(socket.AF_UNIX) as inside, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gifts:
        inside.bind(path)
        gifts.bind(gift_path(path))
        async with serve(
            port=int(port),
            ssl_context=server_context(*tls) if tls else None,
            limits=Limits(per_address=1000000, new_per_minute=1000000000),
            limit_loopback=True,
            routing_id=number,
            observer=Meter(),
            router=Forwarder(owner_of(number).node, Path(folder)).route,
        ) as server:
            await server.listen(inside, secure=False, trusted=True)
            take_gifts(server, gifts)
            print("listening", file=sys.stderr, flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(*sys.argv[1:]))
