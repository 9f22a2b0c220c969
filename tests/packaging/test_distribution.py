"""Wheel and sdist: built from a plain archive, and working in an empty environment, without repository and extras."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import hybrid
from scripts.make_manual import ROOT, files
from tests.packaging.checkout import copy_to
from tests.packaging.programs import need

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

STEM = f"fido_hybrid-{hybrid.__version__}"
SHARED = [name for name in files() if name.startswith("share/")]
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-q", "-c", str(ROOT / "constraints.txt"))
# Nothing of this machine's Python reaches the environment under test.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "HYBRID"))}


def build(source: Path, kind: str, target: Path) -> Path:
    """One file in `target`. Not isolated: the back-end is the pinned one."""
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (made,) = target.iterdir()
    return made


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_to(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def wheel(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(archive, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(archive, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a virtual environment that holds the wheel and its core dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin" / "python", *PIP, wheel], check=True, env=CLEAN)
    return folder / "bin"


def run(environment: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment in an empty folder."""
    return subprocess.run(
        [environment / command[0], *command[1:]],
        cwd=folder,
        env={**CLEAN, "PATH": f"{environment}{os.pathsep}{CLEAN.get('PATH', os.defpath)}", "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_the_wheel_holds_the_packages_and_what_belongs_to_the_system(wheel: Path) -> None:
    assert wheel.name == f"{STEM}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {"hybrid", "tunnel_server", f"{STEM}.data", f"{STEM}.dist-info"}
    assert {"hybrid/py.typed", "tunnel_server/py.typed", f"{STEM}.dist-info/licenses/LICENSE"} <= names
    assert {name for name in names if ".data/" in name} == {f"{STEM}.data/data/{name}" for name in SHARED}


def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    subprocess.run(["tar", "-xf", sdist, "-C", tmp_path], check=True)
    again = build(tmp_path / STEM, "wheel", tmp_path / "wheel")
    assert again.read_bytes() == wheel.read_bytes()


def test_the_sdist_holds_the_tests(sdist: Path) -> None:
    with tarfile.open(sdist) as unpacked:
        names = set(unpacked.getnames())
    assert {f"{STEM}/tests/vectors/hybrid-v1.json", f"{STEM}/Makefile", f"{STEM}/constraints.txt"} <= names
    assert not [name for name in names if "__pycache__" in name or "/.git/" in name]


def test_nothing_is_missing_and_nothing_is_extra(environment: Path, tmp_path: Path) -> None:
    done = run(environment, tmp_path, "python", "-m", "pip", "check")
    assert (done.returncode, done.stdout) == (0, "No broken requirements found.\n")
    for extra in ("PIL", "zxingcpp", "pytest", "hypothesis"):
        assert run(environment, tmp_path, "python", "-c", f"import {extra}").returncode == 1
    where = run(environment, tmp_path, "python", "-c", "import hybrid; print(hybrid.__file__)").stdout
    assert where.startswith(str(environment.parent))


@pytest.mark.parametrize(
    ("command", "first_line"),
    [
        ("hybrid --version", f"hybrid {hybrid.__version__}"),
        ("python -m hybrid --version", f"hybrid {hybrid.__version__}"),
        ("hybrid --help", "Usage: hybrid "),
        ("tunnel-server --version", f"tunnel-server, version {hybrid.__version__}"),
        ("python -m tunnel_server --version", f"tunnel-server, version {hybrid.__version__}"),
        ("tunnel-server --help", "Usage: tunnel-server "),
    ],
)
def test_the_commands_are_there(environment: Path, tmp_path: Path, command: str, first_line: str) -> None:
    done = run(environment, tmp_path, *command.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(first_line)


def test_known_answers_from_a_file_outside(environment: Path, tmp_path: Path) -> None:
    vectors = tmp_path / "some.json"
    vectors.write_bytes((ROOT / "tests" / "vectors" / "hybrid-v1.json").read_bytes())
    done = run(environment, tmp_path, "hybrid", "vectors", "some.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert " failed 0 " in done.stdout.splitlines()[-1]


def test_the_demo_runs_and_leaves_nothing(environment: Path, tmp_path: Path) -> None:
    need("dbus-daemon")
    done = run(environment, tmp_path, "hybrid", "demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert "three processes" in done.stdout.splitlines()[0]
    assert "python-fido2 accepts the signature" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_named_with_the_command_that_installs_it(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = run(environment, tmp_path, "hybrid", "phone", "--qr-image", "photo.png", "--vault-key", "none")
    assert done.returncode == 2
    assert "fido-hybrid[image]" in done.stderr


def test_manual_and_completions_are_installed(environment: Path) -> None:
    for name in SHARED:
        assert (environment.parent / name).is_file()


def test_all_extras_have_wheels_for_the_oldest_python(wheel: Path, tmp_path: Path) -> None:
    only_wheels = ("--only-binary", ":all:", "--python-version", "3.11", "--target", str(tmp_path))
    done = subprocess.run(
        [sys.executable, *PIP, "--dry-run", "--ignore-installed", *only_wheels, f"{wheel}[all]"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
