"""The person at the phone, asked on a real terminal: a pty that is the child's controlling terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hybrid.invitation import Invitation, invite
from hybrid.passkeys.store import Credential
from hybrid.passkeys.vault import open_vault
from hybrid.passkeys.vault_pin import VaultPin
from hybrid.protocol.qr import Hint
from hybrid.testing.peers import clients
from tests.cli.people import RP_ID, client, passkey, register, sign_in
from tests.cli.stage import PATIENCE, Stage
from tests.cli.transcript import Client

pytestmark = pytest.mark.slow

PIN = "2468"
NEAR = "  through   a code that was scanned; nearness: Bluetooth vouches for it\n"
ARE_YOU = "  are you signing in on the device that shows this code?\n"


# A session of its own has no terminal until it takes one.
_AT_TERMINAL = """\
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "hybrid", *sys.argv[1:]])
"""


class AtTerminal:
    """``hybrid phone`` in a child whose terminal we type on."""

    def __init__(self, words: list[str]) -> None:
        self._fd, inside = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _AT_TERMINAL, *words],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm"},
        )
        os.close(inside)
        self._text = ""

    def wait_for(self, pattern: str) -> str:
        """Read until `pattern` is there; give all up to its end, and forget it."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self._text)):
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"{pattern!r} never came: {self._text!r}")
        before, self._text = self._text[: found.end()], self._text[found.end() :]
        return before

    def _read(self, seconds: float) -> bool:
        if not select.select([self._fd], [], [], max(0, seconds))[0]:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # Linux: the other side is closed
            data = b""
        self._text += data.decode().replace("\r\n", "\n")
        return bool(data)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._fd)[3] & termios.ECHO)

    def wait_until_silent(self) -> None:
        """Wait until echo is off: what is typed before would be thrown away."""
        deadline = time.monotonic() + PATIENCE
        while self.echoes:
            if time.monotonic() > deadline:
                raise AssertionError("the terminal still echoes")
            time.sleep(0.005)  # a terminal does not tell

    def end(self) -> tuple[int, str]:
        """Exit code, and what came last."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(PATIENCE), self._text

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)


Meet = Callable[..., AtTerminal]


@pytest.fixture
def meet(made_stage: Stage, tmp_path: Path) -> Iterator[Meet]:
    """Start a phone at a terminal and a client that asks it."""
    tmp_path.chmod(0o700)
    open_terminals: list[AtTerminal] = []
    asking = []

    def start(
        who: Client, *passkeys: Credential, hint: Hint = Hint.GET_ASSERTION, pin: str | None = None, more: str = ""
    ) -> AtTerminal:
        vault = open_vault(tmp_path / "v")
        for credential in passkeys:
            vault.add(credential)
        if pin is not None:
            VaultPin(vault, cost=1 << 4).set(pin)
        invitation = invite(hint)
        asking.append(made_stage.submit(_ask(made_stage, who, invitation)))
        words = f"phone {invitation.url} --vault {tmp_path / 'v'} --vault-key none --adapter hci1 {more}".split()
        terminal = AtTerminal([*words, "--relay", made_stage.relay, "--relay-ca", str(made_stage.ca_file)])
        open_terminals.append(terminal)
        return terminal

    yield start
    for terminal in open_terminals:
        terminal.close()
    for client_at_work in asking:
        client_at_work.cancel()


async def _ask(stage: Stage, who: Client, invitation: Invitation) -> None:
    await who(stage, invitation)


SIGNS_IN = client(lambda: clients.Client(sign_in()))
REGISTERS = client(lambda: clients.Client(register()))


def test_yes_and_a_first_pin(meet: Meet, tmp_path: Path) -> None:
    terminal = meet(REGISTERS, hint=Hint.MAKE_CREDENTIAL)
    prompt = terminal.wait_for(r"go ahead\? \[y/N\] ")
    assert prompt.split("for a new passkey\n")[1] == (
        f"\n  site      \x1b[1m{RP_ID}\x1b[0m\n            (it calls itself Example)\n  wants     a new passkey\n"
        f"  account   ada (Ada)\n  saved in  {tmp_path}/v, on this device only\n{NEAR}{ARE_YOU}go ahead? [y/N] "
    )
    terminal.type("y\n")
    terminal.wait_for("choose a PIN for this vault")
    terminal.wait_until_silent()
    terminal.type("12\n")
    terminal.wait_for("that is too short; choose a PIN")
    terminal.type(f"{PIN}\n")
    terminal.wait_for("the same PIN again: ")
    terminal.type("1357\n")
    terminal.wait_for("the two are not the same; choose a PIN")
    terminal.type(f"{PIN}\n")
    terminal.wait_for("the same PIN again: ")
    terminal.type(f"{PIN}\n")
    terminal.wait_for("the answer is sent\n")
    assert terminal.end() == (0, "")
    vault = open_vault(tmp_path / "v")
    assert [credential.user_name for credential in vault.credentials(RP_ID)] == ["ada"]
    assert VaultPin(vault).check(PIN)


@pytest.mark.parametrize("typed", ["n\n", "\n", "yesterday\n", "\x04"])
def test_everything_but_yes_is_no(meet: Meet, typed: str) -> None:
    terminal = meet(SIGNS_IN, passkey())
    terminal.wait_for(r"go ahead\? \[y/N\] ")
    terminal.type(typed)
    code, told = terminal.end()
    assert code == 3
    assert told.endswith("hybrid: error: you declined\nhybrid: hint: show a new code to try again\n")


def test_keys_pressed_before_the_question_do_not_answer_it(meet: Meet) -> None:
    terminal = meet(SIGNS_IN, passkey())
    terminal.wait_for("on the air")
    terminal.type("y\ny\n")
    terminal.wait_for(r"go ahead\? \[y/N\] ")
    terminal.type("\n")
    code, told = terminal.end()
    assert code == 3
    assert "PIN" not in told


def test_a_pin_is_entered_and_never_shown(meet: Meet, tmp_path: Path) -> None:
    terminal = meet(SIGNS_IN, passkey(), pin=PIN)
    prompt = terminal.wait_for(r"go ahead\? \[y/N\] ")
    assert f"  wants     to sign you in\n  account   ada (Ada)\n  kept in   {tmp_path}/v\n{NEAR}" in prompt
    terminal.type("y\n")
    terminal.wait_for(r"PIN of this vault \(3 tries left\): ")
    terminal.wait_until_silent()
    terminal.type("1111\n")
    shown = terminal.wait_for(r"that is not the PIN; PIN of this vault \(2 tries left\): ")
    terminal.type(f"{PIN}\n")
    shown += terminal.wait_for("the answer is sent\n")
    assert "1111" not in shown
    assert PIN not in shown
    assert terminal.end() == (0, "")


def test_three_wrong_pins_end_it_and_the_next_time_waits(meet: Meet) -> None:
    terminal = meet(SIGNS_IN, passkey(), pin=PIN)
    terminal.wait_for(r"go ahead\? \[y/N\] ")
    terminal.type("y\n")
    for left in (3, 2, 1):
        terminal.wait_for(rf"\({left} tries left\): ")
        terminal.wait_until_silent()
        terminal.type("1111\n")
    code, told = terminal.end()
    assert code == 3
    assert "too many" not in told
    again = meet(SIGNS_IN)
    again.wait_for(r"go ahead\? \[y/N\] ")
    again.type("y\n")
    again.wait_for(r"too many wrong PINs; try again in \d+ s\n")
    assert again.end()[0] == 3


def test_one_of_several(meet: Meet, tmp_path: Path) -> None:
    terminal = meet(SIGNS_IN, passkey(0, "ada"), passkey(1, "bea", "Bea B."), pin=PIN)
    prompt = terminal.wait_for(r"which one\? \[1-2, anything else is no\] ")
    assert "  1  bea (Bea B.)\n  2  ada (Ada)\n" in prompt
    terminal.type("2\n")
    terminal.wait_for("PIN of this vault")
    terminal.wait_until_silent()
    terminal.type(f"{PIN}\n")
    terminal.wait_for("the answer is sent\n")
    assert terminal.end() == (0, "")
    used = {one.user_name: one.use_count for one in open_vault(tmp_path / "v").credentials(RP_ID)}
    assert used == {"ada": 1, "bea": 0}


@pytest.mark.parametrize("typed", ["3\n", "0\n", "x\n", "\n", "¹\n"])
def test_none_of_several(meet: Meet, typed: str) -> None:
    terminal = meet(SIGNS_IN, passkey(0, "ada"), passkey(1, "bea"))
    terminal.wait_for("which one")
    terminal.type(typed)
    assert terminal.end()[0] == 3


def test_nothing_found(meet: Meet) -> None:
    terminal = meet(SIGNS_IN)
    prompt = terminal.wait_for("press return to go on ")
    assert "wants     to sign you in, but this vault has no passkey for it\n" in prompt
    terminal.type("\n")
    code, told = terminal.end()
    assert code == 4
    assert "there is no passkey for this site in the vault" in told


class _AsksAndLeaves(clients.Client):
    """Leaves once the test says so."""

    def __init__(self, stage: Stage, request: bytes) -> None:
        super().__init__(request)
        self.leave = asyncio.Event()
        self._stage = stage

    async def read_answer(self) -> None:
        await self.leave.wait()


@pytest.mark.parametrize("question", ["go ahead", "PIN of this vault"])
def test_the_question_goes_with_the_client(made_stage: Stage, meet: Meet, question: str) -> None:
    leaving: list[_AsksAndLeaves] = []

    def make() -> clients.Client:
        leaving.append(_AsksAndLeaves(made_stage, sign_in()))
        return leaving[0]

    terminal = meet(client(make), passkey(), pin=PIN)
    terminal.wait_for(r"go ahead\? \[y/N\] ")
    if question != "go ahead":
        terminal.type("y\n")
        terminal.wait_for(question)
        terminal.wait_until_silent()
    made_stage.loop.call_soon_threadsafe(leaving[0].leave.set)
    code, told = terminal.end()
    assert code == 0
    assert told.endswith("\n")
    assert "error" not in told


@pytest.mark.parametrize("question", ["go ahead", "PIN of this vault"])
def test_ctrl_c_at_the_question(meet: Meet, question: str) -> None:
    terminal = meet(SIGNS_IN, passkey(), pin=PIN)
    terminal.wait_for(r"go ahead\? \[y/N\] ")
    if question != "go ahead":
        terminal.type("y\n")
        terminal.wait_for(question)
        terminal.wait_until_silent()
    terminal.type("\x03")
    told = terminal.wait_for("hybrid: stopped\n")
    assert terminal.echoes
    assert terminal.end()[0] == 130
    assert "Traceback" not in told


def test_a_question_has_its_time(meet: Meet) -> None:
    terminal = meet(SIGNS_IN, passkey(), more="--timeout-user 0.2")
    terminal.wait_for(r"go ahead\? \[y/N\] ")
    code, told = terminal.end()
    assert code == 5
    assert "nobody answered the question in time" in told


def test_names_cannot_steer_the_terminal(meet: Meet) -> None:
    evil = "a\x1b[2J\x1b]0;title\x07\r\nsite bank.example"
    terminal = meet(client(lambda: clients.Client(register(name=evil))), hint=Hint.MAKE_CREDENTIAL)
    prompt = terminal.wait_for(r"go ahead\? \[y/N\] ").split("\n  site")[1]
    prompt = prompt.replace(f"\x1b[1m{RP_ID}\x1b[0m", RP_ID)  # the one that is ours
    assert "\x1b" not in prompt
    assert "\x07" not in prompt
    assert prompt.count("\n") == 7
    terminal.type("n\n")
    assert terminal.end()[0] == 3
