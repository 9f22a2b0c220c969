"""constraints.txt: versions only, for everything that this project installs anywhere. And what the extras hold."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.make_manual import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
GROUPS: dict[str, list[str]] = PROJECT["dependency-groups"]
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
PINS = {canonicalize_name(name): pinned for name, _, pinned in (line.partition("==") for line in LINES)}


def named() -> list[Requirement]:
    """Everything that pyproject.toml names."""
    lists = [
        PROJECT["build-system"]["requires"],
        PROJECT["project"]["dependencies"],
        *EXTRAS.values(),
        *GROUPS.values(),
    ]
    found = [Requirement(text) for requirements in lists for text in requirements]
    return [requirement for requirement in found if requirement.name != PROJECT["project"]["name"]]


def test_nothing_but_versions() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line) for line in LINES)
    assert len(PINS) == len(LINES)
    assert list(PINS) == sorted(PINS)


@pytest.mark.parametrize("requirement", named(), ids=lambda requirement: requirement.name)
def test_what_the_project_names_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_what_is_installed_is_what_is_pinned() -> None:
    """Follows requirements as pip does, through everything that is installed here."""
    waiting = [(requirement, "") for requirement in named()]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
            continue
        seen.add((name, extra))
        try:
            assert version(name) == PINS.get(name), name
        except PackageNotFoundError:
            continue
        waiting += [
            (Requirement(text), wanted) for text in requires(name) or () for wanted in ("", *requirement.extras)
        ]
    assert len({name for name, _ in seen}) > 30


def test_all_is_every_extra_and_no_development_tool() -> None:
    assert [Requirement(text) for text in EXTRAS["all"]] == [
        Requirement(f"fido-hybrid[{','.join(sorted(set(EXTRAS) - {'all'}))}]")
    ]
    tools = {Requirement(text).name for group in GROUPS.values() for text in group}
    assert not tools & {Requirement(text).name for extra in EXTRAS.values() for text in extra}


def test_the_version_is_the_same_everywhere() -> None:
    import hybrid

    assert PROJECT["project"]["version"] == hybrid.__version__ == version("fido-hybrid")
