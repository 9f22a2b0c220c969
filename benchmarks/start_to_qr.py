"""Time from the start of the process to the code on the screen, against a Python that does nothing."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.pairs import Pair, measure


def run(rounds: int) -> list[Pair]:
    return [measure("process start to QR code, against an idle python", _hybrid_get, _idle_python, rounds)]


def _hybrid_get() -> float:
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "hybrid", "get", "example.com"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        elapsed = time.perf_counter() - start
        process.terminate()
        process.stderr.read()
    if not line.startswith("FIDO:/"):
        raise RuntimeError(f"no code came: {line.strip()}")
    return elapsed


def _idle_python() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - start
