"""The admin listener, asked by curl's and urllib's kin and by nobody's."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tunnel_server.admin import admin


@dataclass
class Stage:
    """A relay in any state."""

    healthy: bool = True
    ready: bool = True

    async def metrics(self) -> str:
        return "a 1\n"


@asynccontextmanager
async def serving(stage: Stage) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with admin(listener, stage):
            yield listener.getsockname()[1]


async def get(port: int, path: str, method: str = "GET") -> tuple[int, str, str | None]:
    def ask() -> tuple[int, str, str | None]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.getheader("Content-Type")

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize(("healthy", "ready"), [(True, True), (True, False), (False, False)])
async def test_health_and_readiness(healthy: bool, ready: bool) -> None:
    async with serving(Stage(healthy, ready)) as port:
        assert (await get(port, "/healthz"))[0] == (200 if healthy else 503)
        assert (await get(port, "/readyz"))[0] == (200 if ready else 503)


async def test_metrics_are_of_prometheus_type() -> None:
    async with serving(Stage()) as port:
        assert await get(port, "/metrics") == (200, "a 1\n", "text/plain; version=0.0.4; charset=utf-8")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/readyz?x", "/cable/new/00"])
async def test_other_paths(path: str) -> None:
    async with serving(Stage()) as port:
        assert (await get(port, path))[0] == 404


async def test_other_methods() -> None:
    async with serving(Stage()) as port:
        assert (await get(port, "/metrics", "POST"))[0] == 405
        assert await get(port, "/metrics", "HEAD") == (200, "", "text/plain; version=0.0.4; charset=utf-8")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HEAD /metrics HTTP/1.1\r\n\r\n")
        writer.write_eof()
        answer = await reader.read()
        assert answer.endswith(b"\r\n\r\n")
        assert b"\r\nContent-Length: 4\r\n" in answer, "what GET would have"
        writer.close()


@pytest.mark.parametrize(
    "data", [b"junk\r\n\r\n", b"GET /metrics\r\n\r\n", b"GET /metrics HTTP/2.0\r\n\r\n", b"\xff\r\n\r\n", 5000 * b"a"]
)
async def test_junk_gets_400(data: bytes) -> None:
    async with serving(Stage()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_ends_with_a_client_that_never_asks() -> None:
    async with serving(Stage()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /met")
        await get(port, "/healthz")  # by now the first one is accepted
    assert await reader.read() == b""
    writer.close()


async def test_silent_connections_do_not_hide_it() -> None:
    async with serving(Stage()) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(64)]
        assert (await get(port, "/healthz"))[0] == 200
        assert await held[0][0].read() == b"", "it made room"
        for _, one in held:
            one.close()
