"""The plugin is there for everybody, costs nothing until it is used, and says what it lacks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from hybrid.testing.browser import programs
from hybrid.testing.browser.programs import MissingParts, find_programs

RIG = (
    "PIL",
    "zxingcpp",
    "websockets",
    "dbus_fast",
    "bleak",
    "fido2",
    "cryptography",
    "tunnel_server",
    "hybrid.testing.browser",
)


def test_it_is_registered() -> None:
    (found,) = [point for point in entry_points(group="pytest11") if point.value == "hybrid.testing.pytest_plugin"]
    assert found.name == "hybrid"


def test_it_loads_nothing_of_the_rig() -> None:
    code = "import sys, hybrid.testing.pytest_plugin; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(RIG) & set(loaded)


def test_missing_parts_are_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: None if name == "xdotool" else f"/bin/{name}")
    monkeypatch.setattr(programs, "find_spec", lambda name: None if name == "zxingcpp" else object())
    monkeypatch.setattr(programs, "FONT", "/nowhere")
    with pytest.raises(MissingParts) as caught:
        find_programs()
    assert str(caught.value) == (
        "the browser rig needs the Debian package xdotool, the Debian package fonts-dejavu-core, the extra browser: "
        'apt-get install --no-install-recommends xdotool fonts-dejavu-core && pip install "fido-hybrid[browser]"'
    )
    assert (caught.value.packages, caught.value.extra) == (("xdotool", "fonts-dejavu-core"), "browser")
    assert caught.value.identifier == "browser.missing"


def test_any_chromium_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: f"/bin/{name}" if name != "chromium" else None)
    monkeypatch.setattr(programs, "FONT", str(Path(__file__).parent))
    assert find_programs()["chromium"] == "/bin/chromium-browser"


def failures_of(folder: Path, test: str, *options: str) -> str:
    """What pytest shows of a test file that fails, on a machine that lacks a part of the rig."""
    lacking = "from hybrid.testing.browser import programs\nprograms.MODULES = ('no_such_module',)\n"
    (folder / "conftest.py").write_text(lacking)
    (folder / "test_it.py").write_text(test)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    return done.stdout.partition("test_it _____")[2].partition("short test summary")[0]


NEEDS = 'the browser rig needs the extra browser: pip install "fido-hybrid[browser]"'


@pytest.mark.slow
def test_a_fixture_names_what_is_missing(tmp_path: Path) -> None:
    """And nothing else: how it found out is of no use to anybody who reads it."""
    shown = failures_of(tmp_path, "def test_it(hybrid_page):\n    pass\n")
    assert [line for line in shown.splitlines() if line.strip("_= ")] == [NEEDS]


@pytest.mark.slow
def test_what_the_rig_says_stands_below_the_line_of_the_test(tmp_path: Path) -> None:
    test = "from hybrid.testing.browser import open_browser\n\ndef test_it():\n    with open_browser():\n        pass\n"
    shown = failures_of(tmp_path, test)
    shown = re.sub(r"\n +\^+(?=\n)", "", shown)  # Python 3.13 shows which part of the line it is
    assert f">       with open_browser():\nE       hybrid.testing.browser.programs.MissingParts: {NEEDS}" in shown
    assert "find_programs" not in shown
    assert "find_programs" in failures_of(tmp_path, test, "--full-trace")


@pytest.mark.slow
def test_a_mistake_of_the_rig_is_shown_whole(tmp_path: Path) -> None:
    test = "from hybrid.testing.browser import PageOutcome\n\n"
    test += "def test_it():\n    PageOutcome({}, None, '', 0).extensions\n"
    shown = failures_of(tmp_path, test)
    assert "KeyError: 'clientExtensionResults'" in shown
    assert "page.py:" in shown


@pytest.mark.parametrize("path", ["docs/browser.md", "examples/cross_device/github-actions.yml", "scripts/setup"])
def test_every_package_is_named_where_people_install_them(path: str) -> None:
    text = (Path(__file__).parents[2] / path).read_text()
    for package in (*programs.PROGRAMS.values(), programs.FONT_PACKAGE):
        assert package in text
