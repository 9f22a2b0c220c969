"""Yardstick: the least relay that `websockets` allows. Compression and keepalive off, uvloop, one task a direction.

python -m benchmarks.relay.websockets_relay PORT [CHAIN KEY]
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from http import HTTPStatus

import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

ROUTING_ID = "A1B2C3"

waiting: dict[str, tuple[ServerConnection, asyncio.Future[ServerConnection]]] = {}


def check(connection: ServerConnection, request: Request) -> Response | None:
    match request.path.split("/"):
        case ["", "cable", "new", tunnel] if tunnel not in waiting:
            return None
        case ["", "cable", "connect", routing, tunnel] if routing == ROUTING_ID and tunnel in waiting:
            return None
    return connection.respond(HTTPStatus.NOT_FOUND, "no such tunnel\n")


def add_routing_id(_connection: ServerConnection, request: Request, response: Response) -> None:
    if request.path.startswith("/cable/new/"):
        response.headers["X-caBLE-Routing-ID"] = ROUTING_ID


async def relay(connection: ServerConnection) -> None:
    assert connection.request is not None
    kind, *_, tunnel = connection.request.path.split("/")[2:]
    if kind == "new":
        met: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()
        waiting[tunnel] = connection, met
        peer = await met
    else:
        peer, met = waiting.pop(tunnel)
        met.set_result(connection)
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            await peer.send(message)
    await peer.close()


async def main(port: str, *tls: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if tls else None
    if context is not None:
        context.load_cert_chain(*tls)
    async with serve(
        relay,
        "127.0.0.1",
        int(port),
        ssl=context,
        subprotocols=[Subprotocol("fido.cable")],
        process_request=check,
        process_response=add_routing_id,
        compression=None,
        ping_interval=None,
        backlog=1024,
    ) as server:
        print("listening", file=sys.stderr, flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
