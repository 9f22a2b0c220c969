"""What must not be in any committed file: where packages come from, and where somebody's files are."""

from __future__ import annotations

import re

import pytest

from tests.packaging.checkout import tracked_files

# Written in two halves, so that this file does not contain what it looks for.
_ADDRESSES = [("pypi", "org"), ("pythonhosted", "org"), ("deb.debian", "org"), ("npmjs", "org"), ("crates", "io")]
_FORBIDDEN = [
    *(rf"{name}\.{end}\b" for name, end in _ADDRESSES),
    r"proxy\." + r"golang\.org",
    r"(?<![\w.])/" + r"work/",
    r"/root/" + r"\.",
    r"/home/" + r"\w+/",
]


@pytest.mark.parametrize("pattern", _FORBIDDEN)
def test_no_address_of_a_registry_and_no_path_of_a_machine(pattern: str) -> None:
    found = [
        f"{path}: {hit.group()}"
        for path in tracked_files()
        if (hit := re.search(pattern, path.read_bytes().decode("utf-8", "replace")))
    ]
    assert not found
