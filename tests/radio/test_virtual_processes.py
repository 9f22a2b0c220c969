"""The virtual BlueZ and processes: commands inside it, and that it ends with whoever started it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hybrid.testing.virtual_bluez import CannotRun, DbusDaemonMissing, run_command, virtual_bluez
from tests.radio.bench import WITHIN

RUN = """\
import sys
from hybrid.testing.virtual_bluez import run_command
sys.exit(run_command(sys.argv[1:], adapters=2, bluez="5.82", strangers=0.0))
"""
ADVERTISE = """\
import asyncio, sys
from hybrid.adapters.bluez_advertiser import BluezAdvertiser

async def main():
    async with BluezAdvertiser("hci1").advertise(bytes.fromhex(sys.argv[1])):
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""
SCAN = """\
import asyncio
from hybrid.adapters.bleak_scanner import BluetoothScanner

async def main():
    async with BluetoothScanner("hci0").scan() as adverts:
        print((await anext(adverts)).data.hex())

asyncio.run(main())
"""


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Path]]]:
    """What the virtual BlueZ has in the folder for temporary files; in the end that must be nothing."""
    short = Path("/tmp") / f"vb{os.getpid()}"  # pytest's folder is too long for a socket's path
    short.mkdir()
    monkeypatch.setenv("TMPDIR", str(short))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield lambda: list(short.iterdir())
    left = list(short.iterdir())
    shutil.rmtree(short)
    assert not left


def start(*argv: str) -> subprocess.Popen[str]:
    """`run_command` in a process of its own, as the command line runs it."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -2 $$", 130)])
def test_the_commands_exit_code_is_the_result(folders: object, script: str, code: int) -> None:
    assert run_command(["sh", "-c", script], adapters=2, bluez="5.66", strangers=0.0) == code


def test_a_command_that_cannot_be_run(folders: object, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    for path, why, code in (("/no/such", "no such file or directory", 127), (str(plain), "permission denied", 126)):
        with pytest.raises(CannotRun) as caught:
            run_command([path], adapters=1, bluez="5.82", strangers=0.0)
        assert (str(caught.value), caught.value.exit_code) == (f"cannot run {path}: {why}", code)


def test_the_command_gets_the_bus(folders: object, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["sh", "-c", "echo $DBUS_SYSTEM_BUS_ADDRESS"], adapters=1, bluez="5.82", strangers=0.0) == 0
    assert capfd.readouterr().out.startswith("unix:path=")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_passed_on(folders: object, number: signal.Signals) -> None:
    trap = "trap 'echo told; exit 5' TERM INT HUP; echo ready; while :; do sleep 0.02; done"
    with start("sh", "-c", trap) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.read() == "told\n"
        assert process.wait(WITHIN) == 5


@pytest.mark.slow
def test_killed_outright_it_still_leaves_nothing(folders: Callable[[], list[Path]]) -> None:
    with start("sh", "-c", "echo $$ $DBUS_SYSTEM_BUS_ADDRESS; exec cat /dev/zero > /dev/null") as process:
        assert process.stdout is not None
        command, address = process.stdout.readline().split()
        process.kill()
        process.wait(WITHIN)
        os.kill(int(command), signal.SIGKILL)
    assert address.startswith("unix:path=")
    wait_until(lambda: not folders())


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll for what another process does after nobody can be asked."""

    async def poll() -> None:
        async with asyncio.timeout(WITHIN):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.01)  # another process cannot call us

    asyncio.run(poll())


@pytest.mark.parametrize("turns", range(12))
async def test_cancelled_at_any_await_it_leaves_nothing(folders: object, turns: int) -> None:
    async def run() -> None:
        async with virtual_bluez(strangers=100):
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    for _ in range(turns):
        await asyncio.sleep(0.001)  # the moment of the cancel
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_without_dbus_daemon_it_names_the_package(folders: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(DbusDaemonMissing, match="on Debian it is in the package dbus-daemon"):
        async with virtual_bluez():
            pass


async def test_a_dbus_daemon_that_does_not_start_is_noticed(folders: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: "/bin/false")
    with pytest.raises(DbusDaemonMissing, match="does not start"):
        async with virtual_bluez():
            pass


async def test_a_version_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match=r"5\.66 and 5\.82"):
        async with virtual_bluez(bluez="4.2"):
            pass


@pytest.mark.slow
async def test_one_process_hears_what_another_sends(folders: object) -> None:
    data = os.urandom(20)
    async with virtual_bluez() as bluez:
        environment = os.environ | bluez.environment
        phone = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ADVERTISE, data.hex(), stdin=subprocess.PIPE, env=environment
        )
        laptop = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SCAN, stdout=subprocess.PIPE, env=environment
        )
        async with asyncio.timeout(WITHIN):
            heard, _ = await laptop.communicate()
            await phone.communicate(b"")
    assert heard.decode().strip() == data.hex()
    assert (laptop.returncode, phone.returncode) == (0, 0)
