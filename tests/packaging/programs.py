"""Programs of the machine that these tests use."""

from __future__ import annotations

import shutil

import pytest


def need(*names: str) -> None:
    """Skip where one is missing; with CI=true a skip is a failure."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {' '.join(missing)}")
