"""A relay in one process: `lifecycle.Relaying` over a `tunnel_server.app.Server`."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tunnel_server.app import Server, serve
from tunnel_server.foreign import Router
from tunnel_server.lifecycle import live
from tunnel_server.metrics import Meter, Samples, exposition, process_samples, version_sample
from tunnel_server.routing import NODES, draw
from tunnel_server.settings import Settings, log_trouble
from tunnel_server.sockets import open_sockets

logger = logging.getLogger(__name__)


class Single:
    """One relay and its figures."""

    def __init__(self, settings: Settings, server: Server, meter: Meter) -> None:
        self._settings = settings
        self._server = server
        self._meter = meter

    @property
    def healthy(self) -> bool:
        return True

    @property
    def ready(self) -> bool:
        return not self._server.relay.draining

    async def metrics(self) -> str:
        serving: Samples = [("ready", {}, int(self.ready)), ("workers", {}, 1), ("worker_restarts_total", {}, 0)]
        return exposition([version_sample(), *serving, *self.samples()])

    def samples(self) -> Samples:
        """Everything that this process knows."""
        relay = self._server.relay
        return [
            *self._meter.samples(),
            ("messages_total", {}, relay.forwarded_messages),
            ("bytes_total", {}, relay.forwarded_bytes),
            ("pending", {}, relay.pending),
            ("joined", {}, relay.joined),
            ("connections", {}, relay.connections),
            *process_samples(),
        ]

    async def reload(self) -> bool:
        self._server.ssl_context = self._settings.tls()
        return self._server.ssl_context is not None

    async def renew(self) -> None:
        logger.warning("there are no workers to replace; give --workers")

    def start_drain(self) -> None:
        self._server.start_drain()

    async def drained(self) -> None:
        await self._server.drain()

    def abort(self) -> None:
        self._server.abort()


@asynccontextmanager
async def relaying(
    settings: Settings, sockets: Sequence[socket.socket], routing_id: bytes, router: Router | None = None
) -> AsyncIterator[tuple[Single, Server]]:
    """Run a relay on bound sockets while the context is open."""
    meter = Meter()
    async with serve(
        sockets=sockets,
        ssl_context=settings.tls(),
        limits=settings.limits,
        origins=settings.origins,
        limit_loopback=settings.limit_loopback,
        proxies=settings.proxies,
        proxy_protocol=settings.proxy_protocol,
        routing_id=routing_id,
        observer=meter,
        router=router,
    ) as server:
        yield Single(settings, server, meter), server


async def run(settings: Settings) -> int:
    """Serve in this process until a signal ends it; the exit code."""
    asyncio.get_running_loop().set_exception_handler(log_trouble)
    sockets = await open_sockets(settings)
    try:
        node = secrets.randbelow(NODES) if settings.node is None else settings.node
        async with relaying(settings, sockets.public, draw(node, 0, secrets.randbits(32), ())) as (single, _):
            return await live(single, sockets, settings.drain)
    finally:
        sockets.close()
