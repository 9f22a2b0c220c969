"""The files of this checkout that are committed or about to be, as they are now."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.make_manual import ROOT
from tests.packaging.programs import need


def tracked_files() -> list[Path]:
    """Skips the test where this is no git checkout."""
    need("git")
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def copy_to(folder: Path) -> Path:
    """A plain archive: the tracked files and nothing else, no .git."""
    for path in tracked_files():
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder
