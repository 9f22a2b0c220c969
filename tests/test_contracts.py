"""The import contracts of ``pyproject.toml``: kept as things stand, and each broken by a planted import."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("hybrid", "tunnel_server", "hardware")
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"
STATUS = re.compile(r"^(.+) (KEPT|BROKEN)$", re.MULTILINE)
CONTRACTS = {
    contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}

FLOORS = "floors: each imports only floors below"
CORE = "inside the core"
PURE = "the core does no I/O, keeps no clock, rolls no dice"
THIRD_PARTY = "third-party I/O stays behind its adapter"
SIBLINGS = "adapters know nothing of each other"
FIDO2 = "python-fido2 only in passkeys, the bridge and above"
HARDWARE = "nobody imports hardware"
RELAY = "the relay shares the URL grammar and nothing else"
RELAY_CORE = "the relay's core knows no WebSocket library and no loop"
START_RELAY = "only cli and testing start a relay"

# A contract forbids what is reached in several steps too, so one plant can break two.
PLANTS = [
    ("hybrid/protocol/qr.py", "import asyncio", {PURE}),
    ("hybrid/protocol/keys.py", "from secrets import token_bytes", {PURE}),
    ("hybrid/cbor.py", "import time", {PURE}),
    ("hybrid/protocol/keys.py", "import hybrid.protocol.noise", {CORE, RELAY}),
    ("hybrid/protocol/linking.py", "import hybrid.protocol.qr", {CORE}),
    ("hybrid/protocol/newcomer.py", "", {CORE}),
    ("hybrid/newcomer.py", "", {FLOORS}),
    ("hybrid/protocol/client.py", "import hybrid.ports", {FLOORS}),
    ("hybrid/passkeys/engine.py", "import hybrid.client", {FLOORS}),
    ("hybrid/client.py", "import bleak", {THIRD_PARTY}),
    ("hybrid/driving.py", "import websockets", {THIRD_PARTY}),
    ("hybrid/adapters/memory.py", "import fido2", {FIDO2}),
    ("hybrid/adapters/memory.py", "import hybrid.adapters.bleak_scanner", {SIBLINGS}),
    ("hybrid/cli/main.py", "import hardware", {HARDWARE}),
    ("tunnel_server/app.py", "import hybrid.client", {RELAY}),
    ("tunnel_server/relay.py", "import hybrid.protocol.qr", {RELAY}),
    ("tunnel_server/relay.py", "import websockets", {RELAY_CORE}),
    ("tunnel_server/frames.py", "import websockets.speedups", {RELAY_CORE}),
    ("tunnel_server/http_head.py", "import asyncio", {RELAY_CORE}),
    ("tunnel_server/routing.py", "import socket", {RELAY_CORE}),
    ("tunnel_server/config.py", "import asyncio", {RELAY_CORE}),
    ("hybrid/passkeys/engine.py", "import tunnel_server", {START_RELAY}),
]


def lint(folder: Path) -> dict[str, str]:
    """Status of each contract in this tree."""
    done = subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    found = dict(STATUS.findall(done.stdout))
    assert found, done.stdout + done.stderr
    assert (done.returncode == 0) == (set(found.values()) == {"KEPT"})
    return found


def test_every_contract_is_kept() -> None:
    assert lint(ROOT) == dict.fromkeys(CONTRACTS, "KEPT")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the contracts are about."""
    folder = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("path", "line", "broken"), PLANTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_planted_import_breaks_its_contract(tree: Path, path: str, line: str, broken: set[str]) -> None:
    file = tree / path
    before = file.read_text() if file.exists() else None
    file.write_text(f"{before or ''}\n{line}\n")
    try:
        found = lint(tree)
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_text(before)
    assert {name for name, status in found.items() if status == "BROKEN"} == broken


def test_every_contract_is_broken_by_some_plant() -> None:
    assert set.union(*(broken for *_, broken in PLANTS)) == CONTRACTS
