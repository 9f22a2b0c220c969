"""What the core must not do, read from its source: no clock, no dice, no keys of its own, no waiting, no loggers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hybrid

ROOT = Path(hybrid.__file__).parent
CORE = [*sorted((ROOT / "protocol").glob("*.py")), ROOT / "cbor.py", ROOT / "errors.py", ROOT / "events.py"]
FORBIDDEN_NAMES = {
    "generate_private_key", "generate_key", "urandom", "token_bytes", "randbytes", "getrandom", "SystemRandom",
    "monotonic", "perf_counter", "time_ns", "utcnow", "getLogger", "open", "print", "exec", "eval",
}  # fmt: skip
FORBIDDEN_MODULES = {
    "asyncio", "datetime", "logging", "os", "pathlib", "random", "secrets", "select", "socket", "ssl", "subprocess",
    "threading", "time", "uuid",
}  # fmt: skip
WAITING = (ast.Await, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith)


def offences(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [alias.name for alias in names if alias.name.split(".")[0] in FORBIDDEN_MODULES]
            case ast.ImportFrom(module=str(module), names=names):
                found += [module] if module.split(".")[0] in FORBIDDEN_MODULES else []
                found += [alias.name for alias in names if alias.name in FORBIDDEN_NAMES]
            case ast.Call(func=ast.Name(id=name)) | ast.Attribute(attr=name) if name in FORBIDDEN_NAMES:
                # A method of ours may be called `open`; the built-in may not.
                found += [name] if not (name == "open" and isinstance(node, ast.Attribute)) else []
            case ast.ExceptHandler(type=None) | ast.ExceptHandler(type=ast.Name(id="Exception" | "BaseException")):
                found.append("except Exception")
            case _ if isinstance(node, WAITING):
                found.append(type(node).__name__)
    return found


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_the_core_is_pure(path: Path) -> None:
    assert offences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import os.path",
        "from datetime import datetime",
        "from os import urandom",
        "import logging\nlog = logging.getLogger(__name__)",
        "key = ec.generate_private_key(ec.SECP256R1())",
        "key = AESGCM.generate_key(256)",
        "async def f() -> None: ...",
        "open('x')",
        "try:\n    f()\nexcept Exception:\n    pass",
        "try:\n    f()\nexcept:\n    pass",
    ],
)
def test_each_offence_is_seen(source: str) -> None:
    assert offences(source)


def test_the_core_needs_nothing_around_it() -> None:
    """Importing the whole core loads no adapter, driver, command line, event loop or socket."""
    modules = ", ".join(f"hybrid.protocol.{path.stem}" for path in CORE if path.parent.name == "protocol")
    script = (
        "import sys, hybrid\n"
        "before = set(sys.modules)\n"
        f"import {modules}\n"
        "new = {name for name in set(sys.modules) - before if name.startswith('hybrid.')}\n"
        "strange = {name for name in new if name.split('.')[1] not in ('protocol', 'cbor', 'errors', 'events')}\n"
        "print(sorted(strange | {'asyncio', 'socket', 'ssl', 'bleak', 'websockets'} & set(sys.modules)))\n"
    ).replace("hybrid.protocol.__init__", "hybrid.protocol")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
