"""The process that ends what the browser rig started, and all that this started in turn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hybrid.testing.browser.chromium import private_environment
from hybrid.testing.browser.keeper import Keeper, Program, ProgramFailed

ENV = {"PATH": "/usr/bin:/bin"}


def run(keeper: Keeper, script: str) -> Program:
    return keeper.start("script", ["/bin/sh", "-c", script], ENV)


def until_written(program: Program, lines: int = 1) -> list[str]:
    until = time.monotonic() + 20
    while len(written := program.log.read_text().split()) < lines:
        assert time.monotonic() < until
        time.sleep(0.01)  # processes of others do not tell us
    return written


def is_alive(pid: int | str) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_everything_ends_with_it() -> None:
    with Keeper() as keeper:
        folder = keeper.folder
        # one that runs on, one that leaves an orphan in a session of its own
        stays = run(keeper, "echo here; exec sleep 1000")
        orphan = until_written(keeper.start("leaves", ["/bin/sh", "-c", "setsid sleep 1000 & echo $!"], ENV))[0]
        until_written(stays)
        assert is_alive(stays.pid)
        assert is_alive(orphan)
    assert not is_alive(stays.pid)
    assert not is_alive(orphan)
    assert not folder.exists()


@pytest.mark.slow
def test_what_does_not_listen_is_killed() -> None:
    with Keeper() as keeper:
        deaf = run(
            keeper, "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.1; done' & echo $$; wait"
        )
        pids = until_written(deaf, 2)
        assert all(map(is_alive, pids))
    assert not any(map(is_alive, pids))


def test_the_programs_hear_signals() -> None:
    with Keeper() as keeper:
        program = run(keeper, "trap 'echo heard; exit 3' TERM; echo ready; while :; do sleep 0.01; done")
        until_written(program)
        os.kill(program.pid, signal.SIGTERM)
        until_written(program, 2)
        while keeper.order({"code_of": program.pid})["code"] is None:
            time.sleep(0.01)  # processes of others do not tell us
        with pytest.raises(ProgramFailed, match="script ended with code 3: ready / heard"):
            program.check()


def test_it_goes_on_when_it_is_told_to_end_itself() -> None:
    with Keeper() as keeper:
        program = run(keeper, "echo here; exec sleep 1000")
        until_written(program)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(keeper._process.pid, number)
        program.check()
        assert keeper.folder.exists()


def test_a_program_that_is_not_there() -> None:
    with Keeper() as keeper, pytest.raises(ProgramFailed, match="/no/such/thing cannot be run: no such file"):
        keeper.start("nothing", ["/no/such/thing"], ENV)


def test_a_killed_owner_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import sys; from hybrid.testing.browser.keeper import Keeper\n"
        "with Keeper() as keeper:\n"
        "    print(keeper.folder, keeper.start('it', ['/bin/sleep', '1000'], {}).pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        folder, pid = owner.stdout.readline().split()
        assert is_alive(pid)
        owner.kill()
    until = time.monotonic() + 20
    while is_alive(pid) or Path(folder).exists():
        assert time.monotonic() < until
        time.sleep(0.01)  # processes of others do not tell us


def test_a_long_temporary_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert len(str(tmp_path)) > 30
    with Keeper() as keeper:
        assert not keeper.folder.is_relative_to(tmp_path)


def test_nothing_of_the_users_reaches_the_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HTTPS_PROXY", "DISPLAY", "XAUTHORITY", "XDG_CONFIG_HOME", "DBUS_SESSION_BUS_ADDRESS", "SECRET"):
        monkeypatch.setenv(name, "the user's")
    env = private_environment(tmp_path, "unix:path=/bus")
    assert "the user's" not in env.values()
    assert (env["HOME"], env["DBUS_SESSION_BUS_ADDRESS"]) == (str(tmp_path), "unix:path=/bus")
