"""The folder of the workers' sockets: what a killed relay leaves behind is removed, what somebody uses is not."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from pathlib import Path

import pytest

from tunnel_server import runtime_folder
from tunnel_server.runtime_folder import in_use, private_folder

from .cluster_rig import eventually, node, transaction


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    return tmp_path


def made_in(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir(mode=0o700)
    (folder / "010203.sock").touch()
    return folder


def test_what_is_left_behind(parent: Path) -> None:
    left, used = made_in(parent, "tunnel-server-left"), made_in(parent, "tunnel-server-used")
    another, file, link = made_in(parent, "another"), parent / "tunnel-server-file", parent / "tunnel-server-link"
    file.touch()
    link.symlink_to(another)
    kept = {used, another, file, link}
    with in_use(used):
        with private_folder(None) as first, private_folder(None) as second:
            assert not left.exists()
            assert {*parent.iterdir()} == {*kept, first, second}
            assert first.stat().st_mode & 0o777 == 0o700
            assert (another / "010203.sock").exists()
        assert {*parent.iterdir()} == kept
    with private_folder(None) as third:
        assert {*parent.iterdir()} == {*kept, third} - {used}


def test_of_somebody_else(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = made_in(parent, "tunnel-server-left")
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    with private_folder(None):
        assert left.exists()


def test_one_that_another_start_takes_for_left_behind(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the making of a folder and its lock, somebody else starts, too."""
    make, made = tempfile.mkdtemp, []

    def raced(prefix: str) -> str:
        made.append(Path(make(prefix=prefix)))
        if len(made) < 3:
            runtime_folder._remove_if_left_behind(made[-1])
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", raced)
    with private_folder(None) as folder:
        assert folder == made[2]
        runtime_folder._remove_if_left_behind(folder)
        assert {*parent.iterdir()} == {folder}


def test_one_that_was_replaced_meanwhile(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made_in(parent, "tunnel-server-mine")
    monkeypatch.setattr(os.path, "samestat", lambda *_: False)
    with pytest.raises(FileNotFoundError), in_use(folder):
        pass


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_killed_supervisor(tmp_path: Path) -> None:
    """Its folder stays as long as one of its workers lives, and is gone when the next relay starts after that."""
    environ = {"TMPDIR": str(tmp_path), "RUNTIME_DIRECTORY": ""}
    options = ("--workers", "2")
    async with node(*options, environ=environ) as killed:
        (name,) = os.listdir(tmp_path)
        folder = tmp_path / name
        pids = killed.workers().values()
        async with contextlib.AsyncExitStack() as stack:
            for pid in pids:  # so that they do not notice
                os.kill(pid, signal.SIGSTOP)
                stack.callback(os.kill, pid, signal.SIGCONT)
            killed.process.kill()
            await eventually(lambda: not _is_alive(killed.process.pid))
            async with node(*options, environ=environ) as next_one:
                assert folder.exists()
                await transaction(next_one.port)
        await eventually(lambda: not any(_is_alive(pid) for pid in pids))
        assert folder.exists()
        async with node(*options, environ=environ) as last:
            assert not folder.exists()
            await transaction(last.port)
            last.process.terminate()
            assert await last.ended() == 0
    assert not os.listdir(tmp_path)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
