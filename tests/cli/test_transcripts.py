"""Every way to fail that a person mends differently, and every success, as a person sees it on the screen.

The golden files are written by ``python -m tests.cli.record``, never by a test.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.scenarios import SCENARIOS
from tests.cli.stage import Stage
from tests.cli.transcript import GOLDEN, render, try_out

_SAY_IT_THEIR_WAY = ("usage-no-arguments", "vectors-failing", "vectors-no-case")  # the help, and the table

pytestmark = pytest.mark.slow  # hundreds of them: a fifth of the time that make fast has


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_transcript(made_stage: Stage, tmp_path: Path, name: str) -> None:
    scenario = SCENARIOS[name]
    tmp_path.chmod(0o700)
    outcome = try_out(made_stage, scenario, tmp_path)
    assert render(scenario, outcome) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_failure_is_one_sentence_and_one_hint(name: str) -> None:
    text = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
    stderr = text.split("--- stderr ---\n")[1].splitlines()
    failed = "\nexit code 0\n" not in text
    assert "Traceback" not in text
    if name in _SAY_IT_THEIR_WAY:
        return
    errors = [line for line in stderr if line.startswith("hybrid: error: ") or '"event": "error"' in line]
    assert len(errors) == failed
    if errors and errors[0].startswith("hybrid: "):
        assert stderr[-2:] == [errors[0], next(line for line in stderr if line.startswith("hybrid: hint: "))]
