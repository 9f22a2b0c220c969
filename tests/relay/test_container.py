"""The build file of the container as far as it goes by hand; `hardware/container/try.sh` builds and runs it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.packaging.checkout import tracked_files
from tunnel_server.__main__ import command
from tunnel_server.config import defaults

ROOT = Path(__file__).parents[2]
OCI = ROOT / "packaging" / "oci"
LINES = [
    line.split(" ", 1)
    for line in re.sub(r"\\\n", "", (OCI / "Containerfile").read_text()).splitlines()
    if line and not line.startswith("#")
]


def every(word: str) -> list[str]:
    return [rest for name, rest in LINES if name == word]


def test_its_words() -> None:
    words = {"FROM", "COPY", "RUN", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in LINES} == words
    assert [name for name, _ in LINES].index("USER") > max(i for i, (name, _) in enumerate(LINES) if name == "COPY")
    (user,) = every("USER")
    assert all(int(number) > 0 for number in user.split(":"))
    assert "/healthz" in every("HEALTHCHECK")[0]
    tracked = {str(path.relative_to(ROOT)) for path in tracked_files()}
    for line in every("COPY"):
        for source in shlex.split(line)[:-1]:
            if not source.startswith("-") and "--from" not in line:
                assert any(path == source or path.startswith(f"{source}/") for path in tracked), source


def test_its_configuration_is_one() -> None:
    values = defaults(command, OCI / "tunnel-server.toml")
    assert str(values["port"]) in every("EXPOSE")
    assert values["admin"] in every("HEALTHCHECK")[0]
    assert {"cert", "key", "host"} <= set(values)


@pytest.mark.slow
def test_what_it_copies_is_enough_for_a_wheel(tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    for line in every("COPY"):
        *names, target = shlex.split(line)
        if target.startswith("/src"):
            for name in names:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, tmp_path / target[1:], ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, source)
    build = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w")
    done = subprocess.run([*build, str(tmp_path), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "tunnel_server/__main__.py" in names
    assert any(name.endswith("entry_points.txt") for name in names)
