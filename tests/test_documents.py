"""What the documents show works as pasted."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("hardware/*.md")])
RUNNABLE = ("loopback", "always_no", "own_relay", "virtual_authenticator", "other_phones")


def test_the_library_example_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    script = tmp_path / "pasted.py"
    script.write_text(example)
    runpy.run_path(str(script), run_name="__main__")
    output = capsys.readouterr().out
    assert "Ready(features=('ctap',))" in output
    assert re.fullmatch(r"[A-Za-z0-9_-]{22,}", output.splitlines()[-1])


@pytest.mark.parametrize("name", RUNNABLE)
def test_examples_run(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"examples.{name}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_every_example_is_run_or_needs_a_phone() -> None:
    names = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"__init__"}
    assert names == {*RUNNABLE, "sign_in"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        assert "://" in target or (document.parent / target).exists(), target


def test_the_aaguid_is_published() -> None:
    from hybrid.passkeys import AAGUID

    assert str(AAGUID) in (ROOT / "README.md").read_text()
