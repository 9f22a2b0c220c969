"""A KeePass database as the store of ``hybrid phone``, from registration to a sign-in, on a real terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("pykeepass", reason="needs the extra kdbx")

import pykeepass

from hybrid.invitation import invite
from hybrid.passkeys.kdbx import DatabaseKey, open_kdbx
from hybrid.protocol.qr import Hint
from hybrid.testing.peers import clients
from tests.cli.people import RP_ID, client, passkey, register, sign_in
from tests.cli.stage import Stage
from tests.cli.test_at_a_terminal import AtTerminal
from tests.cli.test_passkeys_terminal import answer
from tests.cli.transcript import Client
from tests.passkeys.portability_rig import DATA

pytestmark = pytest.mark.slow

KEY = DatabaseKey("password")
Phone = Callable[..., AtTerminal]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    path = tmp_path / "keys.kdbx"
    path.write_bytes((DATA / "empty.kdbx").read_bytes())
    return path


@pytest.fixture
def phone(made_stage: Stage) -> Iterator[Phone]:
    """Start a phone with this database, and a client that asks it, if any."""
    running: list[AtTerminal] = []
    asking = []

    def start(who: Client | None, hint: Hint, database: Path, *words: str) -> AtTerminal:
        invitation = invite(hint)

        async def ask(who: Client) -> None:
            await who(made_stage, invitation)

        if who is not None:
            asking.append(made_stage.submit(ask(who)))
        relay = ("--relay", made_stage.relay, "--relay-ca", str(made_stage.ca_file))
        running.append(
            AtTerminal(["phone", invitation.url, "--vault", str(database), "--adapter", "hci1", *relay, *words])
        )
        return running[-1]

    yield start
    for terminal in running:
        terminal.close()
    for one in asking:
        one.cancel()


def test_a_registration_is_an_entry(phone: Phone, database: Path) -> None:
    terminal = phone(client(lambda: clients.Client(register())), Hint.MAKE_CREDENTIAL, database)
    answer(terminal, "password of the KeePass database: ", "wrong")
    answer(terminal, "password of the KeePass database: ", "password")
    told = terminal.wait_for(r"go ahead\? \[y/N\] ")
    assert f"{database}, synced" in told
    terminal.type("y\n")
    terminal.wait_for("the answer is sent\n")
    assert terminal.end() == (0, "")
    (made,) = open_kdbx(database, KEY).credentials(RP_ID)
    assert (made.user_name, made.backup_eligible, made.backed_up) == ("ada", True, True)


def test_an_entry_signs_in_and_its_use_is_counted(phone: Phone, database: Path) -> None:
    open_kdbx(database, KEY).add(passkey())
    terminal = phone(client(lambda: clients.Client(sign_in({"uv": True}))), Hint.GET_ASSERTION, database)
    answer(terminal, "password of the KeePass database: ", "password")
    terminal.wait_for(r"go ahead\? \[y/N\] ")
    terminal.type("y\n")
    terminal.wait_for("the answer is sent\n")
    assert terminal.end() == (0, "")
    assert [one.use_count for one in open_kdbx(database, KEY).credentials(RP_ID)] == [1]


def test_a_password_and_a_key_file_open_it_together(phone: Phone, database: Path, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_bytes(b"a picture, say")
    made = pykeepass.PyKeePass(database, password="password")
    made.keyfile = str(key_file)
    made.save()
    key = DatabaseKey("password", b"a picture, say")
    open_kdbx(database, key).add(passkey())
    sign = client(lambda: clients.Client(sign_in({"uv": True})))
    terminal = phone(sign, Hint.GET_ASSERTION, database, "--vault-key", f"passphrase+file:{key_file}")
    answer(terminal, "password of the KeePass database: ", "password")
    terminal.wait_for(r"go ahead\? \[y/N\] ")
    terminal.type("y\n")
    terminal.wait_for("the answer is sent\n")
    assert terminal.end() == (0, "")
    assert [one.use_count for one in open_kdbx(database, key).credentials(RP_ID)] == [1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--vault-key", "none", "--approve", "always"), "a KeePass database does not open with none"),
        (("--vault-key", "file:/nowhere"), "a key file does not say who is at the keyboard"),
        (("--vault-key", "file:/nowhere", "--approve", "always"), "no such file or directory"),
    ],
    ids=str,
)
def test_other_keys_are_refused(words: tuple[str, ...], told: str, phone: Phone, database: Path) -> None:
    terminal = phone(None, Hint.MAKE_CREDENTIAL, database, *words)
    code, said = terminal.end()
    assert code == 2
    assert told in said
