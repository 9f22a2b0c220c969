"""Where commands are tried: a virtual BlueZ and a TLS relay on a loop in a thread, the command in the main thread.

The command runs in this process, with its streams caught: starting an interpreter for each of a hundred would take a
minute. What needs a process (signals, terminals, what is loaded when) is in `test_processes` and `test_at_a_terminal`.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, TypeVar

from hybrid.adapters.websocket_tunnel import WebSocketTunnels
from hybrid.cli import main
from hybrid.testing.throwaway_ca import ThrowawayCA
from hybrid.testing.virtual_bluez import VirtualBluez, virtual_bluez
from tunnel_server.app import serve

DOMAIN = "cable.ua5v.com"
PATIENCE = 20.0  # seconds for what takes milliseconds; only a hang takes as long
_T = TypeVar("_T")


@dataclass
class Stage:
    """What commands and their peers meet at. `relay`: HOST:PORT of a relay that serves under `ca`."""

    loop: asyncio.AbstractEventLoop
    folder: Path
    ca: ThrowawayCA
    ca_file: Path
    relay: str = ""
    bluez: VirtualBluez | None = field(default=None)

    @property
    def bus(self) -> str:
        assert self.bluez is not None
        return self.bluez.address

    def tunnels(self, relay_name: str | None = None) -> WebSocketTunnels:
        return WebSocketTunnels(relay=self.relay, relay_name=relay_name, relay_ca=self.ca_file)

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run `work` on the stage's loop and give its result."""
        return self.submit(work).result(PATIENCE)


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Put everything up, and take it down."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="stage")
    thread.start()
    try:
        ca = ThrowawayCA.create()
        ca_file = folder / "ca.pem"
        ca_file.write_bytes(ca.certificate_pem)
        made = Stage(loop, folder, ca, ca_file)
        stack = contextlib.AsyncExitStack()
        made.call(_put_up(made, stack))
        try:
            with _environment({"DBUS_SYSTEM_BUS_ADDRESS": made.bus}):
                yield made
        finally:
            made.call(stack.aclose())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _put_up(made: Stage, stack: contextlib.AsyncExitStack) -> None:
    made.bluez = await stack.enter_async_context(virtual_bluez())
    server = await stack.enter_async_context(serve(ssl_context=made.ca.server_context(DOMAIN)))
    made.relay = f"{server.host}:{server.port}"


class Listening(io.StringIO):
    """A stderr that tells as soon as a line is complete."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell
        self._told = 0

    def write(self, text: str) -> int:
        written = super().write(text)
        *lines, _ = self.getvalue()[self._told :].split("\n")
        for line in lines:
            self._told += len(line) + 1
            self._tell(line)
        return written


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    exit_code: int
    stdout: str
    stderr: str


def run(
    words: list[str], *, stdin: str = "", environment: Mapping[str, str], tell: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Run ``hybrid`` with `words` in this thread, which must be the main one."""
    out, err = io.StringIO(), Listening(tell)
    exit_code = -1
    with _streams(stdin, out, err), _environment(environment):
        try:
            main.run(words)
        except SystemExit as leave:
            exit_code = int(leave.code or 0)
    return Outcome(exit_code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _streams(stdin: str, out: TextIO, err: TextIO) -> Iterator[None]:
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin, sys.stdout, sys.stderr = io.TextIOWrapper(io.BytesIO(stdin.encode())), out, err
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


@contextlib.contextmanager
def _environment(given: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("HYBRID_DEBUG", "XDG_DATA_HOME"):
            del os.environ[name]
    os.environ.update(given)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.asynccontextmanager
async def cancelled_at_the_end(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run `work` beside; its own failure is raised in the end."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
