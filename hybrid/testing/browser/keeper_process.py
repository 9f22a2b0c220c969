"""The process that owns everything a browser rig starts, so that nothing outlives the rig, however that ends.

Run as a script of its own, with the standard library only. Its first line on standard output is
``{"folder": PATH}``, a private folder. Then it takes orders as JSON lines on standard input:
``{"argv": [...], "env": {...}, "log": PATH}`` starts a program and is answered with ``{"pid": N}`` or
``{"error": TEXT}``; ``{"code_of": PID}`` with ``{"code": N}``, null while it runs. The end of standard input, which
comes even if the rig is killed, ends all programs with everything that they started in turn, and removes the folder.

Source: prctl(2), PR_SET_CHILD_SUBREAPER: what loses its parent becomes a child of this process. Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

GRACE = 3.0  # seconds between SIGTERM and SIGKILL
_MAX_BASE = 30  # bytes
_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the end of standard input is the only way
        signal.signal(ignored, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Chromium puts a socket into a folder in there, and a socket's path holds 107 bytes.
    is_short = len(os.fsencode(tempfile.gettempdir())) < _MAX_BASE
    folder = tempfile.mkdtemp(prefix="hybrid-browser-", dir=None if is_short else "/tmp")  # noqa: S108 - mkdtemp
    running: dict[int, subprocess.Popen[bytes]] = {}
    try:
        print(json.dumps({"folder": folder}), flush=True)
        for line in sys.stdin:
            print(json.dumps(_obey(json.loads(line), running)), flush=True)
    except OSError:
        pass  # nobody reads the answer any more
    finally:
        for process in reversed(running.values()):  # the last started stands on the others
            _end(process)
        _end_orphans()
        shutil.rmtree(folder, ignore_errors=True)


def _obey(order: dict[str, Any], running: dict[int, subprocess.Popen[bytes]]) -> dict[str, Any]:
    if "code_of" in order:
        return {"code": running[order["code_of"]].poll()}
    try:
        process = _start(order["argv"], order["env"], Path(order["log"]))
    except OSError as error:
        return {"error": error.strerror or "no reason given"}
    running[process.pid] = process
    return {"pid": process.pid}


def _start(argv: list[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - the rig says what to run
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_hear_signals,
        )


def _hear_signals() -> None:
    """What is ignored here would be ignored by the program too."""
    for heard in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(heard, signal.SIG_DFL)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_orphans() -> None:
    """What is left are children of those that have ended."""
    until = time.monotonic() + GRACE
    while children := _children():
        late = time.monotonic() > until
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL if late else signal.SIGTERM)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)  # whose children these are we do not know


def _children() -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # the name in brackets may hold anything, brackets too
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(stat.parent.name))
    return found


if __name__ == "__main__":
    main()
