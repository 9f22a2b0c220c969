"""Starts programs that end with this process, whatever ends it: the near side of `keeper_process`.

What a program writes goes to a log in one private folder, which ends with the programs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from hybrid.errors import HybridError
from hybrid.testing.browser import keeper_process

_END_TIMEOUT = 10 * keeper_process.GRACE


class ProgramFailed(HybridError):
    """A program that the rig needs is there, and does not do what it should."""

    @property
    def identifier(self) -> str:
        return "browser.program"


class Program:
    """One running program. `name`: for messages; `log`: what it wrote."""

    def __init__(self, keeper: Keeper, name: str, pid: int, log: Path) -> None:
        self.name = name
        self.pid = pid
        self.log = log
        self._keeper = keeper

    def check(self) -> None:
        """Raise `ProgramFailed` if it has ended."""
        code = self._keeper.order({"code_of": self.pid})["code"]
        if code is not None:
            raise ProgramFailed(f"{self.name} ended with code {code}: {self.last_words()}")

    def last_words(self) -> str:
        """The end of its log on one line."""
        lines = self.log.read_text(errors="replace").split("\n")
        return " / ".join(line.strip() for line in lines if line.strip())[-500:] or "it said nothing"


class Keeper:
    """A context manager; orders may come from any thread. `folder`: private, gone afterwards."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Not asyncio's subprocess, which cannot be ended once its loop is gone.
        self._process = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-I", "-S", keeper_process.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C at the terminal is for us to handle
        )
        self.folder = Path(self._read()["folder"])

    def __enter__(self) -> Keeper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=_END_TIMEOUT)

    def start(self, name: str, argv: list[str], env: dict[str, str]) -> Program:
        """Start a program. Raises `ProgramFailed` if that is not possible."""
        log = self.folder / f"{name}.log"
        answer = self.order({"argv": argv, "env": env, "log": str(log)})
        if "error" in answer:
            raise ProgramFailed(f"{argv[0]} cannot be run: {answer['error'].lower()}")
        return Program(self, name, answer["pid"], log)

    def order(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send one order and wait for its answer."""
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ProgramFailed("the process that keeps the others has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer
