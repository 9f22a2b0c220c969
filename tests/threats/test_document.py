"""docs/security.md says of every threat what stands against it, and which test shows that; the tests are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "security.md").read_text()
THREATS = [f"T{number}" for number in range(1, 23)]
REASON = re.compile(r"\b(?:no test|none for) [a-z]")


def rows() -> dict[str, list[str]]:
    """Number to its cells: threat, control, tests."""
    found: dict[str, list[str]] = {}
    for line in DOCUMENT.splitlines():
        if re.match(r"\| T\d+ \|", line):
            number, *cells = (cell.strip() for cell in line.strip("|").split(" | "))
            assert number not in found
            assert len(cells) == 3, number
            found[number] = cells
    return found


def names_below(folder: Path) -> set[str]:
    """Names of the test functions in the files of a folder."""
    names: set[str] = set()
    for path in folder.rglob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                names.add(node.name)
    return names


def named_in(text: str) -> list[str]:
    return re.findall(r"`(test_\w+)`", text)


def threat_of(test: str) -> str | None:
    match = re.match(r"test_(t\d+)_", test)
    return match[1].upper() if match else None


def test_every_threat_has_a_row() -> None:
    assert list(rows()) == THREATS


@pytest.mark.parametrize("number", THREATS)
def test_a_row_names_tests_or_a_reason(number: str) -> None:
    tests = rows()[number][2]
    assert named_in(tests) or REASON.search(tests)


def test_every_test_that_is_named_is_there() -> None:
    there = names_below(ROOT / "tests")
    named = {(number, test) for number, cells in rows().items() for test in named_in(cells[2])}
    assert len(named) > len(THREATS)
    assert [(number, test) for number, test in named if test not in there] == []
    assert [(number, test) for number, test in named if threat_of(test) not in (None, number)] == []


def test_every_threats_test_of_this_folder_is_named() -> None:
    ours = {test for test in names_below(Path(__file__).parent) if threat_of(test)}
    assert ours - {test for cells in rows().values() for test in named_in(cells[2])} == set()


def test_every_file_that_is_named_is_there() -> None:
    named = re.findall(r"`((?:hybrid|tunnel_server|tests|docs)/[\w/.]*)`", DOCUMENT)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_readme_leads_here() -> None:
    assert "(docs/security.md)" in (ROOT / "README.md").read_text()
