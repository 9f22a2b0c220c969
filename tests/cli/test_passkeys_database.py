"""``hybrid passkeys`` on a KeePass database: as on a vault, and what is said where such a database differs."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pykeepass", reason="needs the extra kdbx")

import pykeepass

from hybrid.passkeys.kdbx import DatabaseKey, KdbxStore, open_kdbx
from hybrid.passkeys.store import CredentialState
from hybrid.passkeys.vault import Vault, open_vault
from hybrid.passkeys.vault_file import KdfCost
from hybrid.passkeys.vault_keys import FileKey, PassphraseKey
from tests.cli.people import passkey
from tests.cli.stage import Outcome, run
from tests.cli.test_passkeys_portability import answers
from tests.passkeys.portability_rig import DATA

KEY_FILE = bytes(range(32))
KEPT = (
    replace(passkey(), last_used_at=1_800_100_000, use_count=3),
    replace(passkey(1, "bob", "Bob"), backup_eligible=True, backed_up=True, rp_id="another.example"),
    replace(passkey(2, "old", ""), state=CredentialState.SUPERSEDED),
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_bytes(KEY_FILE)
    return tmp_path


def database(path: Path, password: str | None, key_file: bytes | None) -> DatabaseKey:
    """A database that opens with these; deriving its key takes no time."""
    made = pykeepass.PyKeePass(DATA / "empty.kdbx", password="password")
    made.password, made.keyfile = password, io.BytesIO(key_file) if key_file is not None else None
    made.save(path)
    return DatabaseKey(password, key_file)


def cheap_vault(path: Path) -> Vault:
    return open_vault(path, FileKey(path.parent / "key"), cost=KdfCost(8, 1, 1))


def both(folder: Path) -> list[tuple[Path, Vault | KdbxStore]]:
    """The same passkeys in a vault and in a database, with the same key file."""
    vault = cheap_vault(folder / "v")
    keys = open_kdbx(folder / "v.kdbx", database(folder / "v.kdbx", None, KEY_FILE))
    for store in (vault, keys):
        store.add_all(KEPT)
    return [(folder / "v", vault), (folder / "v.kdbx", keys)]


def passkeys(path: Path, *words: str) -> Outcome:
    return run(["passkeys", *words, "--vault", str(path), "--vault-key", f"file:{path.parent / 'key'}"], environment={})


def told(outcome: Outcome, path: Path) -> tuple[int, str, str]:
    """What is the same for both: everything but the name of the file, and the time of a change."""
    out = re.sub(r'"modifiedAt": \d+', "", outcome.stdout)
    return outcome.exit_code, out.replace(str(path), "PATH"), outcome.stderr.replace(str(path), "PATH")


STEPS = [
    ("list",),
    ("list", "--all", "--json"),
    ("show", "0001"),
    ("show", "0102", "--json"),
    ("show", "ffff"),
    ("rename", "0001", "ada.l", "--display-name", "Ada L.", "--json"),
    ("remove", "0001", "0102"),
    ("remove", "0001"),
    ("list", "--all", "--json"),
    ("purge", "0001", "0203", "--yes", "--json"),
    ("restore", "0001"),
    ("restore", "0102", "--json"),
    ("purge", "0102", "--yes"),
    ("remove", "ffff"),
    ("list",),
    ("remove", "0102"),
    ("purge", "--all", "--yes", "--json"),
    ("purge", "--all", "--json"),
    ("list", "--all"),
]


def test_every_command_does_the_same_in_a_vault_and_in_a_database(folder: Path) -> None:
    (vault, _), (keys, _) = both(folder)
    for step in STEPS:
        in_vault, in_database = (told(passkeys(path, *step), path) for path in (vault, keys))
        parts = 2 if step[0] == "purge" else 3  # on stderr is which copies there are
        assert in_vault[:parts] == in_database[:parts], step
    assert in_vault[2] == "hybrid: there is no passkey in this vault\n"


def test_a_purge_says_where_copies_may_be(folder: Path) -> None:
    for (path, _), said in zip(both(folder), ("v.previous, has them", "such as backups, still have them"), strict=True):
        assert said in passkeys(path, "purge", "--all", "--yes").stderr


@pytest.mark.parametrize("name", ["cxf", "bitwarden"])
def test_what_one_exports_the_other_imports(folder: Path, name: str) -> None:
    (vault, _), (keys, _) = both(folder)
    for path, other in ((vault, folder / "w.kdbx"), (keys, folder / "w")):
        if other.suffix:
            database(other, None, KEY_FILE)
        else:
            cheap_vault(other).close()
        out = folder / f"{path.name}.out"
        exported = passkeys(path, "export", str(out), "--format", name, "--clear-text", "--yes", "--json")
        imported = passkeys(other, "import", str(out), "--json")
        assert (exported.exit_code, imported.exit_code) == (0, 0)
        assert json.loads(imported.stdout)["carried"] == 2
        listed = json.loads(passkeys(other, "list", "--json").stdout)["passkeys"]
        assert [one["userName"] for one in listed] == ["bob", "ada"]
        audit = path.with_name(path.name + ".audit").read_text().splitlines()
        assert [json.loads(line)["event"] for line in audit] == ["export"]


def test_verify_says_that_there_is_no_copy_of_the_generation_before(folder: Path) -> None:
    keys = both(folder)[1][0]
    outcome = passkeys(keys, "verify")
    assert (outcome.exit_code, outcome.stdout) == (0, "checked 3 good 3\n")
    assert "keeps no copy of the generation before, but a history of every entry\n" in outcome.stderr
    assert json.loads(passkeys(keys, "verify", "--json").stdout) == {
        "vault": str(keys), "generation": None, "previousGeneration": None, "checked": 3, "problems": [],
    }  # fmt: skip


def test_entries_that_cannot_be_used_are_counted_and_named(folder: Path) -> None:
    keys, store = both(folder)[1]
    made = pykeepass.PyKeePass(keys, keyfile=io.BytesIO(KEY_FILE))
    entry = made.add_entry(made.root_group, "x", "y", "z")
    entry.set_custom_property("KPEX_PASSKEY_PRIVATE_KEY_PEM", "nonsense")
    entry.set_custom_property("KPEX_PASSKEY_RELYING_PARTY", "bad.example")
    entry.set_custom_property("KPEX_PASSKEY_USERNAME", "eve\u202e")
    made.save()
    assert len(store.credentials()) == 3
    assert "1 more that cannot be used: see why with hybrid passkeys verify\n" in passkeys(keys, "list").stderr
    outcome = passkeys(keys, "verify")
    assert outcome.exit_code == 2
    assert outcome.stdout == "bad -------- bad.example eve: its key cannot be read\nchecked 4 good 3\n"
    problems = json.loads(passkeys(keys, "verify", "--json").stdout)["problems"]
    assert problems == [{"id": "", "rpId": "bad.example", "problem": "its key cannot be read"}]


def test_another_key_is_given_elsewhere(folder: Path) -> None:
    outcome = passkeys(both(folder)[1][0], "rekey")
    assert outcome.exit_code == 2
    assert outcome.stderr == (
        "hybrid: error: what opens a KeePass database is not changed here\n"
        "hybrid: hint: change it in the program that made it, e.g. KeePassXC\n"
    )


def test_no_database_is_made_to_look_into_it(folder: Path) -> None:
    outcome = passkeys(folder / "none.kdbx", "list")
    assert (outcome.exit_code, (folder / "none.kdbx").exists()) == (2, False)
    assert outcome.stderr.startswith(f"hybrid: error: there is no vault at {folder}/none.kdbx\n")


# --- keys ------------------------------------------------------------------------------------------------------------


def listed(path: Path, key: str, monkeypatch: pytest.MonkeyPatch, *typed: str) -> tuple[Any, list[str]]:
    asked = answers(monkeypatch, *typed)
    outcome = run(["passkeys", "list", "--json", "--vault", str(path), "--vault-key", key], environment={})
    return json.loads(outcome.stdout)["passkeys"] if outcome.exit_code == 0 else outcome.stderr, asked


def test_a_password_a_key_file_or_both(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, key = folder / "keys.kdbx", f"file:{folder / 'key'}"
    question = "password of the KeePass database: "
    for password, content, choice in ((None, KEY_FILE, key), ("word", None, "passphrase"),
                                      ("word", KEY_FILE, f"passphrase+{key}")):  # fmt: skip
        open_kdbx(path, database(path, password, content)).add(passkey())
        found, asked = listed(path, choice, monkeypatch, "word")
        assert (len(found), asked) == (1, [question] if password else [])
    found, asked = listed(path, "passphrase", monkeypatch, *["word"] * 3)
    assert "the password or the key file is wrong" in found
    assert asked == [question] * 3


def test_a_vault_takes_no_two_keys(folder: Path) -> None:
    vault = both(folder)[0][0]
    outcome = run(["passkeys", "list", "--vault", str(vault), "--vault-key", "passphrase+file:x"], environment={})
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith("hybrid: error: a vault opens with a passphrase or with a key file, not with both")


@pytest.mark.parametrize("key", ["none", "keyring"])
def test_keys_that_no_database_has(folder: Path, key: str) -> None:
    path = both(folder)[1][0]
    outcome = run(["passkeys", "list", "--vault", str(path), "--vault-key", key], environment={})
    assert outcome.stderr.startswith(f"hybrid: error: a KeePass database does not open with {key}\n")


def test_an_export_to_a_database_with_both_keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = both(folder)[0][0]
    out = folder / "out.kdbx"
    key = database(out, "word and word", KEY_FILE)
    words = ("--key-file", str(folder / "key"), "--with-password")
    answers(monkeypatch, "word and word")
    assert passkeys(vault, "export", str(out), "--update", "--yes", *words).exit_code == 0
    assert len(open_kdbx(out, key).credentials()) == 2
    answers(monkeypatch, "word and word")
    cheap_vault(folder / "w").close()
    assert passkeys(folder / "w", "import", str(out), *words).exit_code == 0


# --- who may export --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vault", "database"])
def test_t17_a_passphrase_that_was_just_typed_is_enough(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "vault":
        path = folder / "p"
        open_vault(path, PassphraseKey("correct horse"), cost=KdfCost(8, 1, 1)).add(passkey())
    else:
        path = folder / "p.kdbx"
        open_kdbx(path, database(path, "correct horse", None)).add(passkey())
    asked = answers(monkeypatch, "correct horse")
    words = ["passkeys", "export", str(folder / "out.cxf"), "--clear-text", "--vault", str(path)]
    assert run(words, environment={}).exit_code == 0
    assert len(asked) == 1


def test_t17_a_database_with_a_key_file_alone_asks_whether_it_is_meant(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = both(folder)[1][0]
    asked = answers(monkeypatch, "n")
    outcome = passkeys(path, "export", str(folder / "out.cxf"), "--clear-text")
    assert (outcome.exit_code, len(asked), (folder / "out.cxf").exists()) == (3, 1, False)
