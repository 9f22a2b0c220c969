"""Passphrases on a real terminal: asked when a vault is made and opened, and standing for the person's verification."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hybrid.errors import VaultError
from hybrid.invitation import invite
from hybrid.passkeys.store import CredentialState
from hybrid.passkeys.vault import open_vault
from hybrid.passkeys.vault_file import KdfCost, KeyKind
from hybrid.passkeys.vault_keys import PassphraseKey
from hybrid.protocol.qr import Hint
from hybrid.testing.peers import clients
from tests.cli.people import RP_ID, client, passkey, register, sign_in
from tests.cli.stage import Stage
from tests.cli.test_at_a_terminal import AtTerminal
from tests.cli.transcript import Client

pytestmark = pytest.mark.slow

PASSPHRASE = "correct horse"
CHEAP = KdfCost(8, 1, 1)
Run = Callable[..., AtTerminal]


@pytest.fixture
def run() -> Iterator[Run]:
    """Start a command at a terminal."""
    started: list[AtTerminal] = []

    def start(*words: str) -> AtTerminal:
        started.append(AtTerminal(list(words)))
        return started[-1]

    yield start
    for terminal in started:
        terminal.close()


@pytest.fixture
def phone(made_stage: Stage, tmp_path: Path, run: Run) -> Iterator[Callable[[Client, Hint], AtTerminal]]:
    """Start a phone with the vault ``v``, and a client that asks it."""
    tmp_path.chmod(0o700)
    asking = []

    def start(who: Client, hint: Hint) -> AtTerminal:
        invitation = invite(hint)

        async def ask() -> None:
            await who(made_stage, invitation)

        asking.append(made_stage.submit(ask()))
        relay = ("--relay", made_stage.relay, "--relay-ca", str(made_stage.ca_file))
        return run("phone", invitation.url, "--vault", str(tmp_path / "v"), "--adapter", "hci1", *relay)

    yield start
    for one in asking:
        one.cancel()


def answer(terminal: AtTerminal, question: str, line: str) -> str:
    """Wait for a question that must not show what is typed, and answer it."""
    shown = terminal.wait_for(question)
    terminal.wait_until_silent()
    terminal.type(f"{line}\n")
    return shown


def test_a_new_vault_asks_for_a_passphrase_twice_and_no_pin(
    phone: Callable[[Client, Hint], AtTerminal], tmp_path: Path
) -> None:
    terminal = phone(client(lambda: clients.Client(register())), Hint.MAKE_CREDENTIAL)
    told = answer(terminal, r"choose a passphrase \(8 characters or more, empty to stop\): ", "short")
    assert "nobody can open this vault without its passphrase, neither can we" in told
    answer(terminal, "that is too short; choose a passphrase.*: ", PASSPHRASE)
    answer(terminal, "the same passphrase again: ", "correct hose")
    answer(terminal, "the two are not the same; choose a passphrase.*: ", PASSPHRASE)
    answer(terminal, "the same passphrase again: ", PASSPHRASE)
    told += terminal.wait_for(r"go ahead\? \[y/N\] ")
    terminal.type("y\n")
    told += terminal.wait_for("the answer is sent\n")  # a PIN would be asked for before it
    assert terminal.end() == (0, "")
    assert PASSPHRASE not in told
    assert "not encrypted" not in told
    vault = open_vault(tmp_path / "v", PassphraseKey(PASSPHRASE))
    assert [one.user_name for one in vault.credentials(RP_ID)] == ["ada"]


def test_the_passphrase_of_this_process_verifies_for_its_session(
    phone: Callable[[Client, Hint], AtTerminal], tmp_path: Path
) -> None:
    open_vault(tmp_path / "v", PassphraseKey(PASSPHRASE), cost=CHEAP).add(passkey())
    terminal = phone(client(lambda: clients.Client(sign_in({"uv": True}))), Hint.GET_ASSERTION)
    answer(terminal, "passphrase of this vault: ", "wrong horse")
    answer(terminal, "that does not open it\npassphrase of this vault: ", PASSPHRASE)
    terminal.wait_for(r"go ahead\? \[y/N\] ")
    terminal.type("y\n")
    terminal.wait_for("the answer is sent\n")
    assert terminal.end() == (0, "")


def test_three_wrong_passphrases_end_it(run: Run, tmp_path: Path) -> None:
    open_vault(tmp_path / "v", PassphraseKey(PASSPHRASE), cost=CHEAP).close()
    terminal = run("passkeys", "list", "--vault", str(tmp_path / "v"))
    for _ in range(3):
        answer(terminal, "passphrase of this vault: ", "wrong horse")
    code, told = terminal.end()
    assert code == 2
    assert "hybrid: error: the key is not the right one, or the vault is damaged\n" in told


def test_no_passphrase_is_none(run: Run, tmp_path: Path) -> None:
    open_vault(tmp_path / "v", PassphraseKey(PASSPHRASE), cost=CHEAP).close()
    terminal = run("passkeys", "list", "--vault", str(tmp_path / "v"))
    answer(terminal, "passphrase of this vault: ", "")
    code, told = terminal.end()
    assert code == 2
    assert "hybrid: error: no passphrase was given\n" in told
    assert terminal.echoes


def test_ctrl_c_at_the_question_leaves_the_terminal_as_it_was(run: Run, tmp_path: Path) -> None:
    open_vault(tmp_path / "v", PassphraseKey(PASSPHRASE), cost=CHEAP).close()
    terminal = run("passkeys", "list", "--vault", str(tmp_path / "v"))
    terminal.wait_for("passphrase of this vault: ")
    terminal.wait_until_silent()
    terminal.type("\x03")
    assert terminal.end()[0] == 130
    assert terminal.echoes


def test_a_key_of_another_kind_is_not_asked_for(run: Run, tmp_path: Path) -> None:
    open_vault(tmp_path / "v").close()
    terminal = run("passkeys", "list", "--vault", str(tmp_path / "v"))
    code, told = terminal.end()
    assert code == 2
    assert "hybrid: error: the vault opens with no key, for it is not encrypted\n" in told


def test_another_passphrase(run: Run, tmp_path: Path) -> None:
    open_vault(tmp_path / "v", PassphraseKey(PASSPHRASE), cost=CHEAP).add(passkey())
    terminal = run("passkeys", "rekey", "--vault", str(tmp_path / "v"))
    answer(terminal, "passphrase of this vault: ", PASSPHRASE)
    answer(terminal, "choose a passphrase.*: ", "battery staple")
    answer(terminal, "the same passphrase again: ", "battery staple")
    assert terminal.end()[0] == 0
    with pytest.raises(VaultError):
        open_vault(tmp_path / "v", PassphraseKey(PASSPHRASE))
    vault = open_vault(tmp_path / "v", PassphraseKey("battery staple"))
    assert (vault.key_kind, vault.credentials()) == (KeyKind.PASSPHRASE, [passkey()])


@pytest.mark.parametrize(("typed", "left", "code"), [("y\n", 0, 0), ("\n", 1, 3), ("n\n", 1, 3)])
def test_purging_asks(run: Run, tmp_path: Path, typed: str, left: int, code: int) -> None:
    vault = open_vault(tmp_path / "v")
    vault.add(passkey())
    vault.set_state([passkey().credential_id], CredentialState.DELETED, 5)
    terminal = run("passkeys", "purge", "--all", "--vault", str(tmp_path / "v"), "--vault-key", "none")
    terminal.wait_for(r"destroy 1 passkey for good\? \[y/N\] ")
    terminal.type(typed)
    assert terminal.end()[0] == code
    assert len(vault.credentials()) == left


def test_without_a_terminal_nothing_is_asked_or_made(tmp_path: Path) -> None:
    words = (sys.executable, "-m", "hybrid", "phone", invite().url, "--approve", "always", "--vault", tmp_path / "v")
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True, env=os.environ
    )
    assert done.stderr == (
        "hybrid: error: there is no terminal to ask you for a passphrase on\n"
        "hybrid: hint: run it in a terminal, or choose another --vault-key\n"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert list(tmp_path.iterdir()) == []
