"""Relays and proxies that stand in for real ones: each does one thing, mostly the wrong one."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol
from websockets.utils import accept_key

from hybrid.testing.servers import stop_accepting

DOMAIN = "cable.ua5v.com"
Handler = Callable[[ServerConnection], Awaitable[None]]
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Relay:
    """A listening relay: its port, the requests it saw, and whether each connection has ended."""

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


async def wait_for_close(connection: ServerConnection) -> None:
    await connection.wait_closed()


@contextlib.asynccontextmanager
async def websocket_relay(
    context: ssl.SSLContext,
    handler: Handler = wait_for_close,
    *,
    headers: list[tuple[str, str]] | None = None,
    subprotocols: tuple[str, ...] = ("fido.cable",),
    host: str = "127.0.0.1",
) -> AsyncIterator[Relay]:
    """A relay that answers every request with 101 and `headers`, then runs `handler`."""
    relay = Relay()

    def answer(_: ServerConnection, request: Request, response: Response) -> None:
        relay.requests.append(request)
        for name, value in headers if headers is not None else [("X-caBLE-Routing-ID", "0A0B0C")]:
            response.headers[name] = value

    async def handle(connection: ServerConnection) -> None:
        try:
            await handler(connection)
        finally:
            relay.ended.set()

    async with serve(
        handle,
        host,
        0,
        ssl=context,
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        process_response=answer,
        compression="deflate",
        close_timeout=0.1,
    ) as server:
        relay.port = next(iter(server.sockets)).getsockname()[1]
        yield relay


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def parse_head(head: bytes) -> Request:
    """What a raw relay was asked."""
    lines = head.decode().rstrip().split("\r\n")
    fields = [line.split(": ", 1) for line in lines[1:]]
    return Request(lines[0].split(" ")[1], Headers((name, value) for name, value in fields))


@contextlib.asynccontextmanager
async def raw_relay(context: ssl.SSLContext | None, script: Script) -> AsyncIterator[Relay]:
    """Runs `script` for every connection, then closes it. `context` None: without TLS."""
    relay = Relay()
    connections: dict[asyncio.Task[None], asyncio.WriteTransport] = {}

    def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if server.is_serving():
            connections[asyncio.create_task(run(reader, writer))] = writer.transport
        else:
            writer.transport.abort()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await script(reader, writer)
        finally:
            relay.ended.set()
            writer.transport.abort()

    server = await asyncio.start_server(arrived, "127.0.0.1", 0, ssl=context)
    try:
        relay.port = server.sockets[0].getsockname()[1]
        yield relay
    finally:
        await _end(server, connections)


async def _end(server: asyncio.Server, connections: Mapping[asyncio.Task[None], asyncio.WriteTransport]) -> None:
    """Close a server with all its connections. asyncio of 3.11 waits for none if it is asked after `close`."""
    await stop_accepting(server)
    closed = asyncio.create_task(server.wait_closed())
    await asyncio.sleep(0)
    server.close()
    for task, transport in connections.items():
        task.cancel()
        transport.abort()  # a task that never began does not
    await asyncio.gather(*connections, return_exceptions=True)
    await closed


@contextlib.asynccontextmanager
async def answering_relay(context: ssl.SSLContext, *answers: bytes) -> AsyncIterator[Relay]:
    """Gives one whole HTTP answer after the other, one a connection, the last for ever."""
    pending = list(answers)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay.requests.append(parse_head(await read_head(reader)))
        writer.write(pending.pop(0) if len(pending) > 1 else pending[0])
        await writer.drain()
        await reader.read()  # until the client has seen it and left

    async with raw_relay(context, script) as relay:
        yield relay


def http(status: int, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Told", *headers, "Content-Length: 0", "", ""]
    return "\r\n".join(lines).encode()


@dataclass
class Proxy:
    """An HTTP proxy that connects every CONNECT to `target`, or answers with `status`."""

    target_port: int = 0
    status: int = 200
    requests: list[str] = field(default_factory=list)
    port: int = 0


@contextlib.asynccontextmanager
async def connect_proxy(proxy: Proxy) -> AsyncIterator[Proxy]:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        proxy.requests.append(head.decode().split("\r\n")[0])
        writer.write(f"HTTP/1.1 {proxy.status} Told\r\n\r\n".encode())
        await writer.drain()
        if proxy.status != 200:
            return
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", proxy.target_port)
        try:
            await asyncio.gather(_pump(reader, upstream), _pump(upstream_reader, writer))
        finally:
            upstream.transport.abort()

    async with raw_relay(None, script) as listener:
        proxy.port = listener.port
        yield proxy


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.transport.abort()


def switching(key: str, *extra: str) -> bytes:
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    return "\r\n".join([*lines, f"Sec-WebSocket-Accept: {accept_key(key)}", *extra, "", ""]).encode()


def then_silent(frames: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = parse_head(await read_head(reader))
        extra = ("Sec-WebSocket-Protocol: fido.cable", "X-caBLE-Routing-ID: 000000")
        writer.write(switching(request.headers["Sec-WebSocket-Key"], *extra) + frames)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a whole transport
        await asyncio.Event().wait()

    return script


def resolve_everything_to(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, object]]:
    """Send this loop's connections to `relay`; returns where they wanted to go."""
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo
    asked: list[tuple[object, object]] = []

    async def getaddrinfo(host: object, port: object, **options: int) -> object:
        asked.append((host, port))
        return await resolve("127.0.0.1", relay.port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    return asked
