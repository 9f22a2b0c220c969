"""Chromium as it comes, with a home of its own: its profile, what it trusts, which names it reaches, its log.

It trusts the run's certificate authority because that is in the NSS database of its home, as a person would import
it; no flag touches the checks of certificates. Names that are not mapped lead nowhere: nothing leaves this machine.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hybrid.testing.browser.fido_log import FLAGS as LOG_FLAGS
from hybrid.testing.browser.fido_log import FidoLog
from hybrid.testing.browser.keeper import Keeper, Program, ProgramFailed
from hybrid.testing.browser.patience import wait_for

_START_TIMEOUT = 60.0  # a cold start from a slow disk

# Sandbox, window and network: a browser that nobody looks at, and that looks for nothing by itself.
_FLAGS = (
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-gpu",
    "--no-proxy-server",
    "--password-store=basic",
    "--test-type",  # no bar about flags over the page; drivers for browsers set it, too
    "--window-position=0,0",
    "--remote-debugging-port=0",
)
_SHARED_MEMORY = 1 << 29  # bytes; with less, pages crash
# What would lead a browser to somebody's session, proxy or files.
_PASSED_ON = ("PATH", "TZ", "LD_LIBRARY_PATH")


def private_environment(home: Path, bus_address: str) -> dict[str, str]:
    """Environment of every program of the rig: a home of its own, the virtual BlueZ's bus, nothing of the user's."""
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return env | {
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "XDG_RUNTIME_DIR": str(home / "tmp"),
        "LANG": "C.UTF-8",
        "DBUS_SYSTEM_BUS_ADDRESS": bus_address,
        "DBUS_SESSION_BUS_ADDRESS": bus_address,
    }


async def make_home(folder: Path, certutil: str, ca: Path) -> Path:
    """Make a home whose browser trusts `ca`, a certificate in PEM."""
    home = folder / "home"
    store = home / ".pki" / "nssdb"
    store.mkdir(parents=True)
    (home / "tmp").mkdir(mode=0o700)
    database = ("-d", f"sql:{store}")
    await _run(certutil, "-N", *database, "--empty-password")
    await _run(certutil, "-A", *database, "-n", "throwaway", "-t", "C,,", "-i", str(ca))
    return home


async def _run(*argv: str) -> None:
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise ProgramFailed(f"{argv[0]} fails: {(done.stderr or done.stdout).strip()[-300:]}")


@dataclass(frozen=True, slots=True)
class Chromium:
    """A running browser. `port`: of DevTools on loopback; `url`: of its WebSocket."""

    port: int
    url: str
    log: FidoLog
    program: Program


def _shared_memory() -> int:
    """Bytes that are free for it; containers often have 64 MB."""
    try:
        told = os.statvfs("/dev/shm")  # noqa: S108 - only looked at
    except OSError:
        return 0
    return told.f_bavail * told.f_frsize


async def open_chromium(
    keeper: Keeper,
    program: str,
    env: dict[str, str],
    *,
    size: tuple[int, int],
    hosts: Mapping[str, str],
    language: str,
    dark: bool,
    flags: tuple[str, ...],
) -> Chromium:
    """Start the browser and wait for DevTools.

    `hosts`: where each ``NAME:PORT`` is, ``ADDRESS:PORT``; `dark`: the browser's own windows, too.
    """
    profile = keeper.folder / "profile"
    rules = [f"MAP {name} {address}" for name, address in hosts.items()]
    rules += ["MAP * ~NOTFOUND", "EXCLUDE localhost", "EXCLUDE *.localhost", "EXCLUDE 127.0.0.1", "EXCLUDE [::1]"]
    argv = [program, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", f"--lang={language}"]
    argv += [*_FLAGS, *LOG_FLAGS, f"--host-resolver-rules={','.join(rules)}"]
    if os.geteuid() == 0:
        argv.append("--no-sandbox")  # Chromium refuses to run as root with one
    if _shared_memory() < _SHARED_MEMORY:
        argv.append("--disable-dev-shm-usage")
    if dark:
        argv.append("--force-dark-mode")
    running = keeper.start("chromium", [*argv, *flags, "about:blank"], env)
    port_file = profile / "DevToolsActivePort"

    def endpoint() -> tuple[int, str] | None:
        running.check()
        port, end, path = port_file.read_text().partition("\n") if port_file.exists() else ("", "", "")
        return (int(port), path.strip()) if end and path.strip() else None

    found = await wait_for(endpoint, _START_TIMEOUT)
    if found is None:
        raise ProgramFailed(f"Chromium does not open DevTools: {running.last_words()}")
    port, path = found
    return Chromium(port, f"ws://127.0.0.1:{port}{path}", FidoLog(running.log), running)
