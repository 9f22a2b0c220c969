"""The committed list of tests that may be skipped where ``CI=true``: ``.ci/allowed-skips.txt``."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

LIST = Path(__file__).parents[1] / ".ci" / "allowed-skips.txt"


def read_list(text: str) -> dict[str, str]:
    """Reason by pattern. Raises `ValueError` for a line without a reason."""
    allowed = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        pattern, bar, reason = line.partition(" | ")
        if not bar or not reason.strip():
            raise ValueError(f"a skip is allowed without a reason: {line}")
        allowed[pattern.strip()] = reason.strip()
    return allowed


def is_allowed(test_id: str, allowed: dict[str, str]) -> bool:
    """Whether a pattern stands for this id. Brackets are those of parameters, not of sets of characters."""
    return any(fnmatchcase(test_id, pattern.replace("[", "[[]")) for pattern in allowed)
