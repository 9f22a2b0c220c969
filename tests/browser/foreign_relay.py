"""A plain relay that shares no line with ours: aiohttp's WebSockets, one dictionary, no limits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import WSMsgType, web

_ROUTING_ID = "C0FFEE"


class ForeignRelay:
    """Counts the tunnels that were joined."""

    def __init__(self) -> None:
        self.joined = 0
        self._waiting: dict[str, asyncio.Future[web.WebSocketResponse]] = {}
        self._left: dict[str, asyncio.Event] = {}

    async def new(self, request: web.Request) -> web.WebSocketResponse:
        """A phone comes, and waits for its laptop."""
        tunnel = request.match_info["tunnel"].upper()
        phone = web.WebSocketResponse(protocols=("fido.cable",))
        phone.headers["X-caBLE-Routing-ID"] = _ROUTING_ID
        joined: asyncio.Future[web.WebSocketResponse] = asyncio.get_running_loop().create_future()
        self._waiting[tunnel], self._left[tunnel] = joined, asyncio.Event()
        await phone.prepare(request)
        try:
            laptop = await joined
            await asyncio.gather(_pass_on(phone, laptop), _pass_on(laptop, phone))
        finally:
            self._left[tunnel].set()
        return phone

    async def connect(self, request: web.Request) -> web.WebSocketResponse:
        """A laptop joins."""
        tunnel = request.match_info["tunnel"].upper()
        if request.match_info["routing"].upper() != _ROUTING_ID or tunnel not in self._waiting:
            raise web.HTTPNotFound
        laptop = web.WebSocketResponse(protocols=("fido.cable",))
        await laptop.prepare(request)
        self.joined += 1
        self._waiting.pop(tunnel).set_result(laptop)
        await self._left[tunnel].wait()
        return laptop


async def _pass_on(source: web.WebSocketResponse, sink: web.WebSocketResponse) -> None:
    async for message in source:
        if message.type is WSMsgType.BINARY:
            await sink.send_bytes(message.data)
    await sink.close()


@contextlib.asynccontextmanager
async def foreign_relay() -> AsyncIterator[tuple[ForeignRelay, int]]:
    """Run it while the context is open; gives it and its port."""
    relay = ForeignRelay()
    app = web.Application()
    app.router.add_get("/cable/new/{tunnel}", relay.new)
    app.router.add_get("/cable/connect/{routing}/{tunnel}", relay.connect)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield relay, runner.addresses[0][1]
    finally:
        await runner.cleanup()
