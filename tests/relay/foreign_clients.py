"""WebSocket clients of others behind one small interface: what a tunnel needs, and what it must not need."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import aiohttp
import picows
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

SUBPROTOCOL = "fido.cable"


class Client(Protocol):
    """One end of a tunnel. `receive` gives a message, or the close code as a number."""

    routing_id: str | None
    subprotocol: str | None
    extensions: str | None

    async def send(self, message: bytes) -> None: ...
    async def send_fragments(self, *parts: bytes) -> None: ...
    async def send_text(self, text: str) -> None: ...
    async def ping(self) -> None: ...
    async def receive(self) -> bytes | int: ...
    async def close(self, code: int) -> None: ...


class WithWebsockets:
    """`websockets`, which offers permessage-deflate by itself."""

    def __init__(self, connection: ClientConnection) -> None:
        assert connection.response is not None
        headers = connection.response.headers
        self.routing_id = headers.get("X-caBLE-Routing-ID")
        self.subprotocol: str | None = connection.subprotocol
        self.extensions = headers.get("Sec-WebSocket-Extensions")
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, tls: ssl.SSLContext | None) -> AsyncIterator[Client]:
        options = {"max_size": None, "proxy": None, "ssl": tls}
        async with websockets.connect(url, subprotocols=[Subprotocol(SUBPROTOCOL)], **options) as connection:  # type: ignore[arg-type]  # a dict has one type for all its values
            yield cls(connection)

    async def send(self, message: bytes) -> None:
        await self._connection.send(message)

    async def send_fragments(self, *parts: bytes) -> None:
        await self._connection.send(parts)

    async def send_text(self, text: str) -> None:
        await self._connection.send(text)

    async def ping(self) -> None:
        await (await self._connection.ping(b"are you there"))

    async def receive(self) -> bytes | int:
        try:
            return await self._connection.recv(decode=False)
        except ConnectionClosed:
            return self._connection.close_code or 0

    async def close(self, code: int) -> None:
        await self._connection.close(code)


class WithAiohttp:
    """aiohttp, which cannot send fragments: its own parts are whole messages."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        headers = connection._response.headers  # it shows them nowhere else
        self.routing_id = headers.get("X-caBLE-Routing-ID")
        self.subprotocol = connection.protocol
        self.extensions = headers.get("Sec-WebSocket-Extensions")
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, tls: ssl.SSLContext | None) -> AsyncIterator[Client]:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                url, protocols=[SUBPROTOCOL], ssl=tls or True, max_msg_size=0, autoping=False, compress=15
            ) as connection,
        ):
            yield cls(connection)

    async def send(self, message: bytes) -> None:
        await self._connection.send_bytes(message)

    async def send_fragments(self, *parts: bytes) -> None:
        await self.send(b"".join(parts))

    async def send_text(self, text: str) -> None:
        await self._connection.send_str(text)

    async def ping(self) -> None:
        await self._connection.ping(b"are you there")
        answer = await self._connection.receive()
        assert (answer.type, bytes(answer.data)) == (aiohttp.WSMsgType.PONG, b"are you there")

    async def receive(self) -> bytes | int:
        message = await self._connection.receive()
        if message.type is aiohttp.WSMsgType.CLOSE:
            return int(message.data)
        assert message.type is aiohttp.WSMsgType.BINARY
        return bytes(message.data)

    async def close(self, code: int) -> None:
        await self._connection.close(code=code)


class _Listener(picows.WSListener):
    def __init__(self) -> None:
        self.frames: asyncio.Queue[tuple[picows.WSMsgType, bytes]] = asyncio.Queue()
        self.code = 0

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type is picows.WSMsgType.CLOSE:
            self.code = int.from_bytes(frame.get_payload_as_bytes()[:2], "big")
            transport.send_close(picows.WSCloseCode.OK)
            transport.disconnect()
        assert frame.fin
        self.frames.put_nowait((frame.msg_type, frame.get_payload_as_bytes()))


class WithPicows:
    """picows."""

    def __init__(self, transport: picows.WSTransport, listener: _Listener) -> None:
        headers = transport.response.headers
        self.routing_id = headers.get("X-caBLE-Routing-ID")
        self.subprotocol = headers.get("Sec-WebSocket-Protocol")
        self.extensions = headers.get("Sec-WebSocket-Extensions")
        self._transport, self._listener = transport, listener

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, tls: ssl.SSLContext | None) -> AsyncIterator[Client]:
        offered = {"Sec-WebSocket-Protocol": SUBPROTOCOL}
        transport, listener = await picows.ws_connect(_Listener, url, ssl_context=tls, extra_headers=offered)
        assert isinstance(listener, _Listener)
        try:
            yield cls(transport, listener)
        finally:
            transport.disconnect()
            await transport.wait_disconnected()

    async def send(self, message: bytes) -> None:
        self._transport.send(picows.WSMsgType.BINARY, message)

    async def send_fragments(self, *parts: bytes) -> None:
        kind = picows.WSMsgType.BINARY
        for number, part in enumerate(parts, 1):
            self._transport.send(kind, part, fin=number == len(parts))
            kind = picows.WSMsgType.CONTINUATION

    async def send_text(self, text: str) -> None:
        self._transport.send(picows.WSMsgType.TEXT, text.encode())

    async def ping(self) -> None:
        self._transport.send_ping(b"are you there")
        assert await self._listener.frames.get() == (picows.WSMsgType.PONG, b"are you there")

    async def receive(self) -> bytes | int:
        kind, payload = await self._listener.frames.get()
        if kind is picows.WSMsgType.CLOSE:
            return self._listener.code
        assert kind is picows.WSMsgType.BINARY
        return payload

    async def close(self, code: int) -> None:
        self._transport.send_close(picows.WSCloseCode(code))
        await self._transport.wait_disconnected()


CLIENTS: dict[str, type[WithWebsockets] | type[WithAiohttp] | type[WithPicows]] = {
    "websockets": WithWebsockets,
    "aiohttp": WithAiohttp,
    "picows": WithPicows,
}
