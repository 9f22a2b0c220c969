"""What systemd and a service say to each other: readiness, the watchdog, sockets handed in (sd_notify, sd_listen_fds).

Both are a few lines of a stable interface, so no library is needed. Without systemd nothing here does anything.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

logger = logging.getLogger(__name__)

_FIRST_FD = 3


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Tell systemd, for example ``READY=1``. Never raises and never waits: a lost word costs a restart at worst."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # an abstract socket
        address = f"\0{address[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            out.sendto(state.encode(), address)
    except OSError:
        logger.warning("systemd does not hear us")


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between two ``WATCHDOG=1``, half of what systemd allows; None if it does not watch this process."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000


def listening_sockets(
    environ: Mapping[str, str] = os.environ, first: int = _FIRST_FD
) -> dict[str, list[socket.socket]]:
    """Sockets handed in by systemd, by the name that their unit gives them (``FileDescriptorName=``).

    Raises:
        OSError: a descriptor is no socket.
    """
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return {}
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[socket.socket]] = {}
    for index in range(int(count)):
        os.set_inheritable(first + index, False)
        name = names[index] if index < len(names) else ""
        found.setdefault(name or "unknown", []).append(socket.socket(fileno=first + index))
    return found
