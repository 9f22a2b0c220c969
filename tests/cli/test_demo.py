"""``hybrid demo``, with and without a dbus-daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hybrid.cli import demo
from hybrid.errors import PeerTimeout, Stage
from tests.cli.stage import PATIENCE, Outcome, run

pytestmark = pytest.mark.slow

STORY = [
    "a QR code: the laptop's public key and a secret, seen by the camera",
    "listens for the phone's Bluetooth advert",
    "opens a tunnel over TLS and learns its routing ID",
    "Bluetooth advert, 20 encrypted bytes: who hears it is near",
    "opens the advert with the code's secret and learns where to meet",
    "joins the tunnel over TLS",
    "Noise handshake: both know the code, both know the advert",
    "says what it can do; the relay sees only sealed bytes from here on",
    "the website's request",
    "the signed answer, after its user agreed",
    "checks the answer for the website",
]


def play(environment: dict[str, str], folder: Path) -> Outcome:
    command = [sys.executable, "-m", "hybrid", "demo"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, timeout=PATIENCE, stdin=subprocess.DEVNULL
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def without_dbus_daemon(folder: Path) -> dict[str, str]:
    return {**os.environ, "PATH": str(folder), "TMPDIR": str(folder)}


def check_story(outcome: Outcome) -> None:
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    for told in STORY:
        assert outcome.stdout.count(told) == 2, told
    assert "python-fido2 accepts the registration" in outcome.stdout
    assert "python-fido2 accepts the signature" in outcome.stdout
    assert "FIDO:/" not in outcome.stdout


def test_three_processes(tmp_path: Path) -> None:
    outcome = play({**os.environ, "TMPDIR": str(tmp_path)}, tmp_path)
    check_story(outcome)
    assert outcome.stdout.startswith("laptop, phone and relay: three processes on this machine, a virtual Bluetooth")
    assert list(tmp_path.iterdir()) == []


def test_without_dbus_daemon_the_first_line_says_so(tmp_path: Path) -> None:
    outcome = play(without_dbus_daemon(tmp_path), tmp_path)
    check_story(outcome)
    assert outcome.stdout.startswith("simulated air: without dbus-daemon, laptop and phone share one process")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("until", ["listens for the phone", "opens a tunnel over TLS"])
def test_ctrl_c_leaves_nothing_running(tmp_path: Path, until: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "hybrid", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if until in line:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (130, "hybrid: stopped\n")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):  # nobody of its process group is left
        os.killpg(process.pid, 0)


def test_a_demo_that_fails_says_what_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def silent(*_: object, **__: object) -> None:
        raise PeerTimeout(Stage.ADVERTISE, 60)

    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(demo, "answer", silent)
    outcome = run(["demo"], environment={"TMPDIR": str(tmp_path)})
    assert outcome.exit_code == 5
    assert outcome.stderr.startswith("hybrid: error: no computer came within 60 s\n")
