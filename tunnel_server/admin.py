"""The second listener, for whoever runs the relay: ``/healthz``, ``/readyz`` and ``/metrics`` over plain HTTP.

It says nothing about any user. It is small and for a trusted network: it does no TLS and knows no passwords.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from tunnel_server.metrics import TYPE

logger = logging.getLogger(__name__)

_MAX_HEAD = 4096  # bytes
_MAX_CONNECTIONS = 64
_TIME = 5.0  # s for a whole request and its answer
_PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class Subject(Protocol):
    """What is asked."""

    @property
    def healthy(self) -> bool:
        """Whether anything serves at all."""

    @property
    def ready(self) -> bool:
        """Whether new tunnels are welcome: false before the start is complete and while draining."""

    async def metrics(self) -> str:
        """Text for Prometheus."""


@asynccontextmanager
async def admin(listener: socket.socket, subject: Subject) -> AsyncIterator[None]:
    """Answer requests on a bound socket while the context is open."""
    open_ones: dict[asyncio.Task[None], asyncio.WriteTransport] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(open_ones) >= _MAX_CONNECTIONS:  # whoever sits there silently must not hide us from a health check
                next(iter(open_ones.values())).abort()
            open_ones[task] = writer.transport
            async with asyncio.timeout(_TIME):
                await _answer(reader, writer, subject)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            logger.debug("a request to the admin listener came to nothing")
        finally:
            open_ones.pop(task, None)
            writer.transport.abort()  # what could be sent has been

    server = await asyncio.start_server(serve, sock=listener, limit=_MAX_HEAD)
    try:
        yield
    finally:
        server.close()
        for transport in open_ones.values():
            transport.abort()  # and so their tasks end: asyncio complains of one that is cancelled
        if open_ones:
            await asyncio.wait(open_ones)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, subject: Subject) -> None:
    kind = "text/plain; charset=utf-8"
    method = ""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, version = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        if version not in ("HTTP/1.0", "HTTP/1.1"):
            raise ValueError(version)
    except (asyncio.LimitOverrunError, ValueError):
        status, body = 400, "400 Bad Request\n"
    else:
        if method not in ("GET", "HEAD"):
            status, body = 405, "405 Method Not Allowed\n"
        elif path == "/healthz":
            status, body = (200, "healthy\n") if subject.healthy else (503, "not healthy\n")
        elif path == "/readyz":
            status, body = (200, "ready\n") if subject.ready else (503, "not ready\n")
        elif path == "/metrics":
            status, body, kind = 200, await subject.metrics(), TYPE
        else:
            status, body = 404, "404 Not Found\n"
    data = body.encode()
    lines = (
        f"HTTP/1.1 {status} {_PHRASES[status]}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(data)}",
        "Connection: close",
        *(("Allow: GET, HEAD",) if status == 405 else ()),
    )
    writer.write("\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + (b"" if method == "HEAD" else data))
    writer.write_eof()
    while await reader.read(_MAX_HEAD):  # until the other side ends too, so that no reset overtakes the answer
        pass
