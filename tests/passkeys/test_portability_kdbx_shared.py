"""A KeePass database that others use, too: their entries, their writes, what is removed and purged, how much work."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pykeepass", reason="needs the extra kdbx")

import pykeepass

from hybrid.errors import PortabilityError, VaultError, VaultProblem
from hybrid.passkeys import kdbx, kdbx_entry, kdbx_file
from hybrid.passkeys.kdbx import DatabaseKey, KdbxStore, open_kdbx, read_kdbx
from hybrid.passkeys.store import Credential, CredentialState
from tests.passkeys.portability_rig import NOW, full, plain
from tests.passkeys.test_portability_kdbx import EMPTY, KDBX_3, KEY, add_theirs, edited, with_theirs

GONE = (CredentialState.DELETED, CredentialState.SUPERSEDED)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.kdbx"
    path.write_bytes(EMPTY)
    return path


def theirs(path: Path) -> Any:
    return pykeepass.PyKeePass(path, password="password")


def ids(*credentials: Credential) -> list[bytes]:
    return [credential.credential_id for credential in credentials]


# --- entries that hold more than a passkey ----------------------------------------------------------------------------


@pytest.mark.parametrize("state", GONE)
def test_a_password_beside_a_removed_passkey_stays(path: Path, state: CredentialState) -> None:
    path.write_bytes(with_theirs())
    store = open_kdbx(path, KEY)
    (passkey,) = store.credentials()
    store.set_state(ids(passkey), state, NOW)
    assert store.credentials() == [replace(passkey, state=state, modified_at=NOW)]
    login, removed = theirs(path).entries
    assert (login.title, login.password, login.group.is_root_group) == ("Example (Passkey)", "hunter2", True)
    assert (login.custom_properties, login.tags) == ({"Their note": "kept"}, ["mine"])
    assert len(login.history) == 1
    assert (removed.title, removed.password, removed.group.name) == ("Example (Passkey)", None, "Recycle Bin")
    assert (removed.get_custom_property("Their note"), removed.history) == (None, [])
    assert removed.uuid != login.uuid
    store.set_state(ids(passkey), CredentialState.ACTIVE, NOW + 1)
    assert open_kdbx(path, KEY).credentials() == [replace(passkey, modified_at=NOW + 1)]
    assert [entry.group.name for entry in theirs(path).entries][1] == "Passkeys"


@pytest.mark.parametrize("more", ["notes", "attachment", "attribute", "nothing"])
def test_what_counts_as_more_than_a_passkey(path: Path, more: str) -> None:
    def edit(database: Any) -> None:
        entry = add_theirs(database, **({} if more == "attribute" else {"Their note": None}))
        entry.password = ""
        if more == "notes":
            entry.notes = "recovery codes"
        if more == "attachment":
            entry.add_attachment(database.add_binary(b"x"), "x.txt")

    path.write_bytes(edited(EMPTY, edit))
    store = open_kdbx(path, KEY)
    store.set_state(ids(*store.credentials()), CredentialState.DELETED, NOW)
    groups = [entry.group.name for entry in theirs(path).entries]
    assert groups == (["Recycle Bin"] if more == "nothing" else ["Root", "Recycle Bin"])


# --- for good ---------------------------------------------------------------------------------------------------------


def test_a_purged_passkey_is_nowhere_and_stays_away(path: Path) -> None:
    store = open_kdbx(path, KEY)
    store.add_all([plain(), plain(number=2)])
    store.update(plain(user_name="bob"))
    store.set_state(ids(plain()), CredentialState.DELETED, NOW)
    removed = next(entry for entry in theirs(path).entries if entry.group.name == "Recycle Bin")
    assert len(removed.history) == 2
    store.purge(ids(plain()))
    assert [one.user_id for one in store.credentials()] == [b"user-2"]
    assert [one.user_id for one in open_kdbx(path, KEY).credentials()] == [b"user-2"]
    database = theirs(path)
    assert len(database.entries) == 1
    root = database.tree.getroot()
    (deleted,) = root.findall("Root/DeletedObjects/DeletedObject")
    assert deleted.findtext("UUID") == removed._element.findtext("UUID")
    assert len(deleted.findtext("DeletionTime")) == len(removed._element.findtext("Times/CreationTime"))


def test_a_purge_leaves_what_else_an_entry_holds_and_cleans_its_history(path: Path) -> None:
    path.write_bytes(with_theirs())
    store = open_kdbx(path, KEY)
    passkeys = store.credentials()
    store.set_state(ids(*passkeys), CredentialState.SUPERSEDED, NOW)
    store.purge(ids(*passkeys))
    (login,) = theirs(path).entries
    assert (login.password, len(login.history), login.history[0].password) == ("hunter2", 1, "hunter2")
    assert login.history[0].custom_properties == {"Their note": "kept"}


def test_an_entry_that_its_owner_threw_away_keeps_its_password_when_purged(path: Path) -> None:
    path.write_bytes(edited(with_theirs(), lambda database: database.trash_entry(database.entries[0])))
    store = open_kdbx(path, KEY)
    store.purge(ids(*store.credentials()))
    (login,) = theirs(path).entries
    assert (store.credentials(), login.password, login.group.name) == ([], "hunter2", "Recycle Bin")
    assert login.custom_properties == {"Their note": "kept"}


def test_in_kdbx_3_as_well(path: Path) -> None:
    path.write_bytes(KDBX_3)
    store = open_kdbx(path, KEY)
    store.add(full())
    store.set_state(ids(full()), CredentialState.DELETED, NOW)
    store.purge(ids(full()))
    database = theirs(path)
    assert (store.credentials(), database.entries) == ([], [])
    assert database.tree.getroot().findtext("Root/DeletedObjects/DeletedObject/DeletionTime").endswith("Z")


# --- their writes -----------------------------------------------------------------------------------------------------


def test_a_write_in_place_is_noticed_although_time_and_size_are_the_same(path: Path) -> None:
    store = open_kdbx(path, KEY)
    store.add(plain(user_name="ann"))
    status, size = path.stat(), path.stat().st_size
    for _ in range(200):  # compressed, so not every one has the size
        data = edited(path.read_bytes(), lambda database: database.entries[0].set_custom_property(
            "KPEX_PASSKEY_USERNAME", "bob"))  # fmt: skip
        if len(data) == size:
            break
    else:
        pytest.fail("no write had the size")
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_ino == status.st_ino
    assert store.credentials()[0].user_name == "bob"


def beside(monkeypatch: pytest.MonkeyPatch, path: Path, times: int) -> None:
    """Let another program add an entry after ours has read the database and before it writes, so many times."""
    original, left = kdbx_file.saved, [times]

    def saved(database: Any) -> bytes:
        if left[0]:
            left[0] -= 1
            title = f"Login {left[0]}"
            path.write_bytes(edited(path.read_bytes(), lambda other: other.add_entry(other.root_group, title, "", "")))
        return original(database)

    monkeypatch.setattr(kdbx, "saved", saved)


def test_nothing_is_lost_if_another_program_writes_while_ours_does(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_kdbx(path, KEY)
    beside(monkeypatch, path, 2)
    store.add(plain())
    assert sorted(entry.title for entry in theirs(path).entries) == ["Example", "Login 0", "Login 1"]
    assert store.credentials() == [plain()]


def test_a_program_that_never_stops_writing_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_kdbx(path, KEY)
    beside(monkeypatch, path, 99)
    with pytest.raises(VaultError) as caught:
        store.add(plain())
    assert caught.value.reason is VaultProblem.BUSY
    assert store.credentials() == []


# --- what is written is read back -------------------------------------------------------------------------------------


def uncompressed(database: Any) -> None:
    kdbx_file._header(database.kdbx).compression_flags.data.compression = False


def with_chacha20(database: Any) -> None:
    kdbx_file._header(database.kdbx).cipher_id.data = "chacha20"


def with_salsa20_inside(database: Any) -> None:
    database.kdbx.body.payload.inner_header.protected_stream_id.data = "salsa20"


def with_nothing_inside(database: Any) -> None:
    database.kdbx.body.payload.inner_header.protected_stream_id.data = "none"


def with_an_attachment(database: Any) -> None:
    database.entries[0].add_attachment(database.add_binary(bytes(range(256))), "x.bin")


KINDS = [uncompressed, with_chacha20, with_salsa20_inside, with_nothing_inside, with_an_attachment]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_database_is_written_and_read_back(path: Path, kind: Any) -> None:
    path.write_bytes(edited(with_theirs(Odd="a\r\n\tb <&> \u00e4"), kind))
    store = open_kdbx(path, KEY)
    store.add(full(credential_id=b"new"))
    assert len(open_kdbx(path, KEY).credentials()) == 2
    entry = theirs(path).entries[0]
    assert (entry.password, entry.get_custom_property("Odd")) == ("hunter2", "a\r\n\tb <&> \u00e4")


def test_kdbx_3_without_compression_is_read_back(path: Path) -> None:
    path.write_bytes(edited(KDBX_3, uncompressed))
    open_kdbx(path, KEY).add(plain())
    assert open_kdbx(path, KEY).credentials() == [plain()]


def lose_an_entry(root: Any) -> None:
    entry = root.find(".//Entry")
    entry.getparent().remove(entry)


def change_a_secret(root: Any) -> None:
    next(value for value in root.iterfind(".//Value[@Protected='True']") if value.text).text += "x"


@pytest.mark.parametrize("harm", [lose_an_entry, change_a_secret], ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("data", [EMPTY, KDBX_3], ids=["4", "3"])
def test_a_library_that_writes_something_else_is_noticed(
    path: Path, data: bytes, harm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(data)
    store = open_kdbx(path, KEY)
    store.add(plain())
    before = path.read_bytes()
    original = pykeepass.PyKeePass.save

    def save(database: Any, buffer: io.BytesIO, transformed_key: bytes) -> None:
        other = pykeepass.PyKeePass(io.BytesIO(before), password="password")
        harm(other.tree.getroot())
        original(other, buffer, transformed_key=transformed_key)

    with monkeypatch.context() as patch:
        patch.setattr(pykeepass.PyKeePass, "save", save)
        with pytest.raises(VaultError):
            store.keep_setting("x", b"y")
        with pytest.raises(VaultError):
            store.note_use(plain().credential_id, NOW)
    assert path.read_bytes() == before


@pytest.mark.parametrize("data", [EMPTY, KDBX_3], ids=["4", "3"])
def test_damage_in_what_was_written_is_noticed(data: bytes) -> None:
    database = kdbx_file.open_database(data, KEY)
    add_theirs(database)
    data, key = kdbx_file.saved(database), database.transformed_key
    whole = kdbx_file._read_back(data, key)
    assert whole is not None
    for place in range(0, len(data) - 16, 41):  # at the end of version 3 is padding that nothing protects
        damaged = bytearray(data)
        damaged[place] ^= 1
        assert kdbx_file._read_back(bytes(damaged), key) != whole, place


# --- how much work ----------------------------------------------------------------------------------------------------


def test_the_key_is_derived_once_for_the_process_while_the_salt_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pykeepass.kdbx_parsing import kdbx4

    derivations: list[int] = []
    original = kdbx4.argon2.low_level.hash_secret_raw

    def counted(**given: Any) -> Any:
        derivations.append(1)
        return original(**given)

    monkeypatch.setattr(kdbx4.argon2.low_level, "hash_secret_raw", counted)
    store = open_kdbx(path, KEY)
    store.add(plain())
    store.note_use(plain().credential_id, NOW)
    assert len(derivations) == 1
    other = open_kdbx(path, KEY)
    other.add(plain(number=2))
    assert len(derivations) == 2
    assert len(store.credentials()) == 2
    assert len(derivations) == 2
    path.write_bytes(edited(path.read_bytes(), lambda database: None))  # with a new salt
    del derivations[:]
    assert len(store.credentials()) == 2
    assert len(derivations) == 1


def test_a_changed_password_is_noticed(path: Path) -> None:
    store = open_kdbx(path, KEY)

    def rekey(database: Any) -> None:
        database.password = "another"

    path.write_bytes(edited(EMPTY, rekey))
    with pytest.raises(VaultError):
        store.credentials()


def test_only_what_is_asked_for_is_decoded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_kdbx(path, KEY)
    store.add_all([plain(number=number, rp_id=f"site{number % 10}.example") for number in range(1, 60)])
    again = open_kdbx(path, KEY)
    decoded: list[Any] = []
    original = kdbx_entry.to_credential

    def counted(entry: Any, *, absent_flags: bool, binned: bool) -> Credential:
        decoded.append(entry)
        return original(entry, absent_flags=absent_flags, binned=binned)

    monkeypatch.setattr(kdbx_entry, "to_credential", counted)
    assert len(again.credentials("site3.example")) == 6
    assert len(decoded) == 6
    again.note_use(plain(number=3).credential_id, NOW)
    assert again.find(plain(number=3).credential_id) is not None
    assert len(again.credentials("site3.example")) == 6
    assert len(decoded) == 7


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.set_state([b"unknown"], CredentialState.DELETED, NOW),
        lambda store: store.note_use(b"unknown", NOW),
        lambda store: store.update(plain(credential_id=b"unknown")),
        lambda store: store.purge([b"unknown"]),
        lambda store: store.add_all([]),
        lambda store: store.keep_setting("none", None),
    ],
    ids=["state", "use", "update", "purge", "add", "setting"],
)
def test_what_changes_nothing_writes_nothing(path: Path, change: Any) -> None:
    store = open_kdbx(path, KEY)
    store.add(plain())
    before = path.stat()
    change(store)
    assert path.stat().st_ino == before.st_ino
    assert store.credentials() == [plain()]


def test_a_closed_store_is_of_no_use(path: Path) -> None:
    with open_kdbx(path, KEY) as store:
        assert store.verifies
    assert not KdbxStore.verifies.fget(store)  # type: ignore[attr-defined] # a property has one
    with pytest.raises(VaultError):
        store.credentials()


def test_read_kdbx_leaves_out_what_is_in_the_bin_at_any_depth(path: Path) -> None:
    def edit(database: Any) -> None:
        database.trash_entry(add_theirs(database))
        below = database.add_group(database.recyclebin_group, "below")
        database.move_entry(database.entries[0], below)

    data = edited(EMPTY, edit)
    assert (read_kdbx(data, KEY).credentials, read_kdbx(data, KEY).report.others) == ((), 0)
    with pytest.raises(PortabilityError):
        read_kdbx(data[:-1], DatabaseKey("password"))
