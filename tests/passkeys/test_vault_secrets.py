"""Threat T13: what a vault protects is in no log at debug level, no repr and no traceback of a full run.

A traceback here is what Python prints: lines of source and texts of exceptions. Values of variables are for debuggers.
"""

from __future__ import annotations

import base64
import logging
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key

from hybrid.errors import VaultError
from hybrid.passkeys import vault as vault_module
from hybrid.passkeys.store import CredentialState
from hybrid.passkeys.vault import Vault, open_vault
from hybrid.passkeys.vault_file import KdfCost, SecretBytes, parse_head
from hybrid.passkeys.vault_keys import FileKey, KeyringKey, NoKey, PassphraseKey, VaultKey
from hybrid.passkeys.vault_pin import VaultPin
from tests.passkeys.rig import PEER, create, phone, sign_in
from tests.passkeys.test_vault_keys import Ring

CHEAP = KdfCost(8, 1, 1)
PASSPHRASE = "correct horse battery"
PIN = "86420-pin"


def forms(secret: bytes) -> list[str]:
    """How a secret could be written."""
    return [
        secret.hex(),
        repr(secret)[2:-1],
        base64.b64encode(secret).decode().rstrip("="),
        base64.urlsafe_b64encode(secret).decode().rstrip("="),
        str(list(secret))[1:-1],
    ]


def secrets_of(vault: Vault, key_file: Path) -> list[bytes]:
    assert vault._data_key is not None
    found = [bytes(vault._data_key.value), PASSPHRASE.encode(), PIN.encode(), key_file.read_bytes().strip()]
    for one in vault.credentials():
        found += [one.private_key, one.secret_uv or b"U" * 32, one.secret_no_uv or b"N" * 32]
        key = load_der_private_key(one.private_key, None)
        found.append(key.private_numbers().private_value.to_bytes(32, "big"))  # type: ignore[union-attr]  # of ES256
    return found


def attempt(told: list[str], path: Path, key: VaultKey) -> None:
    try:
        open_vault(path, key, cost=CHEAP)
    except VaultError as error:
        told.append("".join(traceback.format_exception(error)))
        told.append(f"{error!r} {error.__context__!r} {error.__cause__!r}")
    else:
        raise AssertionError("it opened")


async def test_t13_a_full_run_tells_no_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    path, key_file = tmp_path / "vault", tmp_path / "key"
    key = PassphraseKey(PASSPHRASE)
    vault = open_vault(path, key, cost=CHEAP)
    assert (await phone(vault).call(create(), peer=PEER))[0] == 0
    (made,) = vault.credentials()
    vault.update(replace(made, secret_uv=b"U" * 32, secret_no_uv=b"N" * 32))
    assert (await phone(vault).call(sign_in(), peer=PEER))[0] == 0
    VaultPin(vault, cost=16).set(PIN)
    assert not VaultPin(vault, cost=16).check("0000")
    assert VaultPin(vault, cost=16).check(PIN)
    vault.set_state([made.credential_id], CredentialState.HIDDEN, 5)
    vault.change_key(FileKey(key_file), CHEAP)
    ring = KeyringKey(Ring())
    attempt(told, path, PassphraseKey("wrong horse battery"))
    attempt(told, path, NoKey())
    attempt(told, path, ring)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    attempt(told, path, FileKey(key_file))
    try:
        vault.credentials()
    except VaultError as error:
        told.append("".join(traceback.format_exception(error)))
    path.write_bytes(data)
    contents = vault._load()
    head = parse_head(data)
    for thing in (vault, key, ring, contents, contents.entries, head, vault._data_key, made, VaultPin(vault)):
        told += [repr(thing), str(thing), f"{thing}"]
    told += [record.getMessage() + str(record.args) + str(record.exc_text) for record in caplog.records]
    everything = "\n".join(told)
    assert "Traceback" in everything
    for secret in secrets_of(vault, key_file):
        for form in forms(secret):
            assert form not in everything


def test_the_search_finds_what_is_there() -> None:
    secret = bytes(range(32))
    for form in (str(secret), secret.hex(), repr([secret]), str(list(secret))):
        assert any(written in form for written in forms(secret))
    assert not any(written in repr(SecretBytes(secret)) for written in forms(secret))


def test_a_fault_of_ours_while_a_record_is_read_shows_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that nobody foresaw carries its own text only."""
    vault = open_vault(tmp_path / "vault", PassphraseKey(PASSPHRASE), cost=CHEAP)
    with vault.change() as records:
        records.append({"kind": "setting", "name": "x", "value": b"very secret"})

    def broken(*_: object) -> None:
        raise KeyError("name")

    monkeypatch.setattr(vault_module._Entry, "of", broken)
    with pytest.raises(KeyError) as caught:
        open_vault(tmp_path / "vault", PassphraseKey(PASSPHRASE))
    assert "very secret" not in "".join(traceback.format_exception(caught.value))
