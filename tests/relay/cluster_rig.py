"""Relays with several workers and nodes as processes, and a small client that counts what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import ssl
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

PATIENCE = 30.0  # s, far above what anything here takes
_ON = re.compile(r"(listening|admin|peers) on \S+:(\d+)")


async def eventually(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until a condition of another process holds, which cannot call us."""
    async with asyncio.timeout(PATIENCE):
        while True:
            holds = condition()
            if holds is True or (not isinstance(holds, bool) and await holds):
                return
            await asyncio.sleep(0.05)  # another process cannot call us


@dataclass
class Node:
    """One relay process, single or with workers."""

    process: asyncio.subprocess.Process
    ports: dict[str, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    reading: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        return self.ports["listening"]

    def workers(self) -> dict[int, int]:
        """Process ids of the workers by their routing id's number, those that are leaving too; none if it has ended."""
        pid = self.process.pid
        children = ""
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        found = {}
        for child in children.split():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if b"tunnel_server.worker" in words:
                    found[int(json.loads(words[3])["routing_id"], 16)] = int(child)
        return found

    async def figures(self) -> dict[str, float]:
        """Sums over all labels, by the name without the prefix; outcomes and statuses also as ``name/label``."""
        text = await http_get(self.ports["admin"], "/metrics")
        sums: Counter[str] = Counter()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                name = sample.name.removeprefix("tunnel_server_")
                sums[name] += int(sample.value)
                for label in ("outcome", "status"):
                    if label in sample.labels:
                        sums[f"{name}/{sample.labels[label]}"] += int(sample.value)
        return dict(sums)

    async def until(self, **wanted: float) -> None:
        """Wait until the figures are these."""

        async def reached() -> bool:
            figures = await self.figures()
            return {name: figures.get(name) for name in wanted} == wanted

        await eventually(reached)

    def said(self, words: str) -> bool:
        """Whether a line of the log has these words."""
        return any(words in line for line in self.log)

    async def ended(self) -> int:
        """Exit code."""
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            assert self.reading is not None
            await self.reading
        return code


async def http_get(port: int, path: str) -> str:
    """Body of an answer 200."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
    assert head.startswith("HTTP/1.1 200 "), head
    return body


@asynccontextmanager
async def node(*options: str, environ: dict[str, str] | None = None) -> AsyncIterator[Node]:
    """A running ``tunnel-server``; killed with all its workers at the end, and what it then leaves behind removed."""
    with tempfile.TemporaryDirectory() as folder:
        async with _node(*options, environ={"TMPDIR": folder, **(environ or {})}) as made:
            yield made


@asynccontextmanager
async def _node(*options: str, environ: dict[str, str]) -> AsyncIterator[Node]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tunnel_server",
        *("--port", "0", "--admin", "127.0.0.1:0"),
        *options,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environ},
    )
    made = Node(process)
    ready = asyncio.Event()

    async def read() -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            text = line.decode().rstrip()
            made.log.append(text)
            if found := _ON.search(text):
                made.ports[found[1]] = int(found[2])
                if found[1] == "listening":
                    ready.set()
        ready.set()

    made.reading = asyncio.ensure_future(read())
    try:
        async with asyncio.timeout(PATIENCE):
            await ready.wait()
        assert made.ports, made.log
        yield made
    finally:
        if process.returncode is None:
            children = made.workers().values()
            process.kill()
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
        await process.wait()
        await made.reading


class Refused(Exception):
    """An answer that is not 101."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Side:
    """One side of a tunnel: a WebSocket client that knows only what it needs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, routing_id: str) -> None:
        self._reader = reader
        self._writer = writer
        self.routing_id = routing_id

    @property
    def owner(self) -> int:
        return int(self.routing_id, 16)

    def send(self, payload: bytes, opcode: int = 2) -> None:
        size = len(payload)
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x82, 0xFE, size)
        self._writer.write(head + bytes(4) + payload)  # a mask of zeros is a mask

    async def frame(self) -> tuple[int, bytes]:
        """Opcode and payload.

        Raises:
            EOFError, ConnectionError: the connection is over.
        """
        opcode, size = await self._reader.readexactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", await self._reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self._reader.readexactly(8))
        return opcode & 0x0F, await self._reader.readexactly(size)

    async def receive(self) -> bytes:
        opcode, payload = await self.frame()
        assert opcode == 2, payload
        return payload

    async def ending(self) -> int | None:
        """Close code that ends this side; None if the connection ends without one."""
        try:
            while True:
                opcode, payload = await self.frame()
                if opcode == 8:
                    return int.from_bytes(payload[:2], "big")
        except (EOFError, OSError):
            return None

    async def alive(self, other: Side) -> bool:
        """Whether a message gets through both ways."""
        try:
            for sender, receiver in ((self, other), (other, self)):
                payload = secrets.token_bytes(20)
                sender.send(payload)
                if await receiver.receive() != payload:
                    return False
        except (EOFError, OSError, AssertionError):
            return False
        return True

    def abort(self) -> None:
        self._writer.transport.abort()


async def connected(
    port: int, context: ssl.SSLContext | None = None, source: str | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which nothing was asked; `source`: the loopback address that it comes from.

    Raises:
        OSError
    """
    local = (source, 0) if source else None
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, local_addr=local)


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, *lines: str) -> Side:
    """A tunnel's side on a connection.

    Raises:
        Refused, EOFError, OSError
    """
    head = (
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol: fido.cable",
        *lines,
    )
    writer.write("\r\n".join((*head, "", "")).encode())
    try:
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
    except BaseException:  # also when the test is over
        writer.transport.abort()
        raise
    status = int(answer[9:12])
    if status != 101:
        writer.transport.abort()
        raise Refused(status)
    found = re.search(r"(?i)^x-cable-routing-id: ([0-9a-f]{6})\r$", answer, re.MULTILINE)
    return Side(reader, writer, found[1] if found else "")


async def opened(
    port: int, path: str, context: ssl.SSLContext | None = None, *lines: str, source: str | None = None
) -> Side:
    """A tunnel's side; `source`: the loopback address that it comes from.

    Raises:
        Refused, EOFError, OSError
    """
    return await asked(*await connected(port, context, source), path, *lines)


def _state(pid: int) -> str:
    """One letter of proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@asynccontextmanager
async def stopped(pids: Collection[int]) -> AsyncIterator[None]:
    """Processes that do nothing while the context is open: what comes to a shared socket is for the others."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        await eventually(lambda: all(_state(pid) == "T" for pid in pids))
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _descriptors(pid: int) -> set[str]:
    """What a process has open."""
    links = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed since
            links.add(os.readlink(entry))
    return links


async def opened_at(relay: Node, worker: int, path: str, context: ssl.SSLContext | None = None, *lines: str) -> Side:
    """A tunnel's side that the worker with the routing id `worker` accepts. Raises as `opened` does."""
    pids = relay.workers()
    pid = pids.pop(worker)
    async with stopped(pids.values()):
        before = _descriptors(pid)
        connection = await connected(relay.port, context)
        await eventually(lambda: not _descriptors(pid) <= before)
    return await asked(*connection, path, *lines)


@asynccontextmanager
async def tunnel(
    port: int, join_port: int | None = None, context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Side, Side]]:
    """Both sides of a new tunnel; the second may join at another port."""
    number = secrets.token_hex(16)
    owner = await opened(port, f"/cable/new/{number}", context)
    try:
        guest = await opened(join_port or port, f"/cable/connect/{owner.routing_id}/{number}", context)
    except BaseException:  # also when the test is over
        owner.abort()
        raise
    try:
        yield owner, guest
    finally:
        owner.abort()
        guest.abort()


async def transaction(port: int, join_port: int | None = None, context: ssl.SSLContext | None = None) -> None:
    """New, connect, four messages each way, a close from the guest that the owner sees.

    Raises:
        Refused, EOFError, OSError, AssertionError: what went wrong.
    """
    async with asyncio.timeout(PATIENCE), tunnel(port, join_port, context) as (owner, guest):
        for number in range(4):
            assert await owner.alive(guest), number
        guest.send(struct.pack("!H", 1000), opcode=8)
        assert await owner.ending() == 1000
        assert await guest.ending() == 1000


@dataclass
class Load:
    """Transactions at a steady rate, and what became of them."""

    done: int = 0
    failures: Counter[str] = field(default_factory=Counter)


@asynccontextmanager
async def load(rate: float, port: int, join_port: int | None = None) -> AsyncIterator[Load]:
    """Transactions while the context is open, and until the last one is over."""
    counted = Load()
    running: set[asyncio.Task[None]] = set()
    stop = asyncio.Event()

    async def one() -> None:
        try:
            await transaction(port, join_port)
            counted.done += 1
        except (Refused, EOFError, OSError, AssertionError) as exc:
            counted.failures[f"{type(exc).__name__}: {exc}"] += 1

    async def many() -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not stop.is_set():
            task = asyncio.ensure_future(one())
            running.add(task)
            task.add_done_callback(running.discard)
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - loop.time()))  # the pace of the load

    driving = asyncio.ensure_future(many())
    try:
        yield counted
    finally:
        stop.set()
        await driving
        if running:
            await asyncio.wait(running)
