"""One worker of a relay, on its own port: ``python -m benchmarks.relay.worker PORT FOLDER ROUTING-ID OPTIONS...``.

Real workers share their port, and chance decides who gets a join. Here the generator decides: at the owner's port a
join is local, at another worker's it is passed on, through FOLDER or to the node on `--peer-port`.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from pathlib import Path

import uvloop

from benchmarks.relay.byte_copier import server_context
from tunnel_server.app import serve
from tunnel_server.forwarding import Forwarder, Peer, gift_path, socket_path, take_gifts
from tunnel_server.links import PeerFiles
from tunnel_server.metrics import Meter
from tunnel_server.peering import CalledLinks, listen
from tunnel_server.relay import Limits
from tunnel_server.routing import owner_of


async def main(options: argparse.Namespace) -> None:
    number = bytes.fromhex(options.routing_id)
    path = str(socket_path(options.folder, number))
    peers_tls = PeerFiles(*options.node_tls).contexts() if options.node_tls else None
    peers = {node: Peer("127.0.0.1", port) for node, port in options.peer}
    with (
        socket.socket(socket.AF_UNIX) as inside,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gifts,
        socket.socket() as nodes,
    ):
        inside.bind(path)
        gifts.bind(gift_path(path))
        async with serve(
            port=options.port,
            ssl_context=server_context(*options.tls) if options.tls else None,
            limits=Limits(per_address=1000000, new_per_minute=1000000000),
            limit_loopback=True,
            routing_id=number,
            observer=Meter(),
            router=Forwarder(owner_of(number).node, options.folder, peers=peers, peers_tls=peers_tls).route,
        ) as server:
            await server.listen(inside, secure=False, trusted=True)
            take_gifts(server, gifts, CalledLinks(server, peers_tls, 10000).make if peers_tls is not None else None)
            if options.peer_port:
                nodes.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                nodes.bind(("127.0.0.1", options.peer_port))
                await listen(nodes, options.folder, 10000)
            print("listening", file=sys.stderr, flush=True)
            await asyncio.Event().wait()


def _peer(text: str) -> tuple[int, int]:
    node, _, port = text.partition("=")
    return int(node), int(port)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.relay.worker")
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("routing_id")
    parser.add_argument("--tls", nargs=2, help="chain and key that clients see")
    parser.add_argument("--node-tls", nargs=3, type=Path, help="chain, key and authority that nodes see")
    parser.add_argument("--peer-port", type=int, help="where other nodes connect")
    parser.add_argument("--peer", action="append", type=_peer, default=[], help="NODE=PORT of another one")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    return parser.parse_args()


if __name__ == "__main__":
    given = _options()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if given.loop == "uvloop" else None) as runner:
        runner.run(main(given))
