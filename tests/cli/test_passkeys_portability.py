"""``hybrid passkeys export`` and ``import``: what they ask for, write, print and note, and what they refuse."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hybrid.cli.main import run
from hybrid.passkeys import bitwarden_sealed, cxf
from hybrid.passkeys.bitwarden import read_bitwarden, write_bitwarden
from hybrid.passkeys.cxf import read_cxf, write_cxf
from hybrid.passkeys.keepassxc_file import write_passkey_file
from hybrid.passkeys.portability import Exported, pem_of
from hybrid.passkeys.store import Credential, CredentialState
from hybrid.passkeys.vault import open_vault
from hybrid.passkeys.vault_pin import VaultPin
from tests.passkeys.portability_rig import DATA, NOW, full, plain
from tests.passkeys.rig import counting_random

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    path = tmp_path / "phone.vault"
    open_vault(path)
    return path


def hold(vault: Path, *credentials: Credential) -> None:
    for credential in credentials:
        open_vault(vault).add(credential)


def held(vault: Path) -> list[Credential]:
    return open_vault(vault).credentials()


def command(vault: Path, *words: str | Path, expect: int = 0, yes: bool = True) -> None:
    words += ("--yes",) if words[0] == "export" and yes else ()
    with pytest.raises(SystemExit) as caught:
        run(["passkeys", *map(str, words), "--vault", str(vault), "--vault-key", "none"])
    assert caught.value.code == expect


def audit(vault: Path) -> list[dict[str, Any]]:
    path = vault.with_name(vault.name + ".audit")
    if not path.exists():
        return []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_clear_text_export_wants_consent(vault: Path, tmp_path: Path, capsys: Capture) -> None:
    hold(vault, plain())
    for name in ("cxf", "passkey"):
        out = tmp_path / f"out.{name}"
        command(vault, "export", out, "--format", name, expect=2)
        assert not out.exists()
        assert "--clear-text" in capsys.readouterr().err
    assert audit(vault) == []


@pytest.mark.parametrize("name", ["cxf", "bitwarden", "passkey"])
def test_what_is_exported_is_imported_again(name: str, vault: Path, tmp_path: Path, capsys: Capture) -> None:
    hold(vault, plain())
    out = tmp_path / "out"
    old_mask = os.umask(0)
    try:
        command(vault, "export", out, "--format", name, "--clear-text", "--json")
    finally:
        os.umask(old_mask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    shown = capsys.readouterr()
    assert json.loads(shown.out)["carried"] == 1
    assert "not encrypted" in shown.err

    other = tmp_path / "other.vault"
    open_vault(other)
    command(other, "import", out)
    (taken,) = held(other)
    assert (taken.private_key, taken.user_id, taken.origin_store) == (plain().private_key, b"user-1", name)
    assert capsys.readouterr().out.splitlines()[0].split() == ["passkeys", "1"]


def test_the_audit_file_has_a_line_each_and_no_secret(vault: Path, tmp_path: Path) -> None:
    hold(vault, full(), plain(number=2, state=CredentialState.DELETED))
    out = tmp_path / "out.cxf"
    command(vault, "export", out, "--clear-text")
    other = tmp_path / "other.vault"
    open_vault(other)
    command(other, "import", out)
    passkeys = [{"id": plain().credential_id.hex(), "rpId": "example.com"}]
    for vault_path, event in ((vault, "export"), (other, "import")):
        (line,) = audit(vault_path)
        assert line.pop("time") > 1_700_000_000
        assert line == {
            "event": event,
            "format": "cxf",
            "encrypted": False,
            "file": str(out),
            "passkeys": passkeys,
        }


def test_an_export_that_cannot_be_noted_does_not_happen(vault: Path, tmp_path: Path, capsys: Capture) -> None:
    hold(vault, plain())
    vault.with_name(vault.name + ".audit").mkdir()
    command(vault, "export", tmp_path / "out.cxf", "--clear-text", expect=2)
    assert not (tmp_path / "out.cxf").exists()
    assert "portability" not in capsys.readouterr().out


def test_events_for_programs(vault: Path, tmp_path: Path, capsys: Capture) -> None:
    hold(vault, plain())
    out = tmp_path / "out.cxf"
    command(vault, "export", out, "--clear-text", "--json-events")
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {"event": "passkeys-exported", "count": 1, "format": "cxf", "encrypted": False} in events
    command(vault, "import", out, "--json-events")
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {"event": "passkeys-imported", "count": 0, "format": "cxf"} in events


def test_losses_and_reasons_are_printed(vault: Path, tmp_path: Path, capsys: Capture) -> None:
    hold(vault, plain(user_name="evil\x1b[2J\u202e", note="x", aaguid=bytes(16)), plain(number=2, sign_count=3))
    command(vault, "export", tmp_path / "out.cxf", "--clear-text")
    assert capsys.readouterr().out == (
        "passkeys     1\n"
        "left out     ann at example.com: it counts its uses, which this format forbids\n"
        "lost         aaguid of 1\n"
        "lost         note of 1\n"
    )
    document = json.loads((tmp_path / "out.cxf").read_bytes())
    document["accounts"][0]["items"][0]["credentials"][0]["rpId"] = "https://evil\x1b[2J"
    (tmp_path / "forged.cxf").write_text(json.dumps(document))
    command(vault, "import", tmp_path / "forged.cxf", expect=2)
    shown = capsys.readouterr()
    assert "its site is not the name of one" in shown.out
    assert "\x1b" not in shown.out + shown.err
    assert "\u202e" not in shown.out + shown.err


def test_a_file_that_is_there_stays(vault: Path, tmp_path: Path, capsys: Capture) -> None:
    hold(vault, plain())
    out = tmp_path / "out.cxf"
    out.write_text("mine")
    command(vault, "export", out, "--clear-text", expect=2)
    assert (out.read_text(), audit(vault)) == ("mine", [])
    assert "--overwrite" in capsys.readouterr().err
    command(vault, "export", out, "--clear-text", "--overwrite")
    assert len(read_cxf(out.read_bytes(), now=NOW).credentials) == 1


def test_an_update_keeps_what_is_in_the_file(vault: Path, tmp_path: Path) -> None:
    hold(vault, plain(number=2))
    out = tmp_path / "out.cxf"
    document = json.loads(write_cxf([plain()], now=NOW, random=counting_random()).data)
    document["accounts"][0]["items"].append({"id": "AQ", "title": "x", "credentials": [{"type": "note"}]})
    out.write_text(json.dumps(document))
    command(vault, "export", out, "--clear-text", "--update")
    imported = read_cxf(out.read_bytes(), now=NOW)
    assert ([one.user_id for one in imported.credentials], imported.report.others) == ([b"user-1", b"user-2"], 1)


def test_a_file_that_another_program_changes_meanwhile_stays(
    vault: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    hold(vault, plain(number=2))
    out = tmp_path / "out.cxf"
    out.write_bytes(write_cxf([plain()], now=NOW, random=counting_random()).data)
    original = cxf.write_cxf

    def write(*given: Any, **how: Any) -> Exported:
        out.write_text("theirs")
        return original(*given, **how)

    monkeypatch.setattr(cxf, "write_cxf", write)
    command(vault, "export", out, "--clear-text", "--update", expect=2)
    assert (out.read_text(), audit(vault)) == ("theirs", [])
    assert "was changed by another program meanwhile" in capsys.readouterr().err


def test_a_vault_is_not_written_over_by_its_own_export(vault: Path, capsys: Capture) -> None:
    hold(vault, plain())
    before = vault.read_bytes()
    (vault.parent / "link").symlink_to(vault)
    for out in (vault, vault.parent / "link"):
        command(vault, "export", out, "--clear-text", "--format", "cxf", "--overwrite", expect=2)
        assert "is where the passkeys are" in capsys.readouterr().err
    assert vault.read_bytes() == before


# --- an export of Bitwarden that is protected ------------------------------------------------------------------------


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bitwarden_sealed, "_OURS", {"kdfType": 0, "kdfIterations": 2})


QUESTION = "password of this export: "


@pytest.mark.usefixtures("cheap")
def test_without_clear_text_bitwarden_gets_a_password(
    vault: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    hold(vault, plain())
    out = tmp_path / "out.json"
    asked = answers(monkeypatch, "a long word", "a long word")
    command(vault, "export", out, "--format", "bitwarden")
    assert asked == ["choose a password for this export (8 characters or more): ", "the same password again: "]
    assert (stat.S_IMODE(out.stat().st_mode), audit(vault)[0]["encrypted"]) == (0o600, True)
    assert "not encrypted: whoever reads it" not in capsys.readouterr().err

    other = tmp_path / "other.vault"
    open_vault(other)
    asked = answers(monkeypatch, "a long word")
    command(other, "import", out)
    assert (asked, len(held(other)), audit(other)[0]["encrypted"]) == ([QUESTION], 1, True)
    assert "not encrypted: delete it" not in capsys.readouterr().err
    answers(monkeypatch, "a wrong word")
    command(other, "import", out, expect=2)
    assert "the password is wrong" in capsys.readouterr().err


@pytest.mark.usefixtures("cheap")
def test_an_update_leaves_a_protected_export_protected_and_a_clear_one_clear(
    vault: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    hold(vault, plain(number=2))
    out = tmp_path / "out.json"
    out.write_bytes(write_bitwarden([plain()], random=counting_random(), password="a long word").data)
    before = out.read_bytes()
    command(vault, "export", out, "--format", "bitwarden", "--update", "--clear-text", expect=2)
    assert "is encrypted, and stays so" in capsys.readouterr().err
    assert out.read_bytes() == before
    asked = answers(monkeypatch, "a long word")
    command(vault, "export", out, "--format", "bitwarden", "--update")
    assert asked == [QUESTION]
    taken = read_bitwarden(out.read_bytes(), now=NOW, password=lambda: "a long word").credentials
    assert [one.user_id for one in taken] == [b"user-1", b"user-2"]
    out.write_bytes(write_bitwarden([plain()], random=counting_random()).data)
    command(vault, "export", out, "--format", "bitwarden", "--update", expect=2)
    assert "is not encrypted" in capsys.readouterr().err


# --- who may do it ---------------------------------------------------------------------------------------------------


def answers(monkeypatch: pytest.MonkeyPatch, *lines: str) -> list[str]:
    """Let a person type these lines. Gives the questions."""
    from hybrid.cli import consent

    asked: list[str] = []
    left = list(lines)

    class Terminal:
        def write(self, text: str) -> None:
            asked.append(text)

        async def read_line(self, question: str, *, echo: bool = True) -> str:
            asked.append(question)
            return left.pop(0)

        def close(self) -> None:
            pass

    monkeypatch.setattr(consent, "Terminal", Terminal)
    return asked


@pytest.mark.parametrize(("typed", "expect"), [("y", 0), ("", 3), ("export", 3)])
def test_t17_without_a_passphrase_a_person_must_agree(
    vault: Path, tmp_path: Path, typed: str, expect: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    hold(vault, plain(), plain(number=2), plain(number=3, state=CredentialState.DELETED))
    asked = answers(monkeypatch, typed)
    out = tmp_path / "out.cxf"
    command(vault, "export", out, "--clear-text", expect=expect, yes=False)
    assert asked == [f"write 2 passkeys with their private keys to {out}? [y/N] "]
    assert (out.exists(), len(audit(vault))) == ((True, 1) if typed == "y" else (False, 0))
    assert ("nothing is exported" in capsys.readouterr().err) is (typed != "y")


def test_t17_nobody_to_ask_means_no(vault: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hybrid.cli import consent
    from hybrid.cli.messages import UsageProblem

    def nobody() -> None:
        raise UsageProblem("there is no terminal to ask you on", "x")

    monkeypatch.setattr(consent, "Terminal", nobody)
    hold(vault, plain())
    command(vault, "export", tmp_path / "out.cxf", "--clear-text", expect=2, yes=False)
    VaultPin(open_vault(vault), cost=2).set("2468")
    command(vault, "export", tmp_path / "out.cxf", "--clear-text", expect=2)
    assert not (tmp_path / "out.cxf").exists()


@pytest.mark.parametrize(
    ("typed", "expect"), [(("1357", "2468"), 0), (("1", "2", "3"), 3), (("",), 3)], ids=["right", "wrong", "none"]
)
@pytest.mark.parametrize("yes", [True, False])
def test_t17_the_pin_of_a_vault_is_asked_in_any_case(
    vault: Path, tmp_path: Path, typed: tuple[str, ...], expect: int, yes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(vault, plain())
    VaultPin(open_vault(vault), cost=2).set("2468")
    asked = answers(monkeypatch, *typed)
    command(vault, "export", tmp_path / "out.cxf", "--clear-text", expect=expect, yes=yes)
    assert len(asked) == len(typed)
    assert all("PIN of this vault" in question for question in asked)
    assert (tmp_path / "out.cxf").exists() is (expect == 0)


def test_a_passkey_file_holds_one(vault: Path, tmp_path: Path, capsys: Capture) -> None:
    hold(vault, plain(), plain(number=2, credential_id=b"\xab" * 32))
    command(vault, "export", tmp_path / "out.passkey", "--clear-text", expect=2)
    assert "holds one passkey, not 2" in capsys.readouterr().err
    command(vault, "export", tmp_path / "out.passkey", "abab", "--clear-text")
    assert json.loads((tmp_path / "out.passkey").read_bytes())["privateKey"] == pem_of(plain(number=2).private_key)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--format", "cxf", "--clear-text", "--key-file", "x"), "--format kdbx"),
        (("--format", "passkey", "--clear-text", "--update"), "--update takes"),
        (("--format", "cxf", "--clear-text", "--update"), "leave out --update"),
    ],
    ids=" ".join,
)
def test_a_command_line_that_makes_no_sense(words: tuple[str, ...], hint: str, vault: Path, capsys: Capture) -> None:
    hold(vault, plain())
    command(vault, "export", vault.parent / "out", *words, expect=2)
    assert hint in capsys.readouterr().err
    assert audit(vault) == []


def test_nothing_to_export_is_said(vault: Path, tmp_path: Path, capsys: Capture) -> None:
    hold(vault, plain(state=CredentialState.DELETED))
    command(vault, "export", tmp_path / "out.cxf", "--clear-text", expect=2)
    assert "there is no passkey to export" in capsys.readouterr().err
    assert not (tmp_path / "out.cxf").exists()


def test_an_import_says_synced_or_not(vault: Path, tmp_path: Path) -> None:
    out = tmp_path / "in.json"
    out.write_bytes(write_bitwarden([plain()], random=counting_random()).data)
    command(vault, "import", out, "--device-bound")
    assert [(one.backup_eligible, one.backed_up) for one in held(vault)] == [(False, False)]


def test_a_second_import_changes_nothing(vault: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "in.passkey"
    out.write_bytes(write_passkey_file(plain()).data)
    command(vault, "import", out)
    before = held(vault)
    command(vault, "import", out)
    assert held(vault) == before
    assert "it is in the vault already" in capsys.readouterr().out


def test_an_export_in_an_archive_is_taken(vault: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as made:
        made.writestr("data.json", write_bitwarden([plain()], random=counting_random()).data)
        made.writestr("attachments/1/x.png", b"x")
    command(vault, "import", tmp_path / "in.zip")
    assert [one.user_id for one in held(vault)] == [b"user-1"]


def test_a_dry_run_opens_no_vault(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "in.passkey"
    out.write_bytes(write_passkey_file(plain()).data)
    command(tmp_path / "none.vault", "import", out, "--dry-run", "--json")
    assert json.loads(capsys.readouterr().out)["carried"] == 1
    assert os.listdir(tmp_path) == ["in.passkey"]


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 9999, b"\x03\xd9\xa2\x9a", b"\xff"], ids=repr)
def test_a_file_that_is_none_is_one_error(data: bytes, vault: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "in").write_bytes(data)
    (tmp_path / "key").write_bytes(b"k")
    command(vault, "import", tmp_path / "in", "--key-file", tmp_path / "key", expect=2)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["error", "hint"]


def test_a_document_without_passkeys_is_named(vault: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "in").write_text('{"encrypted": false, "items": []}')
    command(vault, "import", tmp_path / "in", expect=2)
    assert "there is no passkey in this file" in capsys.readouterr().err


# --- KeePass databases -----------------------------------------------------------------------------------------------


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    pytest.importorskip("pykeepass", reason="needs the extra kdbx")
    path = tmp_path / "key"
    path.write_bytes(b"bytes of a key file")
    return path


@pytest.mark.slow  # the key of a new database takes seconds to derive
def test_the_default_is_an_encrypted_database(vault: Path, key_file: Path, tmp_path: Path, capsys: Capture) -> None:
    hold(vault, full())
    out = tmp_path / "out.kdbx"
    command(vault, "export", out, "--key-file", key_file)
    shown = capsys.readouterr()
    assert "only for us  prf of 1\n" in shown.out
    assert "not encrypted: whoever reads it" not in shown.err
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert full().private_key not in out.read_bytes()
    other = tmp_path / "other.vault"
    open_vault(other)
    command(other, "import", out, "--key-file", key_file)
    assert held(other) == [replace(full(), origin_store="kdbx")]


def test_a_database_is_read_with_its_flags_or_without(vault: Path, key_file: Path, tmp_path: Path) -> None:
    from hybrid.passkeys.kdbx import DatabaseKey, write_kdbx

    data = write_kdbx([plain(backed_up=False)], DatabaseKey("password"), into=(DATA / "empty.kdbx").read_bytes()).data
    pykeepass = sys.modules["pykeepass"]
    database = pykeepass.PyKeePass(io.BytesIO(data), password="password")
    database.password, database.keyfile = None, io.BytesIO(key_file.read_bytes())
    out = tmp_path / "in.kdbx"
    database.save(out)
    command(vault, "import", out, "--key-file", key_file)
    assert [(one.backup_eligible, one.backed_up) for one in held(vault)] == [(True, False)]


def test_a_database_without_a_terminal_needs_a_key_file(vault: Path, tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("pykeepass", reason="needs the extra kdbx")
    from hybrid.cli import consent
    from hybrid.cli.messages import UsageProblem

    def nobody() -> None:
        raise UsageProblem("there is no terminal to ask you on", "x")

    hold(vault, plain())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consent, "Terminal", nobody)
        command(vault, "export", tmp_path / "out.kdbx", expect=2)
    assert "give a key file" in capsys.readouterr().err
    assert not (tmp_path / "out.kdbx").exists()


def test_without_the_extra_its_name_is_said(vault: Path, tmp_path: Path, capsys: Capture) -> None:
    hold(vault, plain())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "hybrid.passkeys.kdbx", None)
        command(vault, "export", tmp_path / "out.kdbx", expect=2)
    assert 'pip install "fido-hybrid[kdbx]"' in capsys.readouterr().err
