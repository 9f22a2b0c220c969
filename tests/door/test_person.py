"""A person at the terminal of ``hybrid serve-authenticator --approve ask``."""

from __future__ import annotations

import fcntl
import functools
import os
import pty
import subprocess
import termios
import threading
from pathlib import Path

from fido2.ctap import CtapError
from fido2.ctap2.base import Ctap2

from tests.door.conftest import COMMAND
from tests.door.ctap_socket import SocketDevice


def _read_until(master: int, text: str) -> str:
    shown = b""
    while text.encode() not in shown:
        shown += os.read(master, 4096)
    return shown.decode()


def _select(device: SocketDevice, answered: list[object]) -> None:
    try:
        Ctap2(device).selection()
        answered.append("yes")
    except CtapError as error:
        answered.append(error.code)


def _asked(folder: Path, typed: bytes) -> tuple[str, list[object]]:
    """What is shown for a selection, and what the client gets when somebody types that."""
    master, slave = pty.openpty()
    path = folder / "door"
    process = subprocess.Popen(
        [*COMMAND, "--socket", str(path)],
        stdin=slave,
        stdout=slave,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=functools.partial(fcntl.ioctl, slave, termios.TIOCSCTTY, 0),
    )
    answered: list[object] = []
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"listening on ")
        with SocketDevice(path) as device:
            asking = threading.Thread(target=_select, args=(device, answered))
            asking.start()
            shown = _read_until(master, "[y/N]")
            os.write(master, typed)
            asking.join()
    finally:
        process.terminate()
        process.communicate()
        os.close(master)
        os.close(slave)
    return shown, answered


def test_yes_is_presence(tmp_path: Path) -> None:
    shown, answered = _asked(tmp_path, b"y\n")
    assert "a program on this machine" in shown
    assert "code that was scanned" not in shown
    assert answered == ["yes"]


def test_return_is_no(tmp_path: Path) -> None:
    _, answered = _asked(tmp_path, b"\n")
    assert answered == [CtapError.ERR.OPERATION_DENIED]
