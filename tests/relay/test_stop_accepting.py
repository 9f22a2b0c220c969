"""Leaving the queue of new connections to a successor: each one is served here or left there, none is lost between."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from tunnel_server.app import serve

LOOPS = ("asyncio", "uvloop")


@pytest.mark.parametrize("steps", range(8))
async def test_nobody_is_lost(steps: int, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        listener.setblocking(False)
        clients = []
        async with serve(sockets=[listener.dup()]) as server:
            for _ in range(20):
                client = stack.enter_context(socket.create_connection(listener.getsockname()))
                client.setblocking(False)
                clients.append(client)
            for _ in range(steps):  # of the loop, so that it is stopped between any two of them
                await asyncio.sleep(0)
            await server.stop_accepting()
            served, left = 0, 0
            for _ in range(20):
                await asyncio.sleep(0)
            served = server.relay.connections
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()
                    left += 1
        assert served + left == 20
        assert not caplog.records
