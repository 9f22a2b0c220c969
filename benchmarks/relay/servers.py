"""The relay and its yardsticks as processes, each on a port of its own and all pinned to one core."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.relay.generator import on_core
from hybrid.testing.throwaway_ca import TLSFiles

ROOT = Path(__file__).parents[2]
CORE = 0

# Every limit and every check is on. Those per address would stop a load that comes from a few, so they are high.
LIMITS = ("--limit-loopback", "--max-per-address", "1000000", "--new-per-minute", "1000000000")
WITH_UVLOOP = ("-m", "tunnel_server")
WITHOUT_UVLOOP = (
    "-c",
    "import runpy, sys; sys.modules['uvloop'] = None; runpy.run_module('tunnel_server', run_name='__main__')",
)


@dataclass(frozen=True, slots=True)
class Server:
    """A process that listens."""

    pid: int
    port: int
    options: tuple[str, ...]  # what the generator has to be told about it


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(arguments: Sequence[str], port: int, options: tuple[str, ...]) -> Iterator[Server]:
    """Run ``python ARGUMENTS`` until the context is left; ready when it says so on stderr."""
    command = on_core(CORE, [sys.executable, *arguments])
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = ""
            for line in process.stderr:
                said += line
                if "listening" in line:
                    break
            else:
                raise RuntimeError(f"{' '.join(arguments)} did not start: {said}")
            threading.Thread(target=process.stderr.read, daemon=True).start()  # what it says from now on is dropped
            yield Server(process.pid, port, options)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGTERM)  # at once
            process.wait()


def relay(tls: TLSFiles | None, *, uvloop: bool = True) -> contextlib.AbstractContextManager[Server]:
    """Ours."""
    port = free_port()
    files = ("--cert", str(tls.chain), "--key", str(tls.key)) if tls else ()
    program = WITH_UVLOOP if uvloop else WITHOUT_UVLOOP
    return started((*program, *LIMITS, "--port", str(port), *files), port, tls_options(tls))


def yardstick(module: str, tls: TLSFiles | None, *options: str) -> contextlib.AbstractContextManager[Server]:
    """`module` of this package."""
    port = free_port()
    files = (str(tls.chain), str(tls.key)) if tls else ()
    return started(("-m", f"benchmarks.relay.{module}", str(port), *files), port, (*tls_options(tls), *options))


def tls_options(tls: TLSFiles | None) -> tuple[str, ...]:
    """What the generator has to be told."""
    return ("-t", "-N", "localhost") if tls else ()
