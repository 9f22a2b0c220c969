"""What opens a vault: passphrases, key files, key rings."""

from __future__ import annotations

import stat
from pathlib import Path

import keyring.backends.fail
import keyring.errors
import pytest

from hybrid.errors import VaultError, VaultProblem
from hybrid.passkeys.vault import needs_new_key, open_vault
from hybrid.passkeys.vault_file import KdfCost, KeyKind
from hybrid.passkeys.vault_keys import FileKey, KeyringKey, NoKey, PassphraseKey, VaultKey
from tests.passkeys.test_vault import credential

CHEAP = KdfCost(8, 1, 1)


class Ring:
    """A key ring in memory. `forgets`: keeps nothing; `locked`: refuses everything."""

    def __init__(self, *, forgets: bool = False) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = False
        self._forgets = forgets

    def get_password(self, service: str, username: str) -> str | None:
        self._check()
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._check()
        if not self._forgets:
            self.kept[service, username] = password

    def _check(self) -> None:
        if self.locked:
            raise keyring.errors.KeyringLocked("/usr/lib/somewhere says no")


def problem(path: Path, key: VaultKey) -> VaultProblem:
    with pytest.raises(VaultError) as caught:
        open_vault(path, key, cost=CHEAP)
    return caught.value.reason


# --- each kind --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KeyKind))
def test_a_vault_opens_again_with_its_key(tmp_path: Path, kind: KeyKind) -> None:
    ring = Ring()
    keys: dict[KeyKind, VaultKey] = {
        KeyKind.NONE: NoKey(),
        KeyKind.PASSPHRASE: PassphraseKey("correct horse"),
        KeyKind.KEYRING: KeyringKey(ring),
        KeyKind.FILE: FileKey(tmp_path / "key"),
    }
    assert needs_new_key(tmp_path / "vault", kind)
    open_vault(tmp_path / "vault", keys[kind], cost=CHEAP).add(credential())
    again = open_vault(tmp_path / "vault", keys[kind])
    assert again.key_kind is kind
    assert again.credentials() == [credential()]
    assert not needs_new_key(tmp_path / "vault", kind)
    for other in set(KeyKind) - {kind}:
        assert problem(tmp_path / "vault", keys[other]) is VaultProblem.KEY_KIND
        with pytest.raises(VaultError):
            needs_new_key(tmp_path / "vault", other)


def test_composition_does_not_matter(tmp_path: Path) -> None:
    open_vault(tmp_path / "vault", PassphraseKey("u\u0308berlang"), cost=CHEAP).close()
    open_vault(tmp_path / "vault", PassphraseKey("\u00fcberlang")).close()
    assert problem(tmp_path / "vault", PassphraseKey("uberlang")) is VaultProblem.KEY


# --- key files --------------------------------------------------------------------------------------------------------


def test_a_key_file_is_made_for_a_new_vault_only(tmp_path: Path) -> None:
    open_vault(tmp_path / "vault", FileKey(tmp_path / "key"), cost=CHEAP).close()
    content = (tmp_path / "key").read_bytes()
    assert len(content) == 45
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    open_vault(tmp_path / "another", FileKey(tmp_path / "key"), cost=CHEAP).close()
    assert (tmp_path / "key").read_bytes() == content
    (tmp_path / "key").unlink()
    assert problem(tmp_path / "vault", FileKey(tmp_path / "key")) is VaultProblem.KEY_FILE
    assert not (tmp_path / "key").exists()


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_line_ends_after_the_key_do_not_count(tmp_path: Path, end: bytes) -> None:
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_bytes(b"0123456789abcdef")
    open_vault(tmp_path / "vault", FileKey(key), cost=CHEAP).close()
    key.write_bytes(b"0123456789abcdef" + end)
    open_vault(tmp_path / "vault", FileKey(key)).close()


@pytest.mark.parametrize("content", [b"", b"0123456789abcde\n", b"x" * 4097])
def test_key_files_of_a_size_that_is_no_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_bytes(content)
    assert problem(tmp_path / "vault", FileKey(tmp_path / "key")) is VaultProblem.KEY_FILE
    assert not (tmp_path / "vault").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_key_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "key").write_bytes(b"x" * 32)
    (tmp_path / "key").chmod(mode)
    assert problem(tmp_path / "vault", FileKey(tmp_path / "key")) is VaultProblem.KEY_FILE


def test_key_file_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    assert problem(tmp_path / "vault", FileKey(tmp_path / "key")) is VaultProblem.KEY_FILE
    assert problem(tmp_path / "vault", FileKey(tmp_path / "no" / "key")) is VaultProblem.KEY_FILE


# --- key rings --------------------------------------------------------------------------------------------------------


def test_each_vault_has_a_secret_of_its_own_in_the_ring(tmp_path: Path) -> None:
    ring = Ring()
    for name in ("one", "two"):
        open_vault(tmp_path / name, KeyringKey(ring), cost=CHEAP).close()
    secrets = [value for (_, user), value in ring.kept.items() if " " not in user]
    assert len(set(secrets)) == 2
    (tmp_path / "one").rename(tmp_path / "elsewhere")
    open_vault(tmp_path / "elsewhere", KeyringKey(ring)).close()


@pytest.mark.parametrize("spoilt", ["not base64!", "YQ", None])
def test_a_spoilt_entry_is_a_wrong_key(tmp_path: Path, spoilt: str | None) -> None:
    ring = Ring()
    open_vault(tmp_path / "vault", KeyringKey(ring), cost=CHEAP).close()
    for name in list(ring.kept):
        if spoilt is None:
            del ring.kept[name]
        else:
            ring.kept[name] = spoilt
    assert problem(tmp_path / "vault", KeyringKey(ring)) is VaultProblem.KEY


def test_a_ring_that_keeps_nothing_gets_no_vault(tmp_path: Path) -> None:
    assert problem(tmp_path / "vault", KeyringKey(Ring(forgets=True))) is VaultProblem.KEYRING
    assert not (tmp_path / "vault").exists()


def test_a_ring_that_is_locked_or_absent(tmp_path: Path) -> None:
    ring = Ring()
    vault = open_vault(tmp_path / "vault", KeyringKey(ring), cost=CHEAP)
    ring.locked = True
    assert problem(tmp_path / "vault", KeyringKey(ring)) is VaultProblem.KEYRING
    absent = keyring.backends.fail.Keyring()  # type: ignore[no-untyped-call]  # keyring has no types
    vault.add(credential())  # what is written does not hang on the hint that the ring keeps
    assert problem(tmp_path / "vault", KeyringKey(absent)) is VaultProblem.KEYRING


def test_t12_the_ring_remembers_the_generation(tmp_path: Path) -> None:
    """A folder that was put back as a whole says nothing itself."""
    ring = Ring()
    vault = open_vault(tmp_path / "vault", KeyringKey(ring), cost=CHEAP)
    old = (tmp_path / "vault").read_bytes()
    vault.add(credential())
    (tmp_path / "vault").write_bytes(old)
    (tmp_path / "vault.seen").unlink()
    assert open_vault(tmp_path / "vault", KeyringKey(ring)).restored_from == 1
