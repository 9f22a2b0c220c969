"""Several workers on one host: `lifecycle.Relaying` over processes that share the listening sockets.

Whichever worker is free accepts; a join that belongs to another one is passed on through a private folder of unix
sockets (`tunnel_server.forwarding`). The supervisor carries no tunnel, so nothing is lost when it replaces a worker:
the successor starts first, then the old one stops accepting and lives until its last connection ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from tunnel_server import peering
from tunnel_server.complaints import EXIT_FAILED, CommandError
from tunnel_server.forwarding import gift_path, owners_in, socket_path
from tunnel_server.lifecycle import live
from tunnel_server.metrics import Samples, exposition, label, lasting, merge, process_samples, version_sample
from tunnel_server.routing import NODES, draw
from tunnel_server.runtime_folder import private_folder
from tunnel_server.settings import Settings, log_trouble
from tunnel_server.sockets import Sockets, open_sockets
from tunnel_server.worker import Job

logger = logging.getLogger(__name__)

_START_TIME = 30.0  # s for a worker to be ready
_ANSWER_TIME = 1.0  # s for figures
_PULSE = 5.0  # s between two looks at a worker
_PATIENCE = 15.0  # s for its answer; TLS handshakes of 16,384 connections that come at once keep it busy for some 5
_STOP_TIME = 3.0  # s from "stop" to SIGKILL
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0  # s before a worker that ended by itself is started anew
_HEALTHY_AFTER = 10.0  # s after which a worker counts as having started well
_MAX_LINE = 1024 * 1024


class _Process:
    """A worker as the supervisor sees it."""

    def __init__(self, job: Job, process: asyncio.subprocess.Process) -> None:
        self.job = job
        self.process = process
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self.leaving = asyncio.Event()
        self.last: Samples = []  # what it has counted, as far as it has told
        self._out: asyncio.StreamWriter | None = None
        self._asked: list[asyncio.Future[Samples]] = []

    async def attend(self, control: socket.socket) -> None:
        """Listen to it until it is gone."""
        words, self._out = await asyncio.open_connection(sock=control, limit=_MAX_LINE)
        with contextlib.suppress(OSError, ValueError):  # ValueError: killed in the middle of a word
            while line := await words.readline():
                match json.loads(line):
                    case {"ready": True}:
                        self.ready.set()
                    case {"leaving": True}:
                        self.leaving.set()
                    case {"figures": samples}:
                        self.last = samples
                        for waiting in self._asked:
                            if not waiting.done():
                                waiting.set_result(samples)
                        self._asked.clear()
                    case {"last": samples}:
                        self.last = samples
        await self.process.wait()
        self._out.close()
        for waiting in self._asked:
            waiting.cancel()
        self.ended.set()

    def say(self, word: str) -> None:
        """Tell it what to do."""
        if self._out is not None and not self._out.is_closing():
            self._out.write(json.dumps({"do": word}).encode() + b"\n")

    async def figures(self, seconds: float) -> Samples | None:
        """What it has counted; None if it does not answer in time."""
        waiting: asyncio.Future[Samples] = asyncio.get_running_loop().create_future()
        self._asked.append(waiting)
        self.say("figures")
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            return await asyncio.wait_for(waiting, seconds)
        return None

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


class Supervisor:
    """Keeps `settings.workers` workers alive."""

    def __init__(
        self,
        settings: Settings,
        arguments: list[str],
        sockets: Sockets,
        folder: Path,
    ) -> None:
        self.node = secrets.randbelow(NODES) if settings.node is None else settings.node
        self._settings = settings
        self._arguments = arguments
        self._sockets = sockets
        self._folder = folder
        self._current: dict[int, _Process] = {}
        self._all: set[_Process] = set()
        self._past: dict[int, Samples] = {}  # of workers that are gone, by number
        self._restarts = 0
        self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()

    # Relaying

    @property
    def healthy(self) -> bool:
        return any(worker.ready.is_set() and not worker.ended.is_set() for worker in self._all)

    @property
    def ready(self) -> bool:
        return not self._draining and self._serving > 0

    @property
    def _serving(self) -> int:
        return sum(worker.ready.is_set() and not worker.ended.is_set() for worker in self._current.values())

    async def metrics(self) -> str:
        workers = sorted(self._all, key=lambda worker: worker.job.number)
        await asyncio.gather(*(worker.figures(_ANSWER_TIME) for worker in workers))
        parts = [label(past, worker=str(number)) for number, past in self._past.items()]
        # who ended meanwhile is in the past
        parts += [label(worker.last, worker=str(worker.job.number)) for worker in workers if worker in self._all]
        own: Samples = [
            version_sample(),
            ("ready", {}, int(self.ready)),
            ("workers", {}, self._serving),
            ("worker_restarts_total", {}, self._restarts),
            *label(process_samples(), worker="supervisor"),
        ]
        return exposition([*own, *merge(*parts)])

    async def reload(self) -> bool:
        # read here too, so that files that are no good never reach a worker
        clients, nodes = self._settings.tls(), self._settings.peer_contexts()
        for worker in self._all:
            worker.say("reload")
        return clients is not None or nodes is not None

    async def renew(self) -> None:
        for number in sorted(self._current):
            await self._replace(number)
        logger.info("every worker is a new one")

    def start_drain(self) -> None:
        self._draining = True
        for worker in self._all:
            worker.say("drain")

    async def drained(self) -> None:
        while self._all:
            await asyncio.wait({asyncio.ensure_future(worker.ended.wait()) for worker in self._all})

    def abort(self) -> None:
        for worker in self._all:
            worker.say("stop")
            asyncio.get_running_loop().call_later(_STOP_TIME, worker.kill)

    # Workers

    async def start(self) -> None:
        """Start all of them.

        Raises:
            CommandError: one does not get ready; it has said why.
        """
        numbers = range(self._settings.workers)
        found = await asyncio.gather(*(self._start(number) for number in numbers))
        for number, worker in zip(numbers, found, strict=True):
            if worker is None:
                raise CommandError("a worker does not start", "its own words stand above", EXIT_FAILED)
            self._current[number] = worker
            self._do(self._keep(number))

    async def close(self) -> None:
        """End what is left."""
        self._draining = True
        for worker in self._all:
            worker.kill()
        await self.drained()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, number: int) -> _Process | None:
        """A new worker that is ready; None if it does not get there."""
        try:
            worker, control = await self._spawn(number)
        except OSError as exc:  # no more processes, memory or descriptors: perhaps later
            logger.error("a process cannot be started: %s", exc.strerror)
            return None
        self._all.add(worker)
        self._do(self._attend(worker, control))
        waiting = [asyncio.ensure_future(event.wait()) for event in (worker.ready, worker.ended)]
        await asyncio.wait(waiting, timeout=_START_TIME, return_when=asyncio.FIRST_COMPLETED)
        for one in waiting:
            one.cancel()
        if self._draining:
            worker.say("drain")
        if worker.ready.is_set():
            return worker
        worker.kill()
        return None

    async def _spawn(self, number: int) -> tuple[_Process, socket.socket]:
        """A process that becomes a worker, and our end of the socket that it speaks on.

        Raises:
            OSError
        """
        taken = owners_in(self._folder) | {bytes.fromhex(worker.job.routing_id) for worker in self._all}
        routing_id = draw(self.node, number, secrets.randbits(32), taken)
        public = [made.fileno() for made in self._sockets.public]
        path = socket_path(self._folder, routing_id)
        ours, theirs = socket.socketpair()
        job = Job(number, routing_id.hex(), str(path), theirs.fileno(), tuple(public))
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "tunnel_server.worker",
                    job.text(),
                    *self._arguments,
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *public),
                    start_new_session=True,  # what a terminal sends is for the supervisor alone
                    env=_environment(),
                )
        except BaseException:  # also when we are told to end meanwhile
            ours.close()
            raise
        return _Process(job, process), ours

    async def _attend(self, worker: _Process, control: socket.socket) -> None:
        try:
            await worker.attend(control)
        finally:
            number = worker.job.number
            self._all.discard(worker)
            self._past[number] = merge(self._past.get(number, []), lasting(worker.last))
            for path in (worker.job.socket, gift_path(worker.job.socket)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    async def _replace(self, number: int) -> bool:
        """A successor for a worker, which then leaves if it still can; False if there is none."""
        worker = await self._start(number)
        before = self._current[number]  # perhaps not who it was: a worker may die while all are replaced
        if worker is None:
            logger.error("a new worker does not start%s", "" if before.ended.is_set() else "; the old one goes on")
            return False
        self._current[number] = worker
        before.say("retire")
        return True

    async def _keep(self, number: int) -> None:
        """See to it that there is always a worker of this number."""
        pause = _FIRST_PAUSE
        while not self._draining:
            worker = self._current[number]
            started = asyncio.get_running_loop().time()
            await self._watch(worker)
            if asyncio.get_running_loop().time() - started > _HEALTHY_AFTER:
                pause = _FIRST_PAUSE
            if worker.ended.is_set() and self._lacks(number, worker):
                logger.error("worker %d ended by itself with %s", number, worker.process.returncode)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            while self._lacks(number, worker):
                self._restarts += worker.ended.is_set()
                if not await self._replace(number):
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)

    def _lacks(self, number: int, worker: _Process) -> bool:
        """Whether the end of `worker` leaves a gap."""
        return not self._draining and self._current[number] is worker

    async def _watch(self, worker: _Process) -> None:
        """Wait until a worker ends or wants to; one that does not answer is ended."""
        while not worker.ended.is_set() and not worker.leaving.is_set():
            waiting = [asyncio.ensure_future(event.wait()) for event in (worker.ended, worker.leaving)]
            done, _ = await asyncio.wait(waiting, timeout=_PULSE, return_when=asyncio.FIRST_COMPLETED)
            for one in waiting:
                one.cancel()
            if not done and await worker.figures(_PATIENCE) is None and not worker.ended.is_set():
                logger.error("worker %d does not answer and is ended", worker.job.number)
                worker.kill()
                await worker.ended.wait()


def _environment() -> dict[str, str]:
    """Ours without what systemd said to this process alone."""
    mine = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    return {name: value for name, value in os.environ.items() if name not in mine}


async def run(settings: Settings, arguments: list[str]) -> int:
    """Serve with several workers until a signal ends it; the exit code. `arguments`: the options as they were given."""
    asyncio.get_running_loop().set_exception_handler(log_trouble)
    with private_folder(settings.runtime_dir) as folder:
        sockets = await open_sockets(settings)
        for listening in sockets.public:
            listening.listen(socket.SOMAXCONN)
        supervisor = Supervisor(settings, arguments, sockets, folder)
        try:
            await supervisor.start()
            async with _peer_listener(sockets.peer, folder, settings.limits.connections):
                return await live(supervisor, sockets, settings.drain)
        finally:
            await supervisor.close()
            sockets.close()


@contextlib.asynccontextmanager
async def _peer_listener(listening: socket.socket | None, folder: Path, limit: int) -> AsyncIterator[None]:
    if listening is None:
        yield
        return
    server = await peering.listen(listening, folder, limit)
    try:
        yield
    finally:
        server.close()
