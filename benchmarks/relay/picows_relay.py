"""Another way to make a relay: picows, uvloop, no limits and no checks but those that picows makes.

python -m benchmarks.relay.picows_relay PORT [CHAIN KEY]
"""

from __future__ import annotations

import sys

import uvloop
from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from benchmarks.relay.byte_copier import server_context
from benchmarks.relay.websockets_relay import ROUTING_ID

waiting: dict[str, End] = {}


class End(WSListener):
    """One end of a tunnel."""

    transport: WSTransport
    peer: End | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        peer = self.peer
        if frame.msg_type is WSMsgType.BINARY and peer is not None:
            peer.transport.send(WSMsgType.BINARY, frame.get_payload_as_bytes())
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
            if peer is not None:
                peer.transport.send_close(WSCloseCode.OK)


def answer(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener | None:
    headers = {"Sec-WebSocket-Protocol": "fido.cable"}
    end = End()
    match request.path.decode("ascii").split("/"):
        case ["", "cable", "new", tunnel] if tunnel not in waiting:
            waiting[tunnel] = end
            headers["X-caBLE-Routing-ID"] = ROUTING_ID
        case ["", "cable", "connect", routing, tunnel] if routing == ROUTING_ID and tunnel in waiting:
            end.peer = waiting.pop(tunnel)
            end.peer.peer = end
        case _:
            return None
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(headers), end)


async def main(port: str, *tls: str) -> None:
    context = server_context(*tls) if tls else None
    server = await ws_create_server(answer, "127.0.0.1", int(port), ssl=context, backlog=1024)
    print("listening", file=sys.stderr, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
