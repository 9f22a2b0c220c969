"""The relay's figures: builds the generator, runs the rounds, prints the table."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.relay.generator import CannotBuild, build
from benchmarks.relay.rounds import Bench, round_of
from benchmarks.relay.table import markdown, other_ways
from hybrid.testing.throwaway_ca import ThrowawayCA


def run(rounds: int) -> int:
    """Measure and print; exit code."""
    if shutil.which("taskset") is None or (os.cpu_count() or 1) < 2:
        return _complain("the relay's benchmark needs two cores and taskset", "apt-get install util-linux")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            program = build(folder)
        except CannotBuild as exc:
            return _complain("the load generator cannot be built", str(exc))
        bench = Bench(program, ThrowawayCA.create().write(folder))
        measured = [round_of(bench, turn) for turn in range(rounds)]
    print(f"\nrelay, {rounds} rounds, median (least to greatest):\n")
    print("\n".join((*markdown(measured), "", *other_ways(measured))))
    return 0


def _complain(sentence: str, hint: str) -> int:
    print(f"benchmarks: error: {sentence}\nbenchmarks: hint: {hint}", file=sys.stderr)
    return 1
