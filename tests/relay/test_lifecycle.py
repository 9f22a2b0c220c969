"""What signals do, in which order, with a relay that takes its time."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import pytest

from tunnel_server.lifecycle import live
from tunnel_server.sockets import Sockets


class Slow:
    """Never done with replacing its workers."""

    healthy = True
    ready = True

    def __init__(self) -> None:
        self.certificates = True
        self.said: list[str] = []
        self.heard = asyncio.Event()

    def _hear(self, word: str) -> None:
        self.said.append(word)
        self.heard.set()

    async def metrics(self) -> str:
        return ""

    async def reload(self) -> bool:
        self._hear("reload")
        return self.certificates

    async def renew(self) -> None:
        self._hear("renew")
        await asyncio.Event().wait()

    def start_drain(self) -> None:
        self._hear("drain")

    async def drained(self) -> None:
        pass

    def abort(self) -> None:
        self._hear("abort")


async def test_the_end_waits_for_nothing_else() -> None:
    relay = Slow()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        living = asyncio.ensure_future(live(relay, Sockets([listener]), drain=1000.0))
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGUSR2)
        await relay.heard.wait()
        for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGTERM):
            os.kill(os.getpid(), number)
        async with asyncio.timeout(30):
            assert await living == 0
    assert relay.said == ["renew", "drain"]


@pytest.mark.parametrize("certificates", [True, False])
async def test_certificates_are_read_again(certificates: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    relay = Slow()
    relay.certificates = certificates
    with socket.create_server(("127.0.0.1", 0)) as listener:
        living = asyncio.ensure_future(live(relay, Sockets([listener]), drain=1000.0))
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(30):
            await relay.heard.wait()
            os.kill(os.getpid(), signal.SIGINT)
            assert await living == 130
    assert relay.said == ["reload", "drain"]
    assert ("new certificates are in use" in caplog.text) == certificates
    assert ("no certificate to read again" in caplog.text) == (not certificates)
