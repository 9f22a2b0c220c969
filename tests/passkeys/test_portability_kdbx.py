"""KeePass databases: attributes of the KeePassXC family, a database as the store of the phone, hostile databases."""

from __future__ import annotations

import io
import os
import stat
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pykeepass", reason="needs the extra kdbx")

import pykeepass

from hybrid.errors import PortabilityError, PortabilityProblem, VaultError, VaultProblem
from hybrid.passkeys import kdbx, kdbx_entry, kdbx_file
from hybrid.passkeys.kdbx import DatabaseKey, KdbxStore, open_kdbx, read_kdbx, write_kdbx
from hybrid.passkeys.portability import (
    Exported,
    Imported,
    LeftOut,
    Loss,
    Report,
    b64url,
    import_into,
    pem_of,
    write_private,
)
from hybrid.passkeys.store import Credential, CredentialState, CredentialStore
from tests.passkeys.portability_rig import DATA, NOW, der, full, plain, private_key

KEY = DatabaseKey("password")
EMPTY = (DATA / "empty.kdbx").read_bytes()  # ours: KDBX 4, password "password", Argon2id with next to no work
KDBX_3 = (DATA / "empty-3.kdbx").read_bytes()  # made by KeePassXC 2.7.4, the same password, ten rounds of AES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.kdbx"
    path.write_bytes(EMPTY)
    return path


@pytest.fixture
def store(path: Path) -> KdbxStore:
    return open_kdbx(path, KEY)


def edited(data: bytes, edit: Any) -> bytes:
    """The database after `edit` by another program, here pykeepass alone."""
    database = pykeepass.PyKeePass(io.BytesIO(data), password="password")
    edit(database)
    out = io.BytesIO()
    database.save(out)
    return out.getvalue()


THEIRS = {
    "KPEX_PASSKEY_CREDENTIAL_ID": (b64url((1).to_bytes(32, "big")), True),
    "KPEX_PASSKEY_PRIVATE_KEY_PEM": (pem_of(der(private_key())), True),
    "KPEX_PASSKEY_RELYING_PARTY": ("example.com", False),
    "KPEX_PASSKEY_USER_HANDLE": (b64url(b"user-1"), True),
    "KPEX_PASSKEY_USERNAME": ("ann", False),
    "KPEX_PASSKEY_FLAG_BE": ("1", False),
    "KPEX_PASSKEY_FLAG_BS": ("1", False),
}


def add_theirs(database: Any, **changes: str | None) -> Any:
    """An entry as KeePassXC makes it; None leaves an attribute out."""
    entry = database.add_entry(database.root_group, "Example (Passkey)", "ann", "hunter2", url="https://example.com")
    entry.tags = ["mine", "Passkey"]
    attributes = {name: value for name, (value, _) in THEIRS.items()} | {"Their note": "kept"} | changes
    for name, value in attributes.items():
        if value is not None:
            entry.set_custom_property(name, value, protect=THEIRS.get(name, ("", False))[1])
    return entry


def with_theirs(**changes: str | None) -> bytes:
    return edited(EMPTY, lambda database: add_theirs(database, **changes))


# --- their entries ---------------------------------------------------------------------------------------------------


def test_an_entry_of_keepassxc_is_read() -> None:
    imported = read_kdbx(with_theirs(), KEY)
    (credential,) = imported.credentials
    assert credential == plain(
        rp_name="",
        user_display_name="",
        created_at=credential.created_at,
        modified_at=credential.modified_at,
        origin_store="kdbx",
    )
    assert credential.created_at > 1_700_000_000
    assert (imported.report.others, imported.report.findings) == (0, [])


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"KPEX_PASSKEY_GENERATED_USER_ID": "AQI"}, "credential_id", b"\x01\x02"),  # wins, as in KeePassXC
        ({"KPEX_PASSKEY_GENERATED_USER_ID": "AQI", "KPEX_PASSKEY_CREDENTIAL_ID": None}, "credential_id", b"\x01\x02"),
        ({"KPXC_PASSKEY_USERNAME": "bob"}, "user_name", "bob"),
        ({"KPXC_PASSKEY_USERNAME": "bob", "KPEX_PASSKEY_USERNAME": None}, "user_name", "bob"),
        ({"KPEX_PASSKEY_FLAG_BE": "true", "KPEX_PASSKEY_FLAG_BS": "0"}, "backed_up", False),
        ({"KPEX_PASSKEY_FLAG_BE": "true"}, "backup_eligible", True),
        ({"KPEX_PASSKEY_FLAG_BE": "0"}, "backup_eligible", False),
        ({"KPEX_PASSKEY_FLAG_BE": "0"}, "backed_up", False),  # never without the other
        ({"KPEX_PASSKEY_PRF": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}, "secret_uv", bytes(range(32))),
    ],
    ids=str,
)
def test_names_and_flags_of_the_family(changes: dict[str, str | None], field: str, value: object) -> None:
    (credential,) = read_kdbx(with_theirs(**changes), KEY).credentials
    assert getattr(credential, field) == value


@pytest.mark.parametrize("absent", [True, False])
def test_absent_flags_are_what_the_person_says(absent: bool) -> None:
    data = with_theirs(KPEX_PASSKEY_FLAG_BE=None, KPEX_PASSKEY_FLAG_BS=None)
    (credential,) = read_kdbx(data, KEY, absent_flags=absent).credentials
    assert (credential.backup_eligible, credential.backed_up) == (absent, absent)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"KPEX_PASSKEY_PRIVATE_KEY_PEM": "none"}, LeftOut.KEY),
        ({"KPEX_PASSKEY_CREDENTIAL_ID": None}, LeftOut.CREDENTIAL_ID),
        ({"KPEX_PASSKEY_CREDENTIAL_ID": "%"}, LeftOut.CREDENTIAL_ID),
        ({"KPEX_PASSKEY_RELYING_PARTY": "https://example.com"}, LeftOut.RP_ID),
        ({"KPEX_PASSKEY_USER_HANDLE": "%"}, LeftOut.USER_HANDLE),
        ({"KPEX_PASSKEY_PRF": "%"}, LeftOut.MALFORMED),
        ({"FIDO_HYBRID_STATE": "lost"}, LeftOut.MALFORMED),
        ({"FIDO_HYBRID_LARGE_BLOB": "x"}, LeftOut.MALFORMED),
    ],
    ids=str,
)
def test_an_entry_that_cannot_be_used_is_named(changes: dict[str, str | None], why: LeftOut, path: Path) -> None:
    data = with_theirs(**changes)
    imported = read_kdbx(data, KEY)
    assert (imported.credentials, [finding.what for finding in imported.report.findings]) == ((), [why])
    path.write_bytes(data)
    store = open_kdbx(path, KEY)
    assert store.credentials() == []
    assert [finding.what for finding in store.unreadable.findings] == [why]


def test_history_and_recycle_bin_are_not_imported() -> None:
    def edit(database: Any) -> None:
        entry = add_theirs(database)
        entry.save_history()
        database.trash_entry(entry)

    imported = read_kdbx(edited(EMPTY, edit), KEY)
    assert (imported.credentials, imported.report.others) == ((), 0)


def test_entries_without_a_passkey_are_counted() -> None:
    data = edited(EMPTY, lambda database: database.add_entry(database.root_group, "Login", "a", "b"))
    assert read_kdbx(data, KEY).report.others == 1


# --- export ----------------------------------------------------------------------------------------------------------


def written(*credentials: Credential) -> Exported:
    return write_kdbx(credentials, KEY, cost=kdbx.KdfCost(1 << 13, 1, 1))


@pytest.mark.slow  # a new database begins with the blank one of pykeepass, whose key takes a second to derive
def test_a_new_database_holds_everything() -> None:
    given = full(algorithm=-9, sign_count=3, state=CredentialState.UNCONFIRMED, discoverable=False)
    exported = written(given, plain("ed25519", 2), plain("rsa", 3), plain(number=4, state=CredentialState.DELETED))
    assert exported.report.losses == []
    assert [finding.what for finding in exported.report.left_out] == [LeftOut.STATE]
    assert Loss.PRF in [finding.what for finding in exported.report.findings if finding.kept_for_us]
    imported = read_kdbx(exported.data, KEY)
    assert imported.credentials == (
        replace(given, origin_store="kdbx", sign_count=None),
        plain("ed25519", 2, origin_store="kdbx"),
        plain("rsa", 3, origin_store="kdbx"),
    )
    with pytest.raises(PortabilityError):
        read_kdbx(exported.data, DatabaseKey("other"))


def test_a_name_that_xml_cannot_hold_is_named() -> None:
    lost, _ = kdbx_entry.losses_for(plain(user_name="a\x01b"))
    assert lost == [Loss.NAME]


def test_an_existing_database_is_brought_up_to_date() -> None:
    before = with_theirs(KPEX_PASSKEY_PRF="AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    exported = write_kdbx([plain(user_name="bob", user_display_name=""), plain(number=2)], KEY, into=before)
    database = pykeepass.PyKeePass(io.BytesIO(exported.data), password="password")
    first, second = database.entries
    assert (first.title, first.password, len(first.history)) == ("Example (Passkey)", "hunter2", 1)
    assert first.get_custom_property("KPEX_PASSKEY_USERNAME") == "bob"
    assert first.get_custom_property("Their note") == "kept"
    assert second.get_custom_property("KPEX_PASSKEY_USER_HANDLE") == b64url(b"user-2")
    assert (exported.report.carried, exported.report.losses) == (2, [])


# --- as a store ------------------------------------------------------------------------------------------------------


def as_store(store: CredentialStore) -> CredentialStore:
    return store


def test_it_is_a_store(store: KdbxStore, path: Path) -> None:
    assert as_store(store).synced
    assert (store.label, repr(store)) == (str(path), f"<KdbxStore {path}>")
    assert store.credentials() == []
    assert store.find(b"none") is None


def test_everything_comes_back_in_another_process(store: KdbxStore, path: Path) -> None:
    given = [
        full(sign_count=3, cred_protect=2),
        plain("ed25519", 2, created_at=NOW, backed_up=False),
        plain(number=3, rp_id="other.example", created_at=NOW - 9999, discoverable=False, user_id=b""),
    ]
    for credential in given:
        store.add(credential)
    again = open_kdbx(path, KEY)
    assert again.credentials() == store.credentials() == [given[2], given[0], given[1]]
    assert again.credentials("other.example") == [given[2]]
    assert again.find(given[1].credential_id) == given[1]


@pytest.mark.slow  # begins with pykeepass's blank database, as above
def test_a_store_is_made_if_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "new.kdbx"
    with pytest.raises(PortabilityError):
        open_kdbx(path, KEY)
    open_kdbx(path, KEY, create=True, cost=kdbx.KdfCost(1 << 13, 1, 1)).add(plain())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert open_kdbx(path, KEY, create=True).credentials() == [plain()]
    database = pykeepass.PyKeePass(path, password="password")
    assert (database.version[0], database.kdf_algorithm) == (4, "argon2id")


def test_others_see_the_attributes_protected_where_they_are_secret(store: KdbxStore, path: Path) -> None:
    store.add(full())
    (entry,) = pykeepass.PyKeePass(path, password="password").find_entries(title="Example")
    shown = {name: value for name, value in entry.custom_properties.items() if name in THEIRS}
    assert shown == {name: value for name, (value, _) in THEIRS.items()}
    protected = {name for name in entry.custom_properties if entry.is_custom_property_protected(name)}
    assert protected >= {name for name, (_, secret) in THEIRS.items() if secret}
    assert protected >= {"KPEX_PASSKEY_PRF"} | {
        f"FIDO_HYBRID_{name}" for name in ("SECRET_UV", "SECRET_NO_UV", "CRED_BLOB", "LARGE_BLOB", "LARGE_BLOB_KEY")
    }
    assert entry.tags == ["Passkey"]
    assert entry.uuid.version == 4  # a time and a network card say nothing to anybody
    assert (entry.username, entry.url, entry.group.name) == ("ann", "https://example.com", "Passkeys")


def test_a_superseded_passkey_lies_in_the_bin_and_comes_back(store: KdbxStore, path: Path) -> None:
    old, new = plain(), plain(number=2, created_at=NOW)
    store.add(old)
    store.add(new, superseding=[old.credential_id])
    assert store.find(old.credential_id) == replace(old, state=CredentialState.SUPERSEDED, modified_at=NOW)
    assert [credential.user_id for credential in read_kdbx(path.read_bytes(), KEY).credentials] == [b"user-2"]
    store.set_state([old.credential_id, b"unknown"], CredentialState.ACTIVE, NOW + 1)
    assert store.find(old.credential_id) == replace(old, modified_at=NOW + 1)
    assert len(read_kdbx(path.read_bytes(), KEY).credentials) == 2


def test_an_entry_that_others_threw_away_is_deleted(path: Path) -> None:
    path.write_bytes(edited(with_theirs(), lambda database: database.trash_entry(database.entries[0])))
    (credential,) = open_kdbx(path, KEY).credentials()
    assert credential.state is CredentialState.DELETED


def test_without_a_recycle_bin_the_state_is_an_attribute(path: Path) -> None:
    def edit(database: Any) -> None:
        database.tree.getroot().find("Meta/RecycleBinEnabled").text = "False"

    path.write_bytes(edited(EMPTY, edit))
    store = open_kdbx(path, KEY)
    store.add(plain())
    store.set_state([plain().credential_id], CredentialState.DELETED, NOW)
    assert open_kdbx(path, KEY).credentials()[0].state is CredentialState.DELETED
    assert pykeepass.PyKeePass(path, password="password").entries[0].group.name == "Passkeys"


def test_a_change_goes_to_the_history_and_leaves_what_is_theirs(path: Path) -> None:
    path.write_bytes(with_theirs(KPXC_PASSKEY_USERNAME="ann"))
    store = open_kdbx(path, KEY)
    (credential,) = store.credentials()
    store.update(replace(credential, user_name="bob", user_display_name="Bob", modified_at=NOW))
    assert store.credentials()[0].user_name == "bob"
    (entry,) = pykeepass.PyKeePass(path, password="password").entries
    assert (entry.title, entry.username, entry.password) == ("Example (Passkey)", "ann", "hunter2")
    assert entry.get_custom_property("Their note") == "kept"
    assert entry.tags == ["mine", "Passkey"]
    assert entry.get_custom_property("KPEX_PASSKEY_USERNAME") == "bob"
    assert [old.get_custom_property("KPEX_PASSKEY_USERNAME") for old in entry.history] == ["ann"]
    assert entry.history[0].get_custom_property("FIDO_HYBRID_USER_DISPLAY_NAME") is None


@pytest.mark.parametrize(("most", "kept"), [("2", 2), ("0", 0), ("-1", 5), ("", 5)])
def test_the_history_is_as_long_as_the_database_says(path: Path, most: str, kept: int) -> None:
    def edit(database: Any) -> None:
        add_theirs(database)
        database.tree.getroot().find("Meta/HistoryMaxItems").text = most

    path.write_bytes(edited(EMPTY, edit))
    store = open_kdbx(path, KEY)
    for number in range(5):
        store.update(replace(store.credentials()[0], user_name=f"ann{number}"))
    (entry,) = pykeepass.PyKeePass(path, password="password").entries
    assert len(entry.history) == kept
    if kept == 2:
        assert [old.get_custom_property("KPEX_PASSKEY_USERNAME") for old in entry.history] == ["ann2", "ann3"]


def test_a_use_is_counted_without_a_history(store: KdbxStore, path: Path) -> None:
    store.add(plain(state=CredentialState.UNCONFIRMED))
    store.note_use(plain().credential_id, NOW)
    store.note_use(plain().credential_id, NOW + 5)
    assert store.credentials() == [plain(use_count=2, last_used_at=NOW + 5, modified_at=NOW)]
    (entry,) = pykeepass.PyKeePass(path, password="password").entries
    assert entry.history == []


def test_settings_are_kept_beside(store: KdbxStore, path: Path) -> None:
    store.keep_setting("pin", b"\x00\xff")
    store.keep_setting("other", b"x")
    store.keep_setting("pin", b"\x00\xfe")
    again = open_kdbx(path, KEY)
    assert (again.setting("pin"), again.setting("other"), again.setting("none")) == (b"\x00\xfe", b"x", None)
    again.keep_setting("pin", None)
    assert store.setting("pin") is None


def test_what_others_save_meanwhile_is_kept(store: KdbxStore, path: Path) -> None:
    store.add(plain())
    changed = edited(path.read_bytes(), lambda database: database.add_entry(database.root_group, "Login", "a", "b"))
    replacement = path.with_suffix(".new")
    replacement.write_bytes(changed)
    os.replace(replacement, path)
    store.add(plain(number=2))
    titles = sorted(entry.title for entry in pykeepass.PyKeePass(path, password="password").entries)
    assert titles == ["Example", "Example", "Login"]


def test_the_mode_of_the_file_stays(store: KdbxStore, path: Path) -> None:
    path.chmod(0o640)
    store.add(plain())
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_to_a_database_stays_one(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    open_kdbx(tmp_path / "link", KEY).add(plain())
    assert (tmp_path / "link").is_symlink()
    assert len(open_kdbx(path, KEY).credentials()) == 1


def test_a_write_that_fails_changes_nothing(store: KdbxStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full_disk(*_: object, **__: object) -> None:
        raise PortabilityError("no space", PortabilityProblem.ACCESS)

    with monkeypatch.context() as patch:
        patch.setattr(kdbx, "write_private", full_disk)
        with pytest.raises(VaultError):
            store.add(plain())
    assert path.read_bytes() == before
    assert store.credentials() == []
    store.add(plain(number=2))  # and what failed does not come along with the next one
    assert [one.user_id for one in open_kdbx(path, KEY).credentials()] == [b"user-2"]


def test_many_are_one_write(store: KdbxStore, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[Path] = []

    def counted(path: Path, data: bytes, *, overwrite: bool, mode: int) -> None:
        writes.append(path)
        write_private(path, data, overwrite=overwrite, mode=mode)

    monkeypatch.setattr(kdbx, "write_private", counted)
    report = import_into(store, Imported(tuple(plain(number=n) for n in range(1, 20)), Report("x")))
    assert (report.carried, len(writes), len(store.credentials())) == (19, 1, 19)


def test_a_lost_or_damaged_database_is_a_vault_error(store: KdbxStore, path: Path) -> None:
    path.write_bytes(EMPTY[:-1])
    with pytest.raises(VaultError) as caught:
        store.credentials()
    assert caught.value.reason is VaultProblem.CORRUPT
    path.unlink()
    with pytest.raises(VaultError) as caught:
        store.credentials()
    assert caught.value.reason is VaultProblem.MISSING


def test_no_secret_in_repr() -> None:
    assert "pass" not in repr(DatabaseKey("password", b"passfile")).lower()


# --- hostile ---------------------------------------------------------------------------------------------------------


def problem_of(data: bytes, key: DatabaseKey = KEY) -> PortabilityProblem:
    with pytest.raises(PortabilityError) as caught:
        read_kdbx(data, key)
    return caught.value.reason


def test_a_wrong_password_is_told_from_damage() -> None:
    assert problem_of(EMPTY, DatabaseKey("other")) is PortabilityProblem.KEY
    assert problem_of(EMPTY, DatabaseKey("password", b"file")) is PortabilityProblem.KEY
    assert problem_of(EMPTY[:-40]) is PortabilityProblem.MALFORMED
    assert problem_of(b"") is PortabilityProblem.FORMAT
    assert problem_of(b"PK\x03\x04 something else") is PortabilityProblem.FORMAT


def test_every_flipped_byte_is_refused() -> None:
    for place in range(0, len(EMPTY), 7):
        damaged = bytearray(EMPTY)
        damaged[place] ^= 0x10
        assert problem_of(bytes(damaged)) in PortabilityProblem


def test_every_short_file_is_refused() -> None:
    for size in range(0, len(EMPTY), 29):
        assert problem_of(EMPTY[:size]) in PortabilityProblem


def test_another_version_is_named() -> None:
    for major in (2, 5):
        other = bytearray(EMPTY)
        other[10:12] = major.to_bytes(2, "little")
        assert problem_of(bytes(other)) is PortabilityProblem.VERSION


@pytest.mark.parametrize(
    ("name", "size", "value"),
    [(b"M", 8, 1 << 40), (b"I", 8, 1 << 40), (b"P", 4, 1 << 20)],
    ids=["memory", "rounds", "lanes"],
)
def test_absurd_work_is_refused_before_it_is_done(name: bytes, size: int, value: int) -> None:
    """The checksum over the header is no secret, so that anybody can ask for this work."""
    import hashlib

    start = EMPTY.index(b"\x01\x00\x00\x00" + name + size.to_bytes(4, "little")) + 9
    head_size = EMPTY.index(hashlib.sha256(EMPTY[: _head_size()]).digest())
    forged = bytearray(EMPTY)
    forged[start : start + size] = value.to_bytes(size, "little")
    forged[head_size : head_size + 32] = hashlib.sha256(forged[:head_size]).digest()
    assert problem_of(bytes(forged)) is PortabilityProblem.TOO_LARGE


def test_kdbx_3_is_a_store_as_well(tmp_path: Path) -> None:
    path = tmp_path / "old.kdbx"
    path.write_bytes(KDBX_3)
    store = open_kdbx(path, KEY)
    store.add(full())
    store.note_use(full().credential_id, NOW)
    store.set_state([full().credential_id], CredentialState.HIDDEN, NOW + 1)
    wanted = full(use_count=8, last_used_at=NOW, modified_at=NOW + 1, state=CredentialState.HIDDEN)
    assert open_kdbx(path, KEY).credentials() == [wanted]
    assert pykeepass.PyKeePass(path, password="password").version[0] == 3
    assert problem_of(path.read_bytes(), DatabaseKey("other")) is PortabilityProblem.KEY


def test_kdbx_3_is_held_to_the_same_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = edited(
        KDBX_3, lambda database: database.add_entry(database.root_group, "x", "y", "z", notes="A" * (3 << 20))
    )
    assert read_kdbx(bomb, KEY).report.others == 1
    with monkeypatch.context() as patch:
        patch.setattr(kdbx_file, "_MAX_INFLATED", 1 << 20)
        assert problem_of(bomb) is PortabilityProblem.TOO_LARGE
    rounds = bytearray(KDBX_3)
    start = rounds.index(b"\x06\x08\x00") + 3
    rounds[start : start + 8] = (1 << 50).to_bytes(8, "little")
    assert problem_of(bytes(rounds)) is PortabilityProblem.TOO_LARGE


def _head_size() -> int:
    return len(pykeepass.PyKeePass(io.BytesIO(EMPTY), password="password").kdbx.header.data)


def test_a_database_that_inflates_to_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def edit(database: Any) -> None:
        database.add_entry(database.root_group, "x", "y", "z", notes="A" * (3 << 20))

    bomb = edited(EMPTY, edit)
    assert len(bomb) < 1 << 20 < len(zlib.compress(b"")) + (3 << 20)
    assert read_kdbx(bomb, KEY).report.others == 1
    monkeypatch.setattr(kdbx_file, "_MAX_INFLATED", 1 << 20)
    assert problem_of(bomb) is PortabilityProblem.TOO_LARGE


def test_a_key_file_opens_with_and_without_a_password(tmp_path: Path) -> None:
    key = DatabaseKey(None, b"bytes of a key file")

    def rekey(database: Any) -> None:
        database.password, database.keyfile = None, io.BytesIO(b"bytes of a key file")

    path = tmp_path / "keys.kdbx"
    path.write_bytes(edited(EMPTY, rekey))
    open_kdbx(path, key).add(plain())
    assert len(open_kdbx(path, key).credentials()) == 1
    assert problem_of(path.read_bytes()) is PortabilityProblem.KEY
