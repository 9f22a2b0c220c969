"""A private bus: a dbus-daemon of our own that anyone on this machine with our user id may use.

Source: dbus-daemon(1), "Configuration file". It ends with the program that started it, even if that is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from hybrid.errors import HybridError

END_TIMEOUT = 5.0
# A socket's path holds 107 bytes.
MAX_FOLDER = 90

_CONFIGURATION = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={folder}/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""

# The shell waits for our end of its standard input to close, which happens however we end. Its own standard output is
# closed, so that a daemon that does not start is noticed.
_KEEPER = """\
folder=$1; shift
"$@" & daemon=$!
exec >/dev/null
read -r _
kill "$daemon" 2>/dev/null
wait "$daemon"
rm -rf "$folder"
"""


class DbusDaemonMissing(HybridError):
    """The virtual BlueZ needs the program dbus-daemon, which is not here or does not start."""

    @property
    def identifier(self) -> str:
        return "virtual-bluez.dbus-daemon"


def _start(program: str) -> tuple[Path, subprocess.Popen[bytes]]:
    folder = Path(tempfile.mkdtemp(prefix="virtual-bluez-"))
    if len(os.fsencode(folder)) > MAX_FOLDER:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="virtual-bluez-", dir="/tmp"))
    configuration = folder / "bus.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder), encoding="utf-8")
    daemon = [program, f"--config-file={configuration}", "--nofork", "--nopidfile", "--print-address=1"]
    # Not asyncio's subprocess: cancelled in mid-start, that kills the shell and leaves the daemon.
    keeper = subprocess.Popen(  # noqa: S603 - the shell text is ours
        ["/bin/sh", "-c", _KEEPER, "sh", str(folder), *daemon],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return folder, keeper


async def _first_line(pipe: IO[bytes]) -> str:
    loop = asyncio.get_running_loop()
    line = b""
    while not line.endswith(b"\n"):
        readable = asyncio.Event()
        loop.add_reader(pipe.fileno(), readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(pipe.fileno())
        more = os.read(pipe.fileno(), 4096)
        if not more:
            break
        line += more
    return line.decode().strip()


@contextlib.asynccontextmanager
async def private_bus() -> AsyncIterator[str]:
    """Run a dbus-daemon while the context is open, and give its address. Raises `DbusDaemonMissing`."""
    search = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/bin", "/usr/local/bin"))
    program = shutil.which("dbus-daemon", path=search)
    if program is None:
        raise DbusDaemonMissing("the virtual BlueZ needs dbus-daemon; on Debian it is in the package dbus-daemon")
    folder, keeper = _start(program)
    try:
        assert keeper.stdout is not None
        address = await _first_line(keeper.stdout)
        if not address:
            raise DbusDaemonMissing(f"{program} does not start a private bus")
        yield address
    finally:
        # Not awaited: it takes milliseconds, and must happen even if we are cancelled twice.
        with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
            keeper.communicate(b"\n", timeout=END_TIMEOUT)
        shutil.rmtree(folder, ignore_errors=True)
