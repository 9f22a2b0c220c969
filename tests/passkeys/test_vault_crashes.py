"""SIGKILL at random points and before every step of a write: no passkey that was confirmed is lost, none is torn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SOAK

pytestmark = [pytest.mark.slow, pytest.mark.soak]

KILLS = 1000 if SOAK else 40
WRITES = 20 if SOAK else 2
SEED = 20261121
ROOT = Path(__file__).parents[2]


def figures(how: str, folder: Path, count: int) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.passkeys.kill_rig", how, str(folder), str(count), str(SEED)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    made: dict[str, int] = json.loads(done.stdout)
    assert made["unreadable"] == 0, done.stderr
    return made


def test_t19_kills_at_random_points(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    told = figures("random", tmp_path, KILLS)
    for name, value in told.items():
        record_property(name, value)
    assert told["kills"] == KILLS
    assert told["confirmed"] >= KILLS
    assert not SOAK or told["in_mid_write"] > 50  # so few kills as in a test may all miss
    assert (told["lost"], told["torn"]) == (0, 0)


def test_t19_a_kill_before_every_step(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    told = figures("steps", tmp_path, WRITES)
    for name, value in told.items():
        record_property(name, value)
    assert told["kills"] >= 10 * WRITES
    assert told["confirmed"] >= WRITES
    assert told["in_mid_write"] > 0
    assert told["kept_unconfirmed"] > 0  # killed after the new file was in its place
    assert (told["lost"], told["torn"]) == (0, 0)
