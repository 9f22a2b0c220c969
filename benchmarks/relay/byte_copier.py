"""Yardstick: an asyncio protocol on uvloop that parses nothing and passes on what it gets.

The first bytes of each connection get a ready-made answer, and the tunnel's id is cut out of them by position: two
connections of the same id are a pair. Everything after that is copied as it is, masks and close frames included, so
the load generator has to be lenient (``-L``).

python -m benchmarks.relay.byte_copier PORT [CHAIN KEY]
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import cast

import uvloop

ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nX-caBLE-Routing-ID: 000000\r\n\r\n"
OWNER_ID = slice(len("GET /cable/new/"), len("GET /cable/new/") + 32)
GUEST_ID = slice(len("GET /cable/connect/000000/"), len("GET /cable/connect/000000/") + 32)

owners: dict[bytes, Copier] = {}


class Copier(asyncio.Protocol):
    """One end of a pipe."""

    transport: asyncio.Transport
    peer: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is not derived from it

    def data_received(self, data: bytes) -> None:
        if self.peer is not None:
            self.peer.write(data)
            return
        self.transport.write(ANSWER)
        owner = owners.pop(data[GUEST_ID], None)
        if owner is None:
            owners[data[OWNER_ID]] = self
        else:
            self.peer, owner.peer = owner.transport, self.transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer is not None:
            self.peer.close()


def server_context(chain: str, key: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    context.num_tickets = 0  # nobody resumes here: the cheapest handshake there is
    return context


async def main(port: str, *tls: str) -> None:
    context = server_context(*tls) if tls else None
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Copier, "127.0.0.1", int(port), ssl=context, backlog=1024)
    print("listening", file=sys.stderr, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
