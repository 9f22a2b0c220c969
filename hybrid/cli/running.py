"""Runs a command's coroutine: signals end it politely, failures become a sentence, a hint and an exit code."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from hybrid.cli.messages import EXIT_BUG, EXIT_INTERRUPTED, Explanation, explain
from hybrid.cli.terminal import Screen
from hybrid.errors import HybridError

_log = logging.getLogger(__name__)

EXIT_TERMINATED = 128 + signal.SIGTERM


def run_politely(
    work: Coroutine[Any, Any, int], screen: Screen, explained: Callable[[HybridError], Explanation] = explain
) -> int:
    """Run `work` to its exit code. A signal cancels it, so that it can say goodbye to its peer."""
    try:
        return asyncio.run(_with_signals(work, screen))
    except HybridError as error:
        explanation = explained(error)
        if explanation.exit_code == EXIT_BUG:
            raise
        screen.fail(error.identifier, explanation)
        return explanation.exit_code
    finally:
        screen.close()


async def _with_signals(work: Coroutine[Any, Any, int], screen: Screen) -> int:
    task = asyncio.create_task(work)
    caught: list[int] = []

    def stop(number: int) -> None:
        caught.append(number)
        task.cancel()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_note)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not caught:
            raise
        screen.stopped()
        return EXIT_INTERRUPTED if caught[0] == signal.SIGINT else EXIT_TERMINATED
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # What a library's task left behind: asyncio would print it between our lines.
    _log.debug("%s: %r", context.get("message"), context.get("exception"))
