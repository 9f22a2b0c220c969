"""What only a process of its own can show: signals, what is loaded when, streams that are closed, bugs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hybrid.cli.terminal import qr_matrix
from hybrid.invitation import invite
from tests.cli.pictures import qr_png
from tests.cli.stage import PATIENCE, Stage

pytestmark = pytest.mark.slow  # most of it starts processes, or takes many examples

HYBRID = (sys.executable, "-m", "hybrid")


def start(stage: Stage, *words: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, **options.pop("environment", {}), "DBUS_SYSTEM_BUS_ADDRESS": stage.bus}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*HYBRID, *words], text=True, env=environment, start_new_session=True, **pipes | options)


def run_python(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script]
    kept = {name: value for name, value in os.environ.items() if name != "HYBRID_DEBUG"}
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=kept | environment)


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line.rstrip("\n"))
        if text in line:
            return lines
    raise AssertionError(f"{text!r} never came: {lines}")


def relay(stage: Stage) -> tuple[str, ...]:
    return ("--relay", stage.relay, "--relay-ca", str(stage.ca_file))


def phone_words(stage: Stage, folder: Path) -> tuple[str, ...]:
    always = ("--vault", str(folder / "v"), "--vault-key", "none", "--approve", "always", "--adapter", "hci1")
    return ("phone", "-", *always, *relay(stage))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_scanning(made_stage: Stage, number: signal.Signals, code: int) -> None:
    with start(made_stage, "get", "example.com") as process:
        assert re.fullmatch(r"FIDO:/\d+", read_until(process, "waiting for your phone")[0])
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (out, err, process.returncode) == ("", "hybrid: stopped\n", code)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_a_person_is_awaited(
    made_stage: Stage, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """The laptop says goodbye, so the phone takes its prompt away and does not call it an error."""
    tmp_path.chmod(0o700)
    script = (
        "import asyncio, sys; from hybrid.passkeys import consent\n"
        "async def ask(self, prompt): await asyncio.Event().wait()\n"
        "consent.AlwaysApprove.ask = ask\n"
        "from hybrid.cli.main import run; run(sys.argv[1:])\n"
    )
    words = phone_words(made_stage, tmp_path)
    with (
        start(made_stage, "create", "example.com", "--user", "ada", *relay(made_stage)) as laptop,
        subprocess.Popen(
            [sys.executable, "-c", script, *words],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": made_stage.bus},
        ) as phone,
    ):
        assert phone.stdin is not None
        phone.stdin.write(f"{read_until(laptop, 'FIDO:/')[0]}\n")
        phone.stdin.flush()  # and not closed: one line is enough
        read_until(laptop, "confirm on your phone")
        read_until(phone, "asks for a new passkey")
        laptop.send_signal(number)
        out, err = laptop.communicate(timeout=PATIENCE)
        _, told = phone.communicate(timeout=PATIENCE)
    assert (out, err, laptop.returncode) == ("", "hybrid: stopped\n", code)
    assert (told, phone.returncode) == ("", 0)


@pytest.mark.slow
def test_ctrl_c_takes_the_phone_off_the_air(made_stage: Stage, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with start(made_stage, *phone_words(made_stage, tmp_path), stdin=subprocess.PIPE) as phone:
        assert phone.stdin is not None
        phone.stdin.write(f"{invite().url}\n")
        phone.stdin.flush()
        read_until(phone, "on the air")
        assert made_stage.bluez is not None
        assert made_stage.bluez.on_air("hci1")
        phone.send_signal(signal.SIGINT)
        _, err = phone.communicate(timeout=PATIENCE)
    assert (err, phone.returncode) == ("hybrid: stopped\n", 130)
    assert not made_stage.bluez.on_air("hci1")


LOADED_WITH_THE_CODE = """\
import sys
class Spy:
    encoding = "utf-8"
    def isatty(self): return False
    def flush(self): pass
    def write(self, text):
        if "FIDO:/" in text:
            heavy = {"asyncio", "socket", "ssl", "bleak", "dbus_fast", "websockets", "_socket"}
            print(sorted(heavy & set(sys.modules)))
            sys.stdout.flush()
            raise SystemExit(0)
sys.stderr = Spy()
from hybrid.cli.main import run
run(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "words",
    [
        "get example.com",
        "create example.com --user ada",
        "info",
        "get example.com --relay 127.0.0.1:1 --relay-name a.b",
    ],
)
def test_the_code_is_shown_before_radio_and_sockets_are_loaded(words: str) -> None:
    command = [sys.executable, "-c", LOADED_WITH_THE_CODE, *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "[]\n"


def test_ask_without_a_terminal_is_refused_before_anything_is_sent(made_stage: Stage, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    words = ("phone", invite().url, "--vault", str(tmp_path / "v"), "--vault-key", "none", *relay(made_stage))
    with start(made_stage, *words) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert out == ""
    assert err == (
        "hybrid: error: there is no terminal to ask you on\n"
        "hybrid: hint: run it in a terminal, or decide with --approve\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_result_comes_even_if_stderr_is_closed_with_the_code(made_stage: Stage, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with start(made_stage, "info", *relay(made_stage)) as laptop:
        code = read_until(laptop, "FIDO:/")[0]
        assert laptop.stderr is not None
        laptop.stderr.close()
        laptop.stderr = None
        with start(made_stage, *phone_words(made_stage, tmp_path), stdin=subprocess.PIPE) as phone:
            _, err = phone.communicate(f"{code}\n", timeout=PATIENCE)
        out, _ = laptop.communicate(timeout=PATIENCE)
    assert phone.returncode == 0, err
    assert json.loads(out)["maxMsgSize"] == 1048576
    assert laptop.returncode == 0


@pytest.mark.slow
def test_a_picture_of_the_code_is_answered(made_stage: Stage, tmp_path: Path) -> None:
    """Without a link: from the screen, as a phone sees it."""
    tmp_path.chmod(0o700)
    picture = tmp_path / "code.png"
    with start(made_stage, "info", "--qr-file", str(picture), *relay(made_stage)) as laptop:
        code = read_until(laptop, "FIDO:/")[0]
        words = list(phone_words(made_stage, tmp_path))
        words[1:2] = ["--qr-image", str(picture)]
        with start(made_stage, *words) as phone:
            _, err = phone.communicate(timeout=PATIENCE)
        out, _ = laptop.communicate(timeout=PATIENCE)
    assert (phone.returncode, laptop.returncode) == (0, 0), err
    assert json.loads(out)["features"] == ["ctap"]
    assert picture.read_bytes() != qr_png(qr_matrix(code))  # ours is another size: the phone read that one


PRINT_RESULT = """\
import os, sys
from hybrid.cli import laptop, main
{before}
laptop.info = lambda _: laptop.print_result({{"a": 1}})
main.run(["info"])
"""


def test_a_result_that_cannot_be_written_is_said() -> None:
    done = run_python(PRINT_RESULT.format(before="sys.stdout = open('/dev/full', 'w')"))
    assert done.returncode == 2
    assert done.stderr == (
        "hybrid: error: the result cannot be written: no space left on device\nhybrid: hint: check where stdout goes\n"
    )


def test_a_reader_of_the_result_that_left_is_no_bug() -> None:
    done = run_python(PRINT_RESULT.format(before="read, write = os.pipe(); os.close(read); os.dup2(write, 1)"))
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("how", ["'w'", "'w', buffering=1"])
def test_a_table_that_cannot_be_written_is_said(how: str) -> None:
    full = f"import sys; from hybrid.cli import main; sys.stdout = open('/dev/full', {how})"
    done = run_python(f"{full}; main.run(['--version'])")
    assert done.returncode == 2
    assert done.stderr == (
        "hybrid: error: the result cannot be written: no space left on device\nhybrid: hint: check where stdout goes\n"
    )


def test_a_reader_of_a_long_table_that_left_is_no_bug() -> None:
    before = "read, write = os.pipe(); os.close(read); os.dup2(write, 1)"
    after = "laptop.info = lambda _: print('x' * 100_000)"
    done = run_python(f"import os\nfrom hybrid.cli import laptop, main\n{before}\n{after}\nmain.run(['info'])")
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("words", [[], ["--json-events"]])
def test_a_bug_is_a_sentence_and_a_hint(words: list[str]) -> None:
    script = f"""\
import sys
from hybrid.cli import laptop, main
def broken(*_): raise KeyError("the secret of somebody")
laptop.info = broken
main.run(["info", *{words!r}])
"""
    done = run_python(script)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
    hint = "this is a bug of ours: report it, with what HYBRID_DEBUG=1 adds to the output"
    sentence = "something went wrong that should not (KeyError)"
    if words:
        assert [json.loads(line) for line in done.stderr.splitlines()] == [
            {"event": "error", "identifier": "bug", "message": sentence, "hint": hint, "exit_code": 1}
        ]
    else:
        assert done.stderr == f"hybrid: error: {sentence}\nhybrid: hint: {hint}\n"
    debugged = run_python(script, HYBRID_DEBUG="1")
    assert debugged.returncode == 1
    assert "Traceback" in debugged.stderr
    assert "in broken" in debugged.stderr
    if words:
        assert {json.loads(line)["event"] for line in debugged.stderr.splitlines()} == {"error", "debug"}


def test_what_a_librarys_task_leaves_behind_is_not_printed() -> None:
    script = """\
import asyncio
from hybrid.cli.running import run_politely
from hybrid.cli.terminal import Screen
async def lost(): raise ValueError("noise")
async def work():
    asyncio.create_task(lost())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return 0
print(run_politely(work(), Screen()))
"""
    done = run_python(script)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_python_m_and_the_version() -> None:
    done = subprocess.run([*HYBRID, "--version"], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"hybrid \d+\.\d+\.\d+\n", done.stdout)
