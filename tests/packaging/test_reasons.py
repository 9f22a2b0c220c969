"""A line that turns a check off, or that catches everything, says why on the line itself."""

from __future__ import annotations

import re

import pytest

from scripts.make_manual import ROOT
from tests.packaging.checkout import tracked_files

# Written in two halves, so that this file does not contain what it looks for.
_MARKERS = (
    r"# type: " + r"?ignore(\[[\w, -]+\])?",
    r"# no" + r"qa(: ?[A-Z]+\d+(, ?[A-Z]+\d+)*)?",
    r"except Base" + r"Exception( as \w+)?:",
)
_BARE = re.compile(rf"({'|'.join(_MARKERS)})[\s#(-]*($|{'|'.join(_MARKERS)})", re.MULTILINE)


def test_every_exception_to_the_rules_has_a_reason() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, hit.start()) + 1}"
        for path in tracked_files()
        if path.suffix == ".py"
        for text in [path.read_text(encoding="utf-8")]
        for hit in _BARE.finditer(text)
    ]
    assert not found


@pytest.mark.parametrize(
    "marker", ["# type: " + "ignore[index]", "# no" + "qa: S603", "except Base" + "Exception as error:"]
)
def test_what_counts_as_a_reason(marker: str) -> None:
    for bare in (
        marker,
        f"{marker}  ",
        f"x = 1  {marker}\ny = 2",
        f"{marker}  # ",
        f"{marker}  # type: " + "ignore[a]  # b",
    ):
        assert _BARE.search(bare), bare
    for good in (f"{marker}  # the library leaves it so", f"{marker} - our own", f"{marker} (why)"):
        assert not _BARE.search(good), good
