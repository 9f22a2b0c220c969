"""A TLS transport that was closed twice can still be aborted; asyncio's own forgets what to abort, or raises."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
from typing import Any

from hybrid.adapters.websocket_tunnel import _ClosedOnce


class Tls:
    """What a TLS transport of asyncio needs of the connection behind it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def _start_shutdown(self) -> None:
        self.calls.append("close")

    def _is_transport_closing(self) -> bool:  # asked by Python 3.13
        return False

    def _abort(self, exc: Exception | None = None) -> None:
        self.calls.append("abort")


async def test_abort_after_two_closes_reaches_the_connection() -> None:
    tls = Tls()
    inner: Any = asyncio.sslproto
    transport = _ClosedOnce(inner._SSLProtocolTransport(asyncio.get_running_loop(), tls))
    transport.close()
    transport.close()
    transport.abort()
    assert tls.calls == ["close", "abort"]
