"""The relay that laptop and phone meet at: ours, or a plain one of somebody else with TLS put in front of it.

It keeps its port when it is taken down and comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

from hybrid.testing.servers import stop_accepting
from tunnel_server.app import serve

_HOST = "127.0.0.1"
_CHUNK = 1 << 16  # bytes


@contextlib.asynccontextmanager
async def terminate_tls(port: int, context: ssl.SSLContext, host: str, plain_port: int) -> AsyncIterator[int]:
    """Take TLS off on `port` (0: any) and pass the bytes on to `host`:`plain_port`. Gives the port."""
    connections: set[asyncio.Task[None]] = set()

    async def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        task.add_done_callback(connections.discard)
        try:
            with contextlib.suppress(OSError):
                behind_reader, behind_writer = await asyncio.open_connection(host, plain_port)
                await _both_ways((reader, writer), (behind_reader, behind_writer))
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(arrived, _HOST, port, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await stop_accepting(server)
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _both_ways(one: _Stream, other: _Stream) -> None:
    """Pass bytes on until either side ends."""
    tasks = {asyncio.create_task(_pass_on(one[0], other[1])), asyncio.create_task(_pass_on(other[0], one[1]))}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _, writer in (one, other):
            writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()


class RelayControl:
    """The relay on this machine. `address`: host and port of the plain one behind, None for ours."""

    def __init__(self, context: ssl.SSLContext, address: tuple[str, int] | None) -> None:
        self.port = 0
        self._is_up = False
        self._context = context
        self._behind = address
        self._open = contextlib.AsyncExitStack()

    @property
    def address(self) -> str:
        """``HOST:PORT`` with TLS."""
        return f"{_HOST}:{self.port}"

    async def up(self) -> None:
        """Start it, on the port it had before. Nothing happens if it is up."""
        if self._is_up:
            return
        if self._behind is None:
            server = await self._open.enter_async_context(serve(_HOST, self.port, ssl_context=self._context))
            self.port = server.port
        else:
            front = terminate_tls(self.port, self._context, *self._behind)
            self.port = await self._open.enter_async_context(front)
        self._is_up = True

    async def down(self) -> None:
        """End all tunnels and refuse connections."""
        self._is_up = False
        await self._open.aclose()
