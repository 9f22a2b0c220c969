"""Another way to make a relay: the sans-I/O layer of `websockets` in an asyncio protocol, uvloop, no limits.

python -m benchmarks.relay.sans_io_relay PORT [CHAIN KEY]
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from benchmarks.relay.byte_copier import server_context
from benchmarks.relay.websockets_relay import ROUTING_ID

waiting: dict[str, End] = {}


class End(asyncio.Protocol):
    """One end of a tunnel."""

    transport: asyncio.Transport
    peer: End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.websocket = ServerProtocol(subprotocols=[Subprotocol("fido.cable")], max_size=128 * 1024)

    def data_received(self, data: bytes) -> None:
        self.websocket.receive_data(data)
        for event in self.websocket.events_received():
            if isinstance(event, Request):
                self.answer(event)
            elif isinstance(event, Frame) and self.peer is not None:
                if event.opcode is Opcode.BINARY:
                    self.peer.websocket.send_binary(event.data)
                elif event.opcode is Opcode.CLOSE and self.peer.websocket.state is State.OPEN:
                    self.peer.websocket.send_close(CloseCode.NORMAL_CLOSURE)
                self.peer.flush()
        self.flush()

    def answer(self, request: Request) -> None:
        response = self.websocket.accept(request)
        match request.path.split("/"):
            case ["", "cable", "new", tunnel] if tunnel not in waiting:
                waiting[tunnel] = self
                response.headers["X-caBLE-Routing-ID"] = ROUTING_ID
            case ["", "cable", "connect", routing, tunnel] if routing == ROUTING_ID and tunnel in waiting:
                self.peer = waiting.pop(tunnel)
                self.peer.peer = self
            case _:
                response = self.websocket.reject(404, "no such tunnel\n")
        self.websocket.send_response(response)

    def flush(self) -> None:
        for data in self.websocket.data_to_send():
            if data:
                self.transport.write(data)
            else:
                self.transport.close()


async def main(port: str, *tls: str) -> None:
    context = server_context(*tls) if tls else None
    loop = asyncio.get_running_loop()
    server = await loop.create_server(End, "127.0.0.1", int(port), ssl=context, backlog=1024)
    print("listening", file=sys.stderr, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
