"""One worker of several: ``python -m tunnel_server.worker JOB OPTIONS...``, started by `tunnel_server.supervisor` only.

OPTIONS are those of the command; JOB says which part of the work it is, and through which socket the supervisor speaks.
Words on that socket are JSON, one a line. When it ends, the supervisor is gone, and the worker drains and goes too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
from collections.abc import Awaitable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from tunnel_server.app import Server
from tunnel_server.complaints import CommandError, say_no_more
from tunnel_server.forwarding import Forwarder, gift_path, take_gifts
from tunnel_server.links import PeerContexts
from tunnel_server.peering import CalledLinks
from tunnel_server.routing import owner_of
from tunnel_server.runtime_folder import in_use
from tunnel_server.settings import Settings, log_trouble
from tunnel_server.single import Single, relaying

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """Which worker this is. `control` and `public`: descriptors; `socket`: path for joins that others pass on."""

    number: int
    routing_id: str
    socket: str
    control: int
    public: tuple[int, ...]

    def text(self) -> str:
        """For the command line; it holds no secret."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Job:
        fields = json.loads(text)
        return cls(**{**fields, "public": tuple(fields["public"])})


class Worker:
    """Does what the supervisor says, until all is over."""

    def __init__(
        self,
        settings: Settings,
        single: Single,
        server: Server,
        forwarder: Forwarder,
        peers_tls: PeerContexts | None,
        out: asyncio.StreamWriter,
    ) -> None:
        self._settings = settings
        self._peers_tls = peers_tls
        self._forwarder = forwarder
        self._single = single
        self._server = server
        self._out = out
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def live(self, words: asyncio.StreamReader) -> None:
        """From ready to the last tunnel."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: self._say(leaving=True))
        self._do(self._obey(words))
        self._say(ready=True)
        try:
            await self._over.wait()
            self._say(last=self._single.samples())
            with contextlib.suppress(OSError):
                await self._out.drain()
        finally:
            for task in self._tasks:
                task.cancel()

    def _say(self, **words: Any) -> None:
        if not self._out.is_closing():
            self._out.write(json.dumps(words).encode() + b"\n")

    def _do(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _obey(self, words: asyncio.StreamReader) -> None:
        while (word := await _next_word(words)) is not None:
            match word:
                case {"do": "figures"}:
                    self._say(figures=self._single.samples())
                case {"do": "reload"}:
                    self._do(self._reload())
                case {"do": "retire"}:
                    self._do(self._retire())
                case {"do": "drain"}:
                    self._do(self._drain())
                case {"do": "stop"}:
                    self._stop()
        self._do(self._drain())
        asyncio.get_running_loop().call_later(self._settings.drain, self._stop)

    async def _reload(self) -> None:
        try:
            fresh = self._settings.peer_contexts()
            await self._single.reload()
            if self._peers_tls is not None and fresh is not None:
                self._peers_tls.replace_by(fresh)
        except CommandError as exc:
            logger.error("%s; the old one stays in use", exc)

    async def _retire(self) -> None:
        """Leave the rest to a successor: no new connections, and all the time that a tunnel may take."""
        limits = self._settings.limits
        await self._server.stop_accepting()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.head + limits.lifetime + limits.linger):
                await self._server.deserted()
        self._over.set()

    async def _drain(self) -> None:
        self._single.start_drain()
        await self._single.drained()
        self._over.set()

    def _stop(self) -> None:
        self._forwarder.farewell()
        self._single.abort()
        self._over.set()


async def _next_word(words: asyncio.StreamReader) -> Any:
    """What the supervisor says; None if it is gone."""
    try:
        return json.loads(await words.readline())
    except (OSError, ValueError):  # ValueError: nothing more, or the beginning of a word
        return None


async def work(job: Job, settings: Settings) -> int:
    """Be a worker; the exit code."""
    asyncio.get_running_loop().set_exception_handler(log_trouble)
    routing_id = bytes.fromhex(job.routing_id)
    peers_tls = settings.peer_contexts()
    forwarder = Forwarder(
        owner_of(routing_id).node,
        Path(job.socket).parent,
        peers=settings.peers,
        peers_tls=peers_tls,
        proxy_protocol=settings.proxy_protocol,
    )
    words, out = await asyncio.open_connection(sock=socket.socket(fileno=job.control))
    inside, gifts = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    inside.bind(job.socket)
    gifts.bind(gift_path(job.socket))
    public = [socket.socket(fileno=number) for number in job.public]
    async with relaying(settings, [*public, inside], routing_id, forwarder.route) as (single, server):
        links = None if peers_tls is None else CalledLinks(server, peers_tls, settings.limits.connections)
        take_gifts(server, gifts, None if links is None else links.make)
        await Worker(settings, single, server, forwarder, peers_tls, out).live(words)
        asyncio.get_running_loop().remove_reader(gifts)
    forwarder.close()
    if links is not None:
        links.close()
    gifts.close()
    out.close()
    return 0


def run() -> None:
    """Entry point of the process. The supervisor has checked the same options, perhaps some time ago."""
    from tunnel_server.__main__ import parse  # the command knows of the supervisor, and the supervisor of us

    for told_to_all in (signal.SIGHUP, signal.SIGUSR2):  # by "systemctl kill", and meant for the supervisor
        signal.signal(told_to_all, signal.SIG_IGN)
    job = Job.parse(sys.argv[1])
    try:
        settings = parse(sys.argv[2:], worker=job.number).with_file_limit()
        factory = settings.loop_factory()
    except (CommandError, click.UsageError) as exc:  # a file that has changed since the supervisor checked it
        words = exc.format_message() if isinstance(exc, click.UsageError) else str(exc)
        sys.exit(f"tunnel-server[{job.number}]: error: {words}")
    with in_use(Path(job.socket).parent), asyncio.Runner(loop_factory=factory) as runner:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = runner.run(work(job, settings))
    say_no_more()
    sys.exit(code)


if __name__ == "__main__":
    run()
