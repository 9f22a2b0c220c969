"""Runs a command's coroutine: signals end it politely, failures become a sentence, a hint and an exit code."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from hybrid.cli.messages import EXIT_INTERRUPTED, Explanation, explain
from hybrid.cli.terminal import Screen
from hybrid.errors import HybridError

EXIT_TERMINATED = 128 + signal.SIGTERM


def run_politely(
    work: Coroutine[Any, Any, int], screen: Screen, explained: Callable[[HybridError], Explanation] = explain
) -> int:
    """Run `work` to its exit code. A signal cancels it, so that it can say goodbye to its peer."""
    try:
        return asyncio.run(_with_signals(work, screen))
    except HybridError as error:
        explanation = explained(error)
        screen.fail(error, explanation)
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
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not caught:
            raise
        screen.say("stopped")
        return EXIT_INTERRUPTED if caught[0] == signal.SIGINT else EXIT_TERMINATED
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
