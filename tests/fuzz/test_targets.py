"""Each fuzz target on its seeds and on some random bytes, without a fuzzer; and the command that runs the fuzzer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, seeds

pytestmark = pytest.mark.slow  # together they take a tenth of the time that make fast has

ROOT = Path(__file__).parents[2]
EVERY = pytest.mark.parametrize("name", sorted(TARGETS))


@EVERY
def test_seeds(name: str) -> None:
    assert len(seeds(name)) >= 6
    for seed in seeds(name):
        TARGETS[name](seed)


@EVERY
@settings(max_examples=40, deadline=None, database=None)
@given(data=st.data())
def test_changed_seeds(name: str, data: st.DataObject) -> None:
    seed = bytearray(data.draw(st.sampled_from(seeds(name))))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(seed)))
        seed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    TARGETS[name](bytes(seed))


@EVERY
@settings(max_examples=40, deadline=None, database=None)
@given(data=st.binary(max_size=300))
def test_any_bytes(name: str, data: bytes) -> None:
    TARGETS[name](data)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_the_command_counts_executions_and_reports_a_crash() -> None:
    good = run("--seconds", "1", "--target", "post-handshake")
    bad = run("--seconds", "1", "--targets-from", "tests.fuzz.planted")
    if importlib.util.find_spec("atheris") is None:
        assert (good.returncode, bad.returncode) == (2, 2)
        assert "needs atheris" in good.stderr
        return
    assert good.returncode == 0, good.stderr
    name, count = good.stdout.split(": ")
    assert name == "post-handshake"
    assert int(count.removesuffix(" executions\n")) > 100
    assert bad.returncode == 1
    assert "planted: failed" in bad.stdout
    assert "planted: input " in bad.stdout
    assert "KeyError" in bad.stderr
