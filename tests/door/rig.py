"""An authenticator that does as told, and both ends of its door."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid.passkeys.consent import AlwaysApprove
from hybrid.testing.door import Door, Presence, private_socket

MAX_SIZE = 100
WAIT, FAIL = 0x70, 0x71


class Scripted:
    """A `hybrid.testing.door.Authenticator` that echoes, waits for ever on WAIT and breaks on FAIL."""

    max_message_size = MAX_SIZE

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.channels: list[object] = []
        self.waiting = asyncio.Event()
        self.dismissed = asyncio.Event()
        self.power_cycles = 0
        self.lost = 0
        self.before_answer: Callable[[], object] = bool
        self.busy = False

    async def call(self, request: bytes, *, channel: object) -> bytes:
        if request == b"\x04":
            return b"\x00" + request
        assert not self.busy
        self.busy = True
        self.requests.append(request)
        self.channels.append(channel)
        try:
            if request[0] == WAIT:
                self.waiting.set()
                await asyncio.Event().wait()
            if request[0] == FAIL:
                raise ZeroDivisionError
            await asyncio.sleep(0)
            self.before_answer()
            return b"\x00" + request
        except asyncio.CancelledError:
            self.dismissed.set()
            raise
        finally:
            self.busy = False

    def undelivered(self) -> None:
        assert not self.busy
        self.lost += 1

    def power_cycle(self) -> None:
        assert not self.busy
        self.power_cycles += 1


class Connection:
    """A client's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, request: bytes) -> None:
        await self.send_raw(len(request).to_bytes(4, "big") + request)

    async def send_raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self) -> bytes:
        size = int.from_bytes(await self.reader.readexactly(4), "big")
        return await self.reader.readexactly(size)

    async def ask(self, request: bytes) -> bytes:
        await self.send(request)
        return await self.receive()

    async def command(self, line: Any) -> dict[str, Any]:
        """Send one line to the control socket: bytes as they are, anything else as JSON."""
        await self.send_raw((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")
        answer: dict[str, Any] = json.loads(await self.reader.readline())
        return answer

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@dataclass
class OpenDoor:
    authenticator: Scripted
    presence: Presence
    path: Path
    control_path: Path
    clients: contextlib.AsyncExitStack

    async def connect(self) -> Connection:
        return await self._connect(self.path)

    async def control(self) -> Connection:
        return await self._connect(self.control_path)

    async def until_connections(self, count: int) -> None:
        """Wait until the door serves so many."""
        while sum("<locals>.handle" in repr(task.get_coro()) for task in asyncio.all_tasks()) != count:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)

    async def _connect(self, path: Path) -> Connection:
        connection = Connection(*await asyncio.open_unix_connection(path))
        self.clients.push_async_callback(connection.close)
        return connection


@contextlib.asynccontextmanager
async def open_door(folder: Path) -> AsyncIterator[OpenDoor]:
    authenticator, presence = Scripted(), Presence(AlwaysApprove())
    path, control_path = folder / "door", folder / "control"
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(private_socket(path))
        control = stack.enter_context(private_socket(control_path))
        await stack.enter_async_context(Door(authenticator, presence).open(listener, control))
        clients = await stack.enter_async_context(contextlib.AsyncExitStack())
        yield OpenDoor(authenticator, presence, path, control_path, clients)


@contextlib.asynccontextmanager
async def open_tcp_door() -> AsyncIterator[tuple[Scripted, Connection]]:
    authenticator = Scripted()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with Door(authenticator, Presence(AlwaysApprove())).open(listener):
            connection = Connection(*await asyncio.open_connection(*listener.getsockname()))
            try:
                yield authenticator, connection
            finally:
                await connection.close()
