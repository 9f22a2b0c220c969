"""Generations: the one before is kept, an old one that was put back is noticed, other processes see the new one.

And what makes a generation in one go: migration from version 1, another key.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hybrid.errors import VaultError, VaultProblem
from hybrid.passkeys import vault_disk, vault_file
from hybrid.passkeys.store import CredentialState
from hybrid.passkeys.vault import Vault, open_vault
from hybrid.passkeys.vault_file import KdfCost
from hybrid.passkeys.vault_keys import FileKey, NoKey, PassphraseKey, VaultKey
from tests.passkeys.test_vault import _GOOD, _NONE, credential, write

CHEAP = KdfCost(8, 1, 1)
KEY = PassphraseKey("correct horse")


def opened(path: Path, key: VaultKey = KEY) -> Vault:
    return open_vault(path, key, cost=CHEAP)


def ids(vault: Vault) -> list[bytes]:
    return [one.credential_id for one in vault.credentials()]


# --- the one before ---------------------------------------------------------------------------------------------------


def test_one_generation_is_kept(tmp_path: Path) -> None:
    vault = opened(tmp_path / "vault")
    contents = []
    for number in range(3):
        contents.append((tmp_path / "vault").read_bytes())
        vault.add(credential(number))
        assert (tmp_path / "vault.previous").read_bytes() == contents[-1]
        assert vault.previous_generation() == number
    assert (tmp_path / "vault.previous").stat().st_mode & 0o777 == 0o600
    (tmp_path / "vault.previous").rename(tmp_path / "back")
    assert ids(opened(tmp_path / "back")) == [b"id0", b"id1"]


def test_kept_where_files_have_one_name_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    vault = opened(tmp_path / "vault")
    before = (tmp_path / "vault").read_bytes()
    vault.add(credential())
    assert (tmp_path / "vault.previous").read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "vault",
        "vault.lock",
        "vault.previous",
        "vault.seen",
    ]


def test_a_lost_vault_is_not_begun_anew_over_its_last_copy(tmp_path: Path) -> None:
    opened(tmp_path / "vault").add(credential())
    (tmp_path / "vault").unlink()
    with pytest.raises(VaultError) as caught:
        opened(tmp_path / "vault")
    assert caught.value.reason is VaultProblem.LOST
    assert not (tmp_path / "vault").exists()


def test_the_one_before_is_checked(tmp_path: Path) -> None:
    vault = opened(tmp_path / "vault")
    assert vault.previous_generation() is None
    vault.add(credential())
    assert vault.previous_generation() == 0
    previous = tmp_path / "vault.previous"
    previous.write_bytes(previous.read_bytes()[:-1])
    assert vault.previous_generation() is None


# --- an old one that was put back -------------------------------------------------------------------------------------


def test_t12_an_old_file_that_was_put_back_is_noticed_once(tmp_path: Path) -> None:
    path = tmp_path / "vault"
    vault = opened(path)
    vault.add(credential(1))
    old = path.read_bytes()
    for number in (2, 3):
        vault.add(credential(number))
    assert opened(path).restored_from is None
    path.write_bytes(old)
    restored = opened(path)
    assert (restored.generation, restored.restored_from) == (1, 3)
    assert ids(restored) == [b"id1"]  # opened all the same: it may be all there is
    assert vault.credentials()
    assert vault.restored_from == 3  # by those that were open, too
    restored.add(credential(4))
    assert (opened(path).generation, opened(path).restored_from) == (4, None)


@pytest.mark.parametrize("content", [b"", b"x", b"x y", b"\xff" * 200])
def test_what_was_seen_is_a_hint_that_may_get_lost(tmp_path: Path, content: bytes) -> None:
    opened(tmp_path / "vault").add(credential())
    (tmp_path / "vault.seen").write_bytes(content)
    vault = opened(tmp_path / "vault")
    assert vault.restored_from is None
    vault.add(credential(2))
    (tmp_path / "vault.seen").unlink()
    (tmp_path / "vault.seen").mkdir()
    opened(tmp_path / "vault").add(credential(3))


def test_another_vault_of_the_same_name_is_not_an_old_one(tmp_path: Path) -> None:
    vault = opened(tmp_path / "vault")
    for number in range(3):
        vault.add(credential(number))
    opened(tmp_path / "other").add(credential())
    (tmp_path / "other").replace(tmp_path / "vault")
    assert opened(tmp_path / "vault").restored_from is None


# --- other processes --------------------------------------------------------------------------------------------------


def test_what_another_process_wrote_is_read(tmp_path: Path) -> None:
    one, other = opened(tmp_path / "vault"), opened(tmp_path / "vault")
    for number in range(4):
        (one, other)[number % 2].add(credential(number))
        assert ids(one) == ids(other) == [b"id%d" % seen for seen in range(number + 1)]
    one.set_state([b"id3"], CredentialState.DELETED, 5)
    found = other.find(b"id3")
    assert found is not None
    assert found.state is CredentialState.DELETED


def test_a_file_that_has_not_changed_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the thousandth question about ten thousand passkeys costs as much as about ten."""
    path = tmp_path / "vault"
    opened(path).add(credential())
    vault = opened(path)
    real, reads = vault_disk.read_all, []

    def read_all(descriptor: int, of: Path) -> bytes:
        reads.append(of)
        return real(descriptor, of)

    monkeypatch.setattr(vault_disk, "read_all", read_all)
    for _ in range(5):
        vault.credentials("example.com")
        vault.find(b"id1")
        vault.setting("x")
    vault.note_use(b"id1", 5)
    vault.credentials()
    assert reads == []
    opened(path).note_use(b"id1", 6)
    reads.clear()
    vault.credentials()
    vault.credentials()
    assert reads == [path]


def test_the_lock_is_held_for_one_write_only(tmp_path: Path) -> None:
    vault = opened(tmp_path / "vault")
    vault.add(credential())
    with vault_disk.locked(tmp_path / "vault"):
        assert vault.find(b"id1") == credential()


def test_a_change_of_one_kind_leaves_the_others_where_they_are(tmp_path: Path) -> None:
    vault = opened(tmp_path / "vault")
    with vault.change() as records:
        records.extend({"kind": kind, "n": number} for number, kind in enumerate(("a", "b", "a", "b", "a")))
    with vault.change("a") as records:
        assert [record["n"] for record in records] == [0, 2, 4]
        records[1]["n"] = 20
        del records[0]
        records.append({"kind": "a", "n": 5})
    assert [record["n"] for record in vault.records()] == [1, 20, 3, 4, 5]
    assert [record["n"] for record in vault.records("a")] == [20, 4, 5]


def test_records_are_copies(tmp_path: Path) -> None:
    vault = opened(tmp_path / "vault")
    with vault.change() as records:
        records.append({"kind": "link", "nested": {"a": [1]}})
    vault.records()[0]["nested"]["a"].append(2)
    assert vault.records()[0]["nested"] == {"a": [1]}


def test_purged_passkeys_are_gone_with_the_next_write(tmp_path: Path) -> None:
    vault = opened(tmp_path / "vault")
    for number in (1, 2, 3):
        vault.add(credential(number))
    vault.purge([b"id2", b"unknown"])
    assert ids(vault) == [b"id1", b"id3"]
    (tmp_path / "vault.previous").rename(tmp_path / "back")
    assert b"id2" in ids(opened(tmp_path / "back"))


# --- version 1 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [NoKey(), KEY], ids=["none", "passphrase"])
def test_version_1_is_migrated_with_a_copy_kept(tmp_path: Path, key: VaultKey) -> None:
    path = tmp_path / "vault"
    link = {"kind": "link", "nested": {"a": [1, None, True]}}
    write(path, _NONE, {1: 41, 2: [_GOOD, link], 7: "later"})
    old = path.read_bytes()
    vault = opened(path, key)
    assert vault.migrated_copy == tmp_path / "vault.v1"
    assert (tmp_path / "vault.v1").read_bytes() == old
    assert (tmp_path / "vault.v1").stat().st_mode & 0o777 == 0o600
    assert path.read_bytes()[:9] == b"FHVAULT\x00\x02"
    assert vault.generation == 42
    assert vault.records() == [_GOOD, link]
    assert not (
        tmp_path / "vault.previous"
    ).exists()  # it would be one more clear copy, and one that nobody was told of
    again = opened(path, key)
    assert (again.migrated_copy, again.records()) == (None, [_GOOD, link])
    again.add(credential())
    assert again.credentials("e")[0].credential_id == b"i"


def test_a_copy_of_an_earlier_migration_is_not_overwritten(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / "vault.previous").unlink(missing_ok=True)
        write(tmp_path / "vault", _NONE, {1: number, 2: []})
        opened(tmp_path / "vault")
    assert (tmp_path / "vault.v1").read_bytes() != (tmp_path / "vault.v1.1").read_bytes()


def test_a_migration_that_did_not_come_to_its_end_leaves_one_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vault"
    write(path, _NONE, {1: 0, 2: [_GOOD]})

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vault_disk, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            opened(path)
    assert opened(path).migrated_copy == tmp_path / "vault.v1"
    assert not (tmp_path / "vault.v1.0").exists()
    assert not (tmp_path / "vault.v1.1").exists()


def test_two_that_migrate_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vault"
    write(path, _NONE, {1: 0, 2: [_GOOD]})
    real = vault_file.parse_head
    raced: list[bool] = []

    def slow(data: bytes) -> vault_file.Head:
        head = real(data)
        if not raced:
            raced.append(True)
            opened(path).add(credential())  # the other one was faster
        return head

    monkeypatch.setattr(vault_file, "parse_head", slow)
    vault = opened(path)
    assert ids(vault) == [b"i", b"id1"]
    assert vault.migrated_copy is None
    assert not (tmp_path / "vault.v1.1").exists()


def test_version_1_put_back_under_an_open_vault_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "vault"
    vault = opened(path)
    write(path, _NONE, {1: 0, 2: [_GOOD]})
    old = path.read_bytes()
    with pytest.raises(VaultError):
        vault.add(credential())
    assert path.read_bytes() == old


# --- another key ------------------------------------------------------------------------------------------------------


def test_another_passphrase_opens_it_and_its_copy(tmp_path: Path) -> None:
    path = tmp_path / "vault"
    vault, other = opened(path), opened(path)
    vault.add(credential())
    data_key = bytes(vault._data_key.value) if vault._data_key else b""
    vault.change_key(PassphraseKey("battery staple"), CHEAP)
    assert vault._data_key is not None
    assert bytes(vault._data_key.value) == data_key
    for name in ("vault", "vault.previous"):
        with pytest.raises(VaultError) as caught:
            opened(tmp_path / name)
        assert caught.value.reason is VaultProblem.KEY
        assert ids(opened(tmp_path / name, PassphraseKey("battery staple"))) == [b"id1"]
    other.add(credential(2))  # who had it open goes on
    assert ids(opened(path, PassphraseKey("battery staple"))) == [b"id1", b"id2"]
    assert not list(tmp_path.glob(".*.tmp"))


def test_from_no_key_to_a_key_and_back(tmp_path: Path) -> None:
    path = tmp_path / "vault"
    vault = opened(path, NoKey())
    vault.add(credential())
    vault.change_key(FileKey(tmp_path / "key"), CHEAP)
    for name in ("vault", "vault.previous"):
        assert b"key1" not in (tmp_path / name).read_bytes()
    vault.add(credential(2))
    assert ids(opened(path, FileKey(tmp_path / "key"))) == [b"id1", b"id2"]
    opened(path, FileKey(tmp_path / "key")).change_key(NoKey())
    assert ids(opened(path, NoKey())) == [b"id1", b"id2"]
    with pytest.raises(VaultError):  # opened with a key: it does not go on in clear by itself
        vault.add(credential(3))
