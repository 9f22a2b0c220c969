"""The plugin is there for everybody, costs nothing until it is used, and says what it lacks."""

from __future__ import annotations

import os
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


@pytest.mark.slow
def test_a_fixture_names_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "from hybrid.testing.browser import programs\nprograms.MODULES = ('no_such_module',)\n"
    )
    (tmp_path / "test_it.py").write_text("def test_it(hybrid_page):\n    pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert 'pip install "fido-hybrid[browser]"' in done.stdout


@pytest.mark.parametrize("path", ["docs/browser.md", "examples/cross_device/github-actions.yml", "scripts/setup"])
def test_every_package_is_named_where_people_install_them(path: str) -> None:
    text = (Path(__file__).parents[2] / path).read_text()
    for package in (*programs.PROGRAMS.values(), programs.FONT_PACKAGE):
        assert package in text
