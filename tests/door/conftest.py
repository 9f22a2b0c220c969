"""`hybrid serve-authenticator` as a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-W", "error", "-m", "hybrid", "serve-authenticator")


class Served:
    """A running door. `where` is what it says it listens on."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.path = folder / "door"
        self.control_path = folder / "control"
        if "--tcp" not in arguments:
            arguments = ("--socket", str(self.path), *arguments)
        self.process = subprocess.Popen(
            [*COMMAND, "--control", str(self.control_path), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        self.said: list[str] = []
        for line in self.process.stderr:
            self.said.append(line.rstrip("\n"))
            if line.startswith(("listening on ", '{"event": "listening"')):
                break
        self.where = self.said[-1].removeprefix("listening on ") if self.said else ""

    def end(self) -> tuple[int, str, str]:
        """SIGTERM; exit code, stdout and what came on stderr after it was ready."""
        self.process.terminate()
        stdout, stderr = self.process.communicate()
        return self.process.returncode, stdout, stderr


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    running: list[Served] = []

    def start(*arguments: str) -> Served:
        running.append(Served(tmp_path, *arguments))
        return running[-1]

    yield start
    for served in running:
        served.process.kill()
        served.process.communicate()
