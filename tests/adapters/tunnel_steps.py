"""What the tests of the WebSocket adapter ask for, and the steps that they share."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest

from hybrid.adapters.websocket_tunnel import WebSocketChannel, WebSocketTunnels
from hybrid.errors import TunnelError
from hybrid.protocol.tunnel import Connect, Contact, New, TunnelRequest
from tests.adapters.relay_doubles import (
    DOMAIN,
    Handler,
    Relay,
    websocket_relay,
)

TUNNEL_ID = bytes(range(0xA0, 0xB0))
NEW = TunnelRequest(DOMAIN, New(TUNNEL_ID))
CONNECT = TunnelRequest(DOMAIN, Connect(b"\x0a\x0b\x0c", TUNNEL_ID))
CONTACT = TunnelRequest(DOMAIN, Contact(b"some contact"), client_payload="A1B2", signal=True)


def tunnels_to(relay: Relay, ca_file: Path) -> WebSocketTunnels:
    return WebSocketTunnels(relay=relay.address, relay_ca=ca_file)


@contextlib.asynccontextmanager
async def opened(
    tls: ssl.SSLContext, ca_file: Path, handler: Handler, request: TunnelRequest = NEW
) -> AsyncIterator[WebSocketChannel]:
    async with websocket_relay(tls, handler) as relay:
        channel = await tunnels_to(relay, ca_file).open(request)
        try:
            yield channel
        finally:
            await channel.aclose()


async def problem_of(opening: Awaitable[object]) -> TunnelError:
    with pytest.raises(TunnelError) as caught:
        await opening
    return caught.value


async def nothing_runs(besides: int = 0) -> None:
    """Wait until this test's own task is alone, with `besides` tasks of its relay. Never, if we left one running."""
    while len(asyncio.all_tasks()) > 1 + besides:  # noqa: ASYNC110 - there is no event for the end of any task
        await asyncio.sleep(0)
