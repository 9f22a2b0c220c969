"""KeePassXC itself, by Debian's keepassxc-cli, opens what we wrote, and we open what it wrote."""

from __future__ import annotations

import shutil
import subprocess
import time
from base64 import b64encode
from pathlib import Path

import pytest

pytest.importorskip("pykeepass", reason="needs the extra kdbx")

import pykeepass

from hybrid.passkeys.kdbx import DatabaseKey, open_kdbx, write_kdbx
from hybrid.passkeys.portability import b64url, pem_of, write_private
from hybrid.passkeys.store import CredentialState
from tests.passkeys.portability_rig import DATA, NOW, der, full, plain, private_key

CLI = shutil.which("keepassxc-cli")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CLI is None, reason="needs Debian package keepassxc"),
]


def keepassxc(*words: str | Path, lines: str = "password\n") -> str:
    assert CLI is not None
    done = subprocess.run(
        [CLI, *map(str, words)],
        input=lines,
        capture_output=True,
        text=True,
        timeout=50,
        env={"QT_QPA_PLATFORM": "offscreen", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(path: Path, entry: str) -> dict[str, str]:
    names = [
        "KPEX_PASSKEY_CREDENTIAL_ID",
        "KPEX_PASSKEY_RELYING_PARTY",
        "KPEX_PASSKEY_USER_HANDLE",
        "KPEX_PASSKEY_USERNAME",
        "KPEX_PASSKEY_FLAG_BE",
        "KPEX_PASSKEY_FLAG_BS",
        "Title",
        "URL",
        "Tags",
    ]
    words = [word for name in names for word in ("-a", name)]
    return dict(zip(names, keepassxc("show", "-s", *words, path, entry).splitlines(), strict=True))


def test_it_opens_an_export_and_shows_the_attributes(tmp_path: Path) -> None:
    path = tmp_path / "export.kdbx"
    write_private(path, write_kdbx([full()], DatabaseKey("password")).data)
    assert shown(path, "Passkeys/Example") == {
        "KPEX_PASSKEY_CREDENTIAL_ID": b64url((1).to_bytes(32, "big")),
        "KPEX_PASSKEY_RELYING_PARTY": "example.com",
        "KPEX_PASSKEY_USER_HANDLE": b64url(b"user-1"),
        "KPEX_PASSKEY_USERNAME": "ann",
        "KPEX_PASSKEY_FLAG_BE": "1",
        "KPEX_PASSKEY_FLAG_BS": "1",
        "Title": "Example",
        "URL": "https://example.com",
        "Tags": "Passkey",
    }
    pem = keepassxc("show", "-s", "-a", "KPEX_PASSKEY_PRIVATE_KEY_PEM", path, "Passkeys/Example")
    assert pem.strip() == pem_of(der(private_key())).strip()


@pytest.mark.parametrize("version", [3, 4])
def test_its_database_is_our_store_and_stays_its_own(version: int, tmp_path: Path) -> None:
    path = tmp_path / "theirs.kdbx"
    if version == 3:
        keepassxc("db-create", "-p", path, lines="password\npassword\n")
    else:
        path.write_bytes((DATA / "empty.kdbx").read_bytes())
    keepassxc("add", "-u", "ann", "-p", path, "Login", lines="password\nhunter2\nhunter2\n")
    store = open_kdbx(path, DatabaseKey("password"))
    store.add(plain())
    store.add(plain(number=2, rp_name="Newer", created_at=NOW), superseding=[plain().credential_id])
    store.note_use(plain(number=2).credential_id, NOW)
    store.keep_setting("pin", b"x")

    assert keepassxc("ls", "-R", "-f", path).splitlines() == [
        "Login",
        "Passkeys/",
        "Passkeys/Newer",
        "Recycle Bin/",
        "Recycle Bin/Example",
    ]
    assert keepassxc("show", "-s", "-a", "Password", path, "Login").strip() == "hunter2"
    keepassxc("edit", "-t", "Renamed by them", path, "Passkeys/Newer")  # it writes the whole file anew

    again = open_kdbx(path, DatabaseKey("password"))
    assert [(credential.user_id, credential.state) for credential in again.credentials()] == [
        (b"user-1", CredentialState.SUPERSEDED),
        (b"user-2", CredentialState.ACTIVE),
    ]
    newer = again.find(plain(number=2).credential_id)
    assert newer is not None
    assert (newer.rp_name, newer.private_key, again.setting("pin")) == ("Newer", plain(number=2).private_key, b"x")


@pytest.mark.parametrize("password", [None, "password"])
def test_its_key_file_opens_its_database_with_and_without_a_password(password: str | None, tmp_path: Path) -> None:
    path, key_file = tmp_path / "theirs.kdbx", tmp_path / "theirs.keyx"
    with_password = () if password is None else ("-p",)
    lines = "" if password is None else f"{password}\n{password}\n"
    keepassxc("db-create", "-t", "100", "--set-key-file", key_file, *with_password, path, lines=lines)
    assert b"<Version>2.0" in key_file.read_bytes()
    with open_kdbx(path, DatabaseKey(password, key_file.read_bytes())) as store:
        store.add(plain())
    no_password = ("--no-password",) if password is None else ()
    shown = keepassxc("ls", "-R", "-f", "-k", key_file, *no_password, path, lines=f"{password}\n")
    assert shown.splitlines() == ["Passkeys/", "Passkeys/Example"]


@pytest.mark.parametrize("form", ["32 bytes", "hex", "xml 1.0", "anything"])
def test_every_form_of_key_file_is_the_same_key_to_both(form: str, tmp_path: Path) -> None:
    key = bytes(range(100, 132))
    key_file = tmp_path / "key"
    content = {
        "32 bytes": key,
        "hex": key.hex().encode(),
        "xml 1.0": b"<KeyFile><Meta><Version>1.00</Version></Meta><Key><Data>"
        + b64encode(key)
        + b"</Data></Key></KeyFile>",
        "anything": b"a picture, say",
    }
    key_file.write_bytes(content[form])
    path = tmp_path / "ours.kdbx"
    path.write_bytes((DATA / "empty.kdbx").read_bytes())
    database = pykeepass.PyKeePass(path, password="password")
    database.keyfile = str(key_file)
    database.save()
    open_kdbx(path, DatabaseKey("password", content[form])).add(plain())
    assert "Passkeys/Example" in keepassxc("ls", "-R", "-f", "-k", key_file, path).splitlines()


@pytest.mark.parametrize("into", ["keys.kdbx", "older.kdbx"])
def test_a_passkey_taken_out_of_a_login_stays_out_when_copies_are_merged(into: str, tmp_path: Path) -> None:
    path, older = tmp_path / "keys.kdbx", tmp_path / "older.kdbx"
    path.write_bytes((DATA / "empty.kdbx").read_bytes())
    store = open_kdbx(path, DatabaseKey("password"))
    store.add(plain(modified_at=int(time.time()) - 100))
    keepassxc("edit", "-p", path, "Passkeys/Example", lines="password\nhunter2\nhunter2\n")
    older.write_bytes(path.read_bytes())
    store.set_state([plain().credential_id], CredentialState.DELETED, int(time.time()) + 2)
    merged = tmp_path / into
    keepassxc("merge", "-s", merged, older if merged == path else path)
    again = open_kdbx(merged, DatabaseKey("password"))
    assert [(one.user_id, one.state) for one in again.credentials()] == [(b"user-1", CredentialState.DELETED)]
    assert keepassxc("ls", "-R", "-f", merged).splitlines() == [
        "Passkeys/",
        "Passkeys/Example",
        "Recycle Bin/",
        "Recycle Bin/Example",
    ]
    assert keepassxc("show", "-s", "-a", "Password", merged, "Passkeys/Example").strip() == "hunter2"
