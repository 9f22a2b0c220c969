"""The life of a relay process, single or with workers: ready, asked by signals and by the operator, drained, over.

SIGTERM and SIGINT drain, a second one ends at once; SIGHUP takes new certificates; SIGUSR2 replaces every worker by a
new one. systemd is told, and its watchdog fed, where there is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Protocol

from tunnel_server.admin import Subject, admin
from tunnel_server.complaints import EXIT_INTERRUPTED, CommandError, say
from tunnel_server.sockets import Sockets, shown
from tunnel_server.systemd import notify, watchdog_interval

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class Relaying(Subject, Protocol):
    """Whoever serves: this process, or its workers."""

    async def reload(self) -> bool:
        """Take new certificates for connections to come, and tell whether there are any.

        Raises:
            CommandError: they are no good; the old ones stay in use.
        """

    async def renew(self) -> None:
        """Replace every worker by a new one, without dropping a tunnel."""

    def start_drain(self) -> None:
        """No new tunnels from now on."""

    async def drained(self) -> None:
        """Wait until no tunnel is left after `start_drain`."""

    def abort(self) -> None:
        """End all tunnels at once."""


async def live(relaying: Relaying, sockets: Sockets, drain: float) -> int:
    """Serve until a signal says otherwise; the exit code. `drain`: seconds for tunnels to end."""
    loop = asyncio.get_running_loop()
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for wanted in _SIGNALS:
        loop.add_signal_handler(wanted, signals.put_nowait, wanted)
    async with AsyncExitStack() as stack:
        if sockets.admin is not None:
            await stack.enter_async_context(admin(sockets.admin, relaying))
        stack.push_async_callback(_stop, asyncio.ensure_future(_feed_watchdog()))
        if sockets.admin is not None:
            say(f"admin on {shown(sockets.admin)}")
        if sockets.peer is not None:
            say(f"peers on {shown(sockets.peer)}")
        say(f"listening on {shown(sockets.public[0])}")
        notify("READY=1")
        first = await _until_told_to_end(relaying, signals)
        notify("STOPPING=1")
        await _drain(relaying, signals, drain)
    return EXIT_INTERRUPTED if first == signal.SIGINT else 0


async def _until_told_to_end(relaying: Relaying, signals: asyncio.Queue[signal.Signals]) -> signal.Signals:
    work: asyncio.Future[None] = asyncio.ensure_future(asyncio.sleep(0))
    try:
        while True:
            match wanted := await signals.get():
                case signal.SIGHUP:
                    work = asyncio.ensure_future(_after(work, partial(_reload, relaying)))
                case signal.SIGUSR2:
                    work = asyncio.ensure_future(_after(work, relaying.renew))
                case _:
                    return wanted
    finally:
        await _stop(work)


async def _after(work: asyncio.Future[None], more: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """One thing after the other, without keeping a signal to end waiting."""
    await work
    await more()


async def _reload(relaying: Relaying) -> None:
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    try:
        if await relaying.reload():
            logger.info("new certificates are in use")
        else:
            logger.info("there is no certificate to read again; other options need a restart")
    except CommandError as exc:
        logger.error("%s; the old one stays in use", exc)
    finally:
        notify("READY=1")


async def _drain(relaying: Relaying, signals: asyncio.Queue[signal.Signals], seconds: float) -> None:
    """Wait for the last tunnel, for the time or for a second signal, whichever comes first."""
    logger.info("no new tunnels from now on")
    relaying.start_drain()
    drained = asyncio.ensure_future(relaying.drained())
    again = asyncio.ensure_future(_told_to_end(signals))
    try:
        await asyncio.wait((drained, again), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not drained.done():
            relaying.abort()
            await drained
    finally:
        await _stop(drained)
        await _stop(again)


async def _told_to_end(signals: asyncio.Queue[signal.Signals]) -> None:
    while await signals.get() not in (signal.SIGTERM, signal.SIGINT):
        pass


async def _feed_watchdog() -> None:
    interval = watchdog_interval()
    while interval is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval)


async def _stop(future: asyncio.Future[None]) -> None:
    future.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await future
