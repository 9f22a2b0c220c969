"""Run a command inside a virtual BlueZ: ``hybrid virtual-bluez -- CMD``.

The command's exit code is the result, by the shell's conventions: 128 + number if a signal ended it.
"""

from __future__ import annotations

import asyncio
import os
import signal

from hybrid.testing.virtual_bluez.control import virtual_bluez

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class CannotRun(Exception):
    """The command cannot be run. `exit_code` as a shell would have it: 127 if there is none, 126 for other reasons."""

    def __init__(self, name: str, error: OSError) -> None:
        super().__init__(f"cannot run {name}: {(error.strerror or 'no reason given').lower()}")
        self.exit_code = 127 if isinstance(error, FileNotFoundError) else 126


def run_command(argv: list[str], *, adapters: int, bluez: str, strangers: float) -> int:
    """Run `argv` with the virtual BlueZ's bus in its environment; give its exit code.

    SIGTERM, SIGINT and SIGHUP are passed on; the virtual BlueZ lives as long as the command. Raises
    `DbusDaemonMissing` and `CannotRun`.
    """
    return asyncio.run(_run(argv, adapters, bluez, strangers))


async def _run(argv: list[str], adapters: int, bluez: str, strangers: float) -> int:
    loop = asyncio.get_running_loop()
    process: asyncio.subprocess.Process | None = None
    early: list[signal.Signals] = []

    def forward(number: signal.Signals) -> None:
        if process is None:
            early.append(number)
        elif process.returncode is None and not (number == signal.SIGINT and _typed_at_our_terminal()):
            process.send_signal(number)

    for number in _FORWARDED:
        loop.add_signal_handler(number, forward, number)
    try:
        async with virtual_bluez(adapters=adapters, bluez=bluez, strangers=strangers) as running:
            if early:
                return 128 + early[0]
            try:
                process = await asyncio.create_subprocess_exec(*argv, env=os.environ | running.environment)
            except OSError as error:
                raise CannotRun(argv[0], error) from None
            for number in early:
                process.send_signal(number)
            code = await process.wait()
            return code if code >= 0 else 128 - code
    finally:
        for number in _FORWARDED:
            loop.remove_signal_handler(number)


def _typed_at_our_terminal() -> bool:
    """Whether Ctrl-C at the terminal reaches the command without us: passing it on would make it two."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
