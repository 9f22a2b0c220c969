"""The vault file: who may read it, what a crash leaves, what two writers do to each other, what damage says."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import multiprocessing
import os
import stat
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybrid import cbor
from hybrid.errors import VaultError, VaultProblem
from hybrid.passkeys import vault_disk
from hybrid.passkeys.store import Credential, CredentialState, CredentialStore, MemoryStore
from hybrid.passkeys.vault import default_vault_path, open_vault
from hybrid.passkeys.vault_file import MAGIC
from tests.conftest import SOAK
from tests.passkeys.rig import PEER, create, phone, sign_in

ADDED = 1000 if SOAK else 25


def credential(number: int = 1, **changes: Any) -> Credential:
    made = Credential(
        credential_id=b"id%d" % number,
        rp_id="example.com",
        rp_name="Example",
        user_id=b"user%d" % number,
        user_name="ann",
        user_display_name="Ann",
        algorithm=-7,
        private_key=b"key%d" % number,
        created_at=1_800_000_000 + number,
        modified_at=1_800_000_000 + number,
    )
    return replace(made, **changes)


def write(path: Path, header: dict[Any, Any], body: dict[Any, Any], *, version: int = 1) -> None:
    """A file of version 1 made by hand, with a right checksum unless the header brings its own."""
    body_bytes = cbor.encode(body)
    header = {2: hashlib.sha256(body_bytes).digest(), **header}
    path.write_bytes(b"FHVAULT" + version.to_bytes(2, "big") + cbor.encode(header) + body_bytes)
    path.chmod(0o600)


def read(path: Path) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Header and body of a file of version 2 that is not encrypted, its records decoded."""
    data = path.read_bytes()
    header, size = cbor.decode_prefix(data[9:])
    body = cbor.decode(data[9 + size : -32])
    return header, body | {2: [cbor.decode(record) for record in body[2]]}


def problem_of(path: Path) -> VaultProblem:
    with pytest.raises(VaultError) as caught:
        open_vault(path)
    assert caught.value.identifier == f"vault.{caught.value.reason}"
    return caught.value.reason


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CredentialStore:
    return MemoryStore() if request.param == "memory" else open_vault(tmp_path / "vault")


# --- as a store ------------------------------------------------------------------------------------------------------


def test_store_gives_back_what_it_got(store: CredentialStore) -> None:
    first = credential(1)
    second = credential(2, last_used_at=5, use_count=3, backup_eligible=True, backed_up=True)
    other = credential(3, rp_id="example.org", state=CredentialState.HIDDEN)
    for each in (first, second, other):
        store.add(each)
    assert store.credentials("example.com") == [first, second]
    assert store.credentials("example.org") == [other]
    assert store.credentials("example.net") == []


def test_store_archives_with_the_new_one(store: CredentialStore) -> None:
    store.add(credential(1))
    store.add(credential(2))
    store.add(credential(3), superseding=[b"id1", b"unknown"])
    states = [each.state for each in store.credentials("example.com")]
    assert states == [CredentialState.SUPERSEDED, CredentialState.ACTIVE, CredentialState.ACTIVE]
    archived = store.credentials("example.com")[0]
    assert archived == credential(1, state=CredentialState.SUPERSEDED, modified_at=credential(3).created_at)


def test_store_notes_uses(store: CredentialStore) -> None:
    store.add(credential(1, state=CredentialState.UNCONFIRMED))
    store.add(credential(2, state=CredentialState.SUPERSEDED))
    for credential_id in (b"id1", b"id1", b"id2", b"unknown"):
        store.note_use(credential_id, 7)
    first, second = store.credentials("example.com")
    assert (first.state, first.use_count, first.last_used_at) == (CredentialState.ACTIVE, 2, 7)
    assert (second.state, second.use_count) == (CredentialState.SUPERSEDED, 1)


async def test_passkeys_outlive_the_process_that_made_them(tmp_path: Path) -> None:
    path = tmp_path / "vault"
    assert (await phone(open_vault(path)).call(create(), peer=PEER))[0] == 0
    assert (await phone(open_vault(path)).call(sign_in(), peer=PEER))[0] == 0


def test_m11_no_answer_before_the_passkey_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = open_vault(tmp_path / "vault")
    before = (tmp_path / "vault").read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", full)
    assert asyncio.run(phone(vault).call(create(), peer=PEER)) == b"\x28"
    assert (tmp_path / "vault").read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["vault", "vault.lock"]


def test_both_file_and_folder_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = open_vault(tmp_path / "vault")
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_fsync(descriptor)

    def rename(source: Path, target: Path) -> None:
        steps.append(f"rename to {target.name}")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    vault.add(credential())
    assert steps == ["file", "rename to vault.previous", "rename to vault", "folder"]


# --- who may get at it -----------------------------------------------------------------------------------------------


def test_made_if_absent_for_the_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        open_vault(tmp_path / "a" / "b" / "vault")
    finally:
        os.umask(old)
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.rglob("*")}
    assert modes == {"a": 0o700, "b": 0o700, "vault": 0o600, "vault.lock": 0o600}


def test_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_vault_path() == tmp_path / "fido-hybrid" / "passkeys.vault"
    open_vault()
    assert default_vault_path().exists()


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o644, 0o666])
def test_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    vault = open_vault(tmp_path / "vault")
    (tmp_path / "vault").chmod(mode)
    assert problem_of(tmp_path / "vault") is VaultProblem.PERMISSIONS
    with pytest.raises(VaultError):
        vault.add(credential())


FOLDERS = {0o700: None, 0o755: None, 0o1777: None, 0o770: VaultProblem.FOLDER, 0o703: VaultProblem.FOLDER}


@pytest.mark.parametrize(("mode", "problem"), FOLDERS.items(), ids=[oct(mode) for mode in FOLDERS])
def test_folder_that_others_can_write_in(tmp_path: Path, mode: int, problem: VaultProblem | None) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    if problem is None:
        open_vault(folder / "vault")
    else:
        assert problem_of(folder / "vault") is problem
        assert list(folder.iterdir()) == []


def test_what_is_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("folder", "pipe"):
        assert problem_of(tmp_path / name) is VaultProblem.NOT_A_VAULT
    (tmp_path / "file").write_bytes(b"")
    assert problem_of(tmp_path / "file" / "vault") is VaultProblem.ACCESS


def test_symbolic_link_to_a_vault_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "vault")
    open_vault(tmp_path / "link").add(credential())
    assert (tmp_path / "link").is_symlink()
    assert open_vault(tmp_path / "real" / "vault").credentials("example.com") == [credential()]


def test_vault_that_vanishes_is_not_made_again(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "vault")
    (tmp_path / "vault").unlink()
    for use in (lambda: vault.add(credential()), lambda: vault.credentials("example.com")):
        with pytest.raises(VaultError) as caught:
            use()
        assert caught.value.reason is VaultProblem.MISSING


# --- damage and other versions ---------------------------------------------------------------------------------------

_GOOD = {"kind": "passkey", "id": b"i", "rp_id": "e", "rp_name": "", "user_id": b"u", "user_name": ""} | {
    "user_display_name": "", "alg": -7, "key": b"k", "created_at": 1, "modified_at": 1, "last_used_at": None,
    "use_count": 0, "be": False, "bs": False, "state": "active",
}  # fmt: skip
_NONE = {1: "none"}

DAMAGE = {
    "later version": ((_NONE, {1: 0, 2: []}, 4), VaultProblem.VERSION),
    "version 0": ((_NONE, {1: 0, 2: []}, 0), VaultProblem.CORRUPT),
    "other kind of key": (({1: "passphrase", 3: b"salt"}, {1: 0, 2: []}, 1), VaultProblem.CORRUPT),
    "no kind of key": (({}, {1: 0, 2: []}, 1), VaultProblem.CORRUPT),
    "wrong checksum": (({1: "none", 2: bytes(32)}, {1: 0, 2: []}, 1), VaultProblem.CORRUPT),
    "no generation": ((_NONE, {2: []}, 1), VaultProblem.CORRUPT),
    "generation is text": ((_NONE, {1: "0", 2: []}, 1), VaultProblem.CORRUPT),
    "no records": ((_NONE, {1: 0}, 1), VaultProblem.CORRUPT),
    "record is no map": ((_NONE, {1: 0, 2: [b""]}, 1), VaultProblem.CORRUPT),
    "record without kind": ((_NONE, {1: 0, 2: [{}]}, 1), VaultProblem.CORRUPT),
    **{
        f"passkey: {member} of the wrong type": ((_NONE, {1: 0, 2: [_GOOD | {member: []}]}, 1), VaultProblem.CORRUPT)
        for member in _GOOD
    },
}


def test_a_vault_made_by_hand_opens(tmp_path: Path) -> None:
    write(tmp_path / "vault", _NONE, {1: 0, 2: [_GOOD]})
    assert len(open_vault(tmp_path / "vault").credentials("e")) == 1


@pytest.mark.parametrize(("content", "problem"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_row(tmp_path: Path, content: tuple[dict[Any, Any], dict[Any, Any], int], problem: VaultProblem) -> None:
    header, body, version = content
    write(tmp_path / "vault", header, body, version=version)
    before = (tmp_path / "vault").read_bytes()
    assert problem_of(tmp_path / "vault") is problem
    assert (tmp_path / "vault").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"FHVAUL", b"SQLite format 3\x00", b"\x00" * 100])
def test_another_file_is_not_a_vault(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vault").write_bytes(content)
    (tmp_path / "vault").chmod(0o600)
    assert problem_of(tmp_path / "vault") is VaultProblem.NOT_A_VAULT


@pytest.mark.parametrize("content", [MAGIC, MAGIC + b"\x00", MAGIC + b"\x00\x01"])
def test_a_cut_head_is_damage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vault").write_bytes(content)
    (tmp_path / "vault").chmod(0o600)
    assert problem_of(tmp_path / "vault") is VaultProblem.CORRUPT


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "vault"
    open_vault(path).add(credential())
    good = path.read_bytes()
    for size in range(len(good)):
        path.write_bytes(good[:size])
        with pytest.raises(VaultError):
            open_vault(path)
    path.write_bytes(good)
    open_vault(path)


@given(data=st.binary(max_size=100))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("version", [1, 2])
def test_any_bytes_open_or_say_why(tmp_path: Path, data: bytes, version: int) -> None:
    path = tmp_path / "vault"
    path.write_bytes(MAGIC + version.to_bytes(2, "big") + data)
    path.chmod(0o600)
    with pytest.raises(VaultError):
        open_vault(path)


async def test_passkey_with_an_unusable_key_is_an_answer(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "vault")
    vault.add(credential())
    authenticator = phone(vault)
    assert await authenticator.call(sign_in(), peer=PEER) == b"\x7f"
    assert authenticator.failure is not None
    assert authenticator.failure.reason is VaultProblem.CORRUPT


def test_what_we_do_not_know_survives_a_write(tmp_path: Path) -> None:
    path = tmp_path / "vault"
    link = {"kind": "link", "secret": b"x", "nested": {"a": [1, None, True]}}
    passkey = _GOOD | {"cred_blob": b"blob", "state": "frozen"}
    write(path, {1: "none", 9: "later"}, {1: 41, 2: [link, passkey], 7: {"more": 1}})
    vault = open_vault(path)
    vault.add(credential())
    vault.note_use(b"i", 5)
    vault.update(replace(vault.credentials("e")[0], note="mine"))
    header, body = read(path)
    assert header == {1: "none", 2: header[2], 3: 45}  # what version 1 said about the key is not carried on
    assert body[7] == {"more": 1}
    assert body[2][:2] == [link, passkey | {"use_count": 1, "last_used_at": 5, "note": "mine"}]
    assert len(body[2]) == 3
    assert vault.credentials("e")[0].state is CredentialState.HIDDEN


# --- crashes and other writers ---------------------------------------------------------------------------------------


def test_left_overs_of_a_crash_are_passed_over_and_cleaned(tmp_path: Path) -> None:
    path = tmp_path / "vault"
    open_vault(path).add(credential())
    left_over = tmp_path / ".vault.0123456789abcdef.tmp"
    left_over.write_bytes(path.read_bytes()[:50])
    vault = open_vault(path)
    assert vault.credentials("example.com") == [credential()]
    vault.add(credential(2))
    assert not left_over.exists()


def test_an_exception_while_editing_changes_nothing(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "vault")
    before = (tmp_path / "vault").read_bytes()

    def edit() -> None:
        with vault.change() as records:
            records.append({"kind": "x"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edit()
    assert (tmp_path / "vault").read_bytes() == before
    vault.add(credential())  # and the lock is free


def test_no_change_is_no_write(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "vault")
    before = (tmp_path / "vault").stat().st_ino
    with vault.change():
        pass
    assert (tmp_path / "vault").stat().st_ino == before
    assert vault.generation == 0


def test_two_that_make_the_vault_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "vault", vault_disk.locked

    def slow(locked_path: Path) -> AbstractContextManager[None]:
        monkeypatch.setattr(vault_disk, "locked", real)
        open_vault(path).add(credential())  # the other one was faster
        return real(locked_path)

    monkeypatch.setattr(vault_disk, "locked", slow)
    assert open_vault(path).credentials("example.com") == [credential()]


def test_busy_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = open_vault(tmp_path / "vault")
    monkeypatch.setattr(vault_disk, "_LOCK_SECONDS", 0.0)
    with open(tmp_path / "vault.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(VaultError) as caught:
            vault.add(credential())
        assert caught.value.reason is VaultProblem.BUSY
        assert vault.credentials("example.com") == []  # reading needs no lock
    vault.add(credential())


def _add_many(path: Path, start: int, count: int) -> None:
    vault = open_vault(path)
    for number in range(start, start + count):
        vault.add(credential(number))


@pytest.mark.slow
@pytest.mark.soak
def test_t19_two_processes_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "vault"  # not made yet: they meet there as well
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add_many, args=(path, start, ADDED)) for start in (1000, 2000)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    found = {each.credential_id for each in open_vault(path).credentials("example.com")}
    assert found == {b"id%d" % number for start in (1000, 2000) for number in range(start, start + ADDED)}
    assert open_vault(path).generation == 2 * ADDED


def test_repr_tells_nothing_but_the_place(tmp_path: Path) -> None:
    vault = open_vault(tmp_path / "vault")
    vault.add(credential())
    assert repr(vault) == f"<Vault {tmp_path / 'vault'}>"
    (tmp_path / "vault").write_bytes((tmp_path / "vault").read_bytes()[:-1])
    with pytest.raises(VaultError) as caught:
        vault.credentials("example.com")
    assert "key1" not in str(caught.value)
