"""With CI=true a skip fails unless the committed list names it with a reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.make_manual import ROOT
from tests.allowed_skips import LIST, is_allowed, read_list

pytestmark = pytest.mark.slow  # most of it starts processes, or takes many examples

_SUITE = """
import pytest

def test_skips():
    pytest.skip("no such program")

@pytest.mark.xfail(strict=True)
def test_known_to_fail():
    assert False

def test_passes():
    pass
"""


@pytest.mark.parametrize(
    ("ci", "summary"), [("true", "1 failed, 1 passed, 1 xfailed, 1 error"), ("", "1 passed, 2 skipped, 1 xfailed")]
)
def test_a_skip_fails_in_ci_only(ci: str, summary: str, tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(_SUITE)
    (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", os.devnull, "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "--continue-on-collection-errors", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "CI": ci, "PYTHONPATH": str(ROOT), "HYBRID_SOAK": ""},
    )
    assert summary in done.stdout.splitlines()[-1]
    if ci:
        assert "not listed in .ci/allowed-skips.txt: Skipped: no such program" in done.stdout


def test_the_committed_list_can_be_read() -> None:
    assert all(len(reason) > 10 for reason in read_list(LIST.read_text()).values())


def test_a_line_without_a_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="without a reason"):
        read_list("tests/test_some.py::test_it\n")


def test_patterns_are_globs_and_brackets_are_brackets() -> None:
    allowed = read_list("# comment\n\ntests/test_some.py::test_it[a-*] | not on this machine\n")
    assert allowed == {"tests/test_some.py::test_it[a-*]": "not on this machine"}
    assert is_allowed("tests/test_some.py::test_it[a-1]", allowed)
    assert not is_allowed("tests/test_some.py::test_it[b-1]", allowed)
    assert not is_allowed("tests/test_some.py::test_ita-1", allowed)
