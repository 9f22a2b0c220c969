"""Threats to the vault, and to files that passkeys leave in or come from (T11, T12, T14, T17 to T19).

The threats and the table of their tests are in docs/security.md.
"""

from __future__ import annotations

import json
import os
import resource
import stat
from pathlib import Path
from typing import Any

import pytest

from hybrid.cli.database import open_chosen_database
from hybrid.cli.main import run
from hybrid.cli.messages import UsageProblem
from hybrid.errors import PortabilityError, VaultError, VaultProblem
from hybrid.passkeys.cxf import read_cxf
from hybrid.passkeys.keepassxc_file import read_passkey_file, write_passkey_file
from hybrid.passkeys.portability import LeftOut, b64url, import_into, write_private
from hybrid.passkeys.store import MemoryStore
from hybrid.passkeys.vault import Vault, open_vault
from hybrid.passkeys.vault_file import KdfCost, SecretBytes
from hybrid.passkeys.vault_keys import FileKey, KeyringKey, PassphraseKey
from tests.passkeys.portability_rig import NOW, der, plain, private_key, public_der
from tests.passkeys.test_portability_cxf import document, dumped, passkey_of
from tests.passkeys.test_vault_keys import Ring

CHEAP = KdfCost(8, 1, 1)
PASSPHRASE = "correct horse"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vault"


def opened(path: Path, passphrase: str = PASSPHRASE) -> Vault:
    return open_vault(path, PassphraseKey(passphrase), cost=CHEAP)


def with_passkeys(path: Path, *numbers: int) -> Vault:
    vault = opened(path)
    for number in numbers:
        vault.add(plain(number=number))
    return vault


def refusal(path: Path, passphrase: str = PASSPHRASE) -> tuple[str, str]:
    with pytest.raises(VaultError) as caught:
        opened(path, passphrase)
    return caught.value.identifier, str(caught.value)


def exit_code(*words: str) -> object:
    with pytest.raises(SystemExit) as caught:
        run(list(words))
    return caught.value.code


@pytest.fixture
def key_file(path: Path, tmp_path: Path) -> str:
    """A vault with a passkey at `path`, and what its ``--vault-key`` is."""
    open_vault(path, FileKey(tmp_path / "key"), cost=CHEAP).add(plain())
    return f"file:{tmp_path / 'key'}"


# --- T11: a stolen vault ----------------------------------------------------------------------------------------------


def test_t11_a_stolen_vault_shows_nothing(path: Path) -> None:
    with_passkeys(path, 1, 2)
    for file in (path, path.with_name("vault.previous")):
        data = file.read_bytes()
        for clear in (b"example.com", b"ann", b"passkey", plain().private_key[:20], plain().credential_id):
            assert clear not in data


def test_t11_damage_and_a_wrong_passphrase_are_one_and_the_same_refusal(path: Path) -> None:
    with_passkeys(path, 1)
    good = path.read_bytes()
    refusals = {refusal(path, "another passphrase")}
    for at in range(0, len(good), 7):
        flipped = bytearray(good)
        flipped[at] ^= 0x01
        path.write_bytes(flipped)
        refusals.add(refusal(path))
    assert len(refusals) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_t11_a_vault_that_others_can_get_at_is_refused(path: Path, mode: int) -> None:
    with_passkeys(path, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(mode)
    assert refusal(path)[0] == "vault.permissions"


# --- T12: an old vault that was put back ------------------------------------------------------------------------------


def test_t12_an_old_vault_that_was_put_back_is_noticed(path: Path) -> None:
    with_passkeys(path, 1)
    old = path.read_bytes()
    with_passkeys(path, 2)
    path.write_bytes(old)
    assert opened(path).restored_from == 2


def test_t12_the_key_ring_notices_even_a_whole_folder_that_was_put_back(path: Path) -> None:
    key = KeyringKey(Ring())
    open_vault(path, key, cost=CHEAP).add(plain())
    old = {file: file.read_bytes() for file in path.parent.iterdir()}
    open_vault(path, key, cost=CHEAP).add(plain(number=2))
    for file, content in old.items():
        file.write_bytes(content)
    assert open_vault(path, key, cost=CHEAP).restored_from == 2


# --- T13: secrets in core dumps ---------------------------------------------------------------------------------------


def test_t13_no_core_dump_once_a_vault_is_asked_for(path: Path, key_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda which, limit: limits.append((which, limit)))
    assert exit_code("passkeys", "list", "--vault", str(path), "--vault-key", key_file) == 0
    with pytest.raises(UsageProblem):
        open_chosen_database(path.with_suffix(".kdbx"), "none")
    assert limits == [(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))] * 2


# --- T14: what stays in memory ----------------------------------------------------------------------------------------


def test_t14_secrets_of_ours_are_overwritten(path: Path) -> None:
    secret = SecretBytes(b"correct horse")
    value = secret.value
    secret.wipe()
    assert value == bytes(13)
    with opened(path) as vault:
        data_key = vault._data_key
        assert data_key is not None
        assert any(data_key.value)
    assert not any(data_key.value)


# --- T17: passkeys that leave -----------------------------------------------------------------------------------------


def test_t17_a_clear_export_is_made_only_if_it_is_asked_for(path: Path, key_file: str, tmp_path: Path) -> None:
    words = ["passkeys", "export", str(tmp_path / "out.cxf"), "--vault", str(path), "--vault-key", key_file]
    assert exit_code(*words) != 0
    assert not (tmp_path / "out.cxf").exists()
    assert exit_code(*words, "--clear-text", "--yes") == 0
    assert stat.S_IMODE((tmp_path / "out.cxf").stat().st_mode) == 0o600


def test_t17_an_export_needs_the_key_of_the_vault_and_leaves_a_line(path: Path, key_file: str, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_bytes(b"x" * 32)
    (tmp_path / "wrong").chmod(0o600)
    words = ["passkeys", "export", str(tmp_path / "out.cxf"), "--clear-text", "--yes", "--vault", str(path)]
    assert exit_code(*words, "--vault-key", f"file:{tmp_path / 'wrong'}") != 0
    assert not (tmp_path / "out.cxf").exists()
    assert not (tmp_path / "vault.audit").exists()
    assert exit_code(*words, "--vault-key", key_file) == 0
    (line,) = (tmp_path / "vault.audit").read_text().splitlines()
    assert json.loads(line)["event"] == "export"
    assert json.loads(line)["passkeys"] == [{"id": plain().credential_id.hex(), "rpId": "example.com"}]
    assert stat.S_IMODE((tmp_path / "vault.audit").stat().st_mode) == 0o600


def test_t17_what_is_written_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "out", b"key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600
    with pytest.raises(PortabilityError):
        write_private(tmp_path / "out", b"other")
    assert (tmp_path / "out").read_bytes() == b"key"


# --- T18: forged passkeys that come in --------------------------------------------------------------------------------


def test_t18_a_key_with_the_public_key_of_another_is_left_out() -> None:
    ours, theirs = (public_der(private_key(number=number))[-65:] for number in (1, 2))
    forged = document()
    passkey_of(forged)["key"] = b64url(der(private_key()).replace(ours, theirs))
    imported = read_cxf(dumped(forged), now=NOW)
    assert imported.credentials == ()
    assert len(imported.report.left_out) == 1


@pytest.mark.parametrize(
    "rp_id", ["", "EXAMPLE.com", "https://example.com", "a..b", "example.com.", "exa\u202emple.com"]
)
def test_t18_a_site_that_is_none_is_left_out(rp_id: str) -> None:
    members = json.loads(write_passkey_file(plain()).data) | {"relyingParty": rp_id}
    imported = read_passkey_file(json.dumps(members).encode(), now=NOW)
    assert (imported.credentials, imported.report.left_out[0].what) == ((), LeftOut.RP_ID)


def test_t18_nothing_that_is_there_is_replaced() -> None:
    store = MemoryStore()
    store.add(plain())
    members = json.loads(write_passkey_file(plain(number=2)).data)
    members["credentialId"] = b64url(plain().credential_id)
    report = import_into(store, read_passkey_file(json.dumps(members).encode(), now=NOW))
    assert store.credentials() == [plain()]
    assert [finding.what for finding in report.left_out] == [LeftOut.ID_CLASH]


# --- T19: two writers, and a crash in the middle ----------------------------------------------------------------------


def test_t19_two_writers_lose_nothing(path: Path) -> None:
    one, other = with_passkeys(path), opened(path)
    one.add(plain(number=1))
    other.add(plain(number=2))
    one.add(plain(number=3))
    assert [found.user_id for found in opened(path).credentials()] == [b"user-1", b"user-2", b"user-3"]


@pytest.mark.parametrize("step", ["fsync", "replace", "link"])
def test_t19_a_write_that_breaks_off_leaves_the_old_vault(
    path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = with_passkeys(path, 1)
    before = path.read_bytes()

    def broken(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, step, broken)
        with pytest.raises(KeyboardInterrupt):
            vault.add(plain(number=2))
    assert path.read_bytes() == before
    assert [found.user_id for found in opened(path).credentials()] == [b"user-1"]


def test_t19_a_vault_that_got_lost_is_not_begun_anew(path: Path) -> None:
    with_passkeys(path, 1)
    path.unlink()
    with pytest.raises(VaultError) as caught:
        opened(path)
    assert caught.value.reason is VaultProblem.LOST
