"""A command's coroutine run to its exit code."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from typing import Any

import pytest

from hybrid.cli.running import run_politely
from hybrid.cli.terminal import Screen
from hybrid.errors import HybridError, InvalidQR, LocalProtocolError, QRProblem


def run(work: Any, **options: Any) -> tuple[int, str]:
    stream = io.StringIO()
    return run_politely(work, Screen(stream=stream), **options), stream.getvalue()


async def give(code: int) -> int:
    return code


async def fail(error: BaseException) -> int:
    raise error


def test_the_works_own_code() -> None:
    assert run(give(7)) == (7, "")


def test_a_failure_is_explained() -> None:
    code, told = run(fail(InvalidQR("it is no code", QRProblem.USED)))
    assert code == 2
    assert told == (
        "hybrid: error: it is no code\nhybrid: hint: codes are good for one try; let the computer show a new one\n"
    )


@pytest.mark.parametrize("error", [LocalProtocolError("a bug"), ValueError("a bug"), HybridError("a bug")])
def test_a_bug_is_left_to_the_outermost_border(error: Exception) -> None:
    with pytest.raises(type(error)):
        run(fail(error))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_work_say_goodbye(number: signal.Signals, code: int) -> None:
    said = []

    async def work() -> int:
        os.kill(os.getpid(), number)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            said.append("goodbye")
        return 0

    before = signal.getsignal(number)
    assert run(work()) == (code, "hybrid: stopped\n")
    assert said == ["goodbye"]
    assert signal.getsignal(number) is before


def test_a_cancellation_that_no_signal_caused_is_not_hidden() -> None:
    with pytest.raises(asyncio.CancelledError):
        run(fail(asyncio.CancelledError()))
