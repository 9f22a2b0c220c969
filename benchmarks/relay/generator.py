"""Builds relayload.c, the load generator, and runs it. Its JSON becomes a `Load`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("relayload.c")
_COMPILE = ("-O2", "-Wall", "-Wextra", "-Werror", "-DWITH_TLS")
_LIBRARIES = ("-lssl", "-lcrypto")


class CannotBuild(Exception):
    """No compiler, or no OpenSSL headers; `str()` says which Debian packages bring them."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of the generator saw: the members of its JSON object."""

    fields: dict[str, Any]

    @property
    def transactions_per_second(self) -> float:
        return float(self.fields["tx_per_s"])

    @property
    def failed(self) -> int:
        return int(self.fields["failed"])

    @property
    def cpu_per_transaction(self) -> float:
        """Seconds on a CPU of the server."""
        return float(self.fields["server_cpu"] * self.fields["seconds"] / self.fields["ok"])

    @property
    def cpu_per_handshake(self) -> float:
        """Seconds on a CPU of the server, from a run with ``-m tls``."""
        return float(self.fields["server_cpu"] / self.fields["handshakes_per_s"])

    @property
    def frame_p50(self) -> float:
        """Seconds from before a send to the parse at the other end, half of the frames."""
        return float(self.fields["frame_us"]["p50"]) / 1e6

    @property
    def memory_per_tunnel(self) -> float:
        """Bytes of resident memory for each idle tunnel, two connections."""
        return float(self.fields["rss_kb_per_tunnel"]) * 1024


def build(folder: Path) -> Path:
    """Compile the generator into `folder`.

    Raises:
        CannotBuild: the compiler or OpenSSL's headers are missing.
    """
    if shutil.which("cc") is None:
        raise CannotBuild("no C compiler; apt-get install gcc libc6-dev libssl-dev")
    program = folder / "relayload"
    done = subprocess.run(
        ("cc", *_COMPILE, "-o", str(program), str(SOURCE), *_LIBRARIES), capture_output=True, text=True
    )
    if done.returncode:
        lines = done.stderr.splitlines() or ["cc says nothing"]
        raise CannotBuild(f"{lines[0]}; apt-get install gcc libc6-dev libssl-dev")
    return program


def on_core(core: int, command: Sequence[str]) -> list[str]:
    """`command`, pinned to one core, so that the machine's scheduler is no part of the figure."""
    return ["taskset", "--cpu-list", str(core), *command]
