"""Who takes the place of a worker, and when nobody can. Its processes are none, so that each can fail on order."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tunnel_server import logs, supervisor
from tunnel_server.__main__ import parse
from tunnel_server.sockets import Sockets
from tunnel_server.supervisor import Supervisor
from tunnel_server.worker import Job


class Process:
    """What `asyncio.create_subprocess_exec` returns, and the worker in it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.returncode: int | None = None
        self._control = socket.socket(fileno=os.dup(job.control))
        self._control.setblocking(False)
        self._over = asyncio.Event()

    def say(self, text: str) -> None:
        self._control.sendall(text.encode())

    def heard(self) -> list[str]:
        """Words that came since the last time."""
        try:
            return [json.loads(line)["do"] for line in self._control.recv(4096).splitlines()]
        except (BlockingIOError, ConnectionError):
            return []

    def end(self, code: int) -> None:
        if self.returncode is None:
            self.returncode = code
            self._control.close()
            self._over.set()

    def kill(self) -> None:
        self.end(-9)

    async def wait(self) -> int:
        await self._over.wait()
        assert self.returncode is not None
        return self.returncode


class System:
    """Starts processes, in the order of `plan`: what is called with each of them, ready by default."""

    def __init__(self) -> None:
        self.started: list[Process] = []
        self.attempts = 0
        self.plan: list[Callable[[Process], None]] = []

    async def start(self, *words: str, **_: Any) -> Process:
        self.attempts += 1
        process = Process(Job.parse(words[3]))
        try:
            (self.plan.pop(0) if self.plan else ready)(process)
        except OSError:
            process.kill()
            raise
        self.started.append(process)
        return process


def ready(process: Process) -> None:
    process.say('{"ready": true}\n')


def nothing(process: Process) -> None:
    """It is slow."""


def no_room(process: Process) -> None:
    raise OSError(errno.EAGAIN, "Resource temporarily unavailable")


def broken(process: Process) -> None:
    process.end(2)


async def turns(condition: Callable[[], bool]) -> None:
    """Let the loop turn until a condition holds."""
    async with asyncio.timeout(30):
        while True:
            if condition():
                return
            await asyncio.sleep(0)


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    made = System()
    monkeypatch.setattr(asyncio, "create_subprocess_exec", made.start)
    monkeypatch.setattr(logs, "set_up", lambda *_, **__: None)  # it would take pytest's own handlers away
    return made


@asynccontextmanager
async def supervised(folder: Path) -> AsyncIterator[Supervisor]:
    """A supervisor of one worker."""
    made = Supervisor(parse(["--workers", "1"]), [], Sockets([]), folder)
    try:
        await made.start()
        yield made
    finally:
        await made.close()


@pytest.mark.parametrize("failure", [no_room, broken])
async def test_who_died_has_a_successor_as_soon_as_one_starts(
    failure: Callable[[Process], None], system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE", 0.0)
    async with supervised(tmp_path) as relay:
        system.plan = [failure, failure]
        system.started[0].end(1)
        await turns(lambda: system.attempts == 4)
        await turns(lambda: relay.ready)


async def test_who_was_killed_in_the_middle_of_a_word_has_a_successor(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE", 0.0)
    async with supervised(tmp_path) as relay:
        system.started[0].say('{"figures": [["conn')
        system.started[0].kill()
        await turns(lambda: len(system.started) == 2 and relay.ready)


@pytest.mark.parametrize("failure", [no_room, broken])
async def test_who_wants_to_leave_stays_until_somebody_can_come(
    failure: Callable[[Process], None], system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE", 1000.0)
    async with supervised(tmp_path) as relay:
        system.plan = [failure] * 1000
        system.started[0].say('{"leaving": true}\n')
        await turns(lambda: system.attempts == 2)
        for _ in range(100):
            await asyncio.sleep(0)
        assert system.attempts == 2, "no pause between two attempts"
        assert system.started[0].heard() == []
        assert relay.ready


async def test_renewing_without_room_fails_without_harm(system: System, tmp_path: Path) -> None:
    async with supervised(tmp_path) as relay:
        system.plan = [no_room]
        await relay.renew()
        assert relay.ready
        assert system.started[0].heard() == []
        await relay.renew()
        assert system.started[0].heard() == ["retire"]


async def test_who_dies_while_it_is_replaced_has_one_successor(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that were started for two reasons, the first one leaves again."""
    monkeypatch.setattr(supervisor, "_FIRST_PAUSE", 0.0)
    async with supervised(tmp_path) as relay:
        system.plan = [nothing, nothing]
        renewing = asyncio.ensure_future(relay.renew())
        await turns(lambda: len(system.started) == 2)
        system.started[0].end(1)
        await turns(lambda: len(system.started) == 3)
        ready(system.started[1])
        await renewing
        ready(system.started[2])
        await turns(lambda: system.started[1].heard() == ["retire"])
        assert system.started[2].heard() == []


async def test_who_does_not_answer_is_ended(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("_FIRST_PAUSE", "_PULSE", "_PATIENCE"):
        monkeypatch.setattr(supervisor, pause, 0.0)
    async with supervised(tmp_path) as relay:
        await turns(lambda: system.started[0].returncode == -9)
        await turns(lambda: len(system.started) > 1 and relay.ready)
