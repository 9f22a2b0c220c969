"""Vaults made where Argon2id is missing: scrypt, read by hand, bounded, and every flipped bit noticed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NoReturn

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hybrid import cbor
from hybrid.errors import VaultError, VaultProblem
from hybrid.passkeys import vault_file
from hybrid.passkeys.vault import Vault, open_vault
from hybrid.passkeys.vault_file import KdfCost, ScryptCost
from hybrid.passkeys.vault_keys import PassphraseKey
from tests.conftest import SOAK
from tests.passkeys.test_vault import credential
from tests.passkeys.test_vault_file import assert_refused_before_use, header_of

CHEAP = ScryptCost(log2_n=2, r=1, p=1)
KEY = PassphraseKey("correct horse")


def made(path: Path) -> Vault:
    vault = open_vault(path, KEY, cost=CHEAP)
    vault.add(credential(0))
    return vault


def problem(path: Path, key: PassphraseKey = KEY) -> tuple[VaultProblem, str]:
    with pytest.raises(VaultError) as caught:
        open_vault(path, key)
    return caught.value.reason, str(caught.value)


def no_argon2(**_: object) -> NoReturn:
    raise UnsupportedAlgorithm("this OpenSSL has none")


def test_a_file_can_be_read_by_hand(tmp_path: Path) -> None:
    """With Python's own scrypt."""
    made(tmp_path / "vault")
    data = (tmp_path / "vault").read_bytes()
    header, head = header_of(data)
    assert header[4] == {"name": "scrypt", "log2_n": 2, "r": 1, "p": 1}
    key = hashlib.scrypt(b"correct horse", salt=header[5], n=4, r=1, p=1, dklen=32)
    bound = data[:9] + cbor.encode({member: header[member] for member in (1, 2, 4, 5)})
    data_key = AESGCM(key).decrypt(header[6][:12], header[6][12:], bound)
    assert len(cbor.decode(AESGCM(data_key).decrypt(header[7], data[len(head) :], head))[2]) == 1
    assert [found.credential_id for found in open_vault(tmp_path / "vault", KEY).credentials()] == [b"id0"]


@pytest.mark.slow
def test_a_new_vault_has_scrypt_only_where_argon2id_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vault_file.usual_cost() == KdfCost()
    monkeypatch.setattr(vault_file, "Argon2id", no_argon2)
    open_vault(tmp_path / "vault", KEY)
    header, _ = header_of((tmp_path / "vault").read_bytes())
    assert header[4] == {"name": "scrypt", "log2_n": 17, "r": 8, "p": 1}
    assert not ScryptCost().absurd
    assert open_vault(tmp_path / "vault", KEY).credentials() == []


def test_a_vault_that_needs_argon2id_says_so_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_vault(tmp_path / "vault", KEY, cost=KdfCost(8, 1, 1))
    before = (tmp_path / "vault").read_bytes()
    monkeypatch.setattr(vault_file, "Argon2id", no_argon2)
    assert problem(tmp_path / "vault")[0] is VaultProblem.KDF
    assert (tmp_path / "vault").read_bytes() == before


def test_another_key_brings_the_cost_along(tmp_path: Path) -> None:
    made(tmp_path / "vault").change_key(PassphraseKey("another horse"), KdfCost(8, 1, 1))
    header, _ = header_of((tmp_path / "vault").read_bytes())
    assert header[4]["name"] == "argon2id"


@pytest.mark.parametrize(
    "changes",
    [
        {"log2_n": 0},
        {"log2_n": 23},
        {"log2_n": 64},
        {"log2_n": -1},
        {"log2_n": "2"},
        {"log2_n": 16},  # RFC 7914: too much for one block
        {"r": 0},
        {"r": 33},
        {"p": 0},
        {"p": 17},
        {"log2_n": 20, "r": 8},  # 1 GiB
        {"log2_n": 18, "r": 8, "p": 16},  # 16 times over
        {"name": "scrypt2"},
    ],
    ids=str,
)
def test_t11_absurd_parameters_are_refused_before_they_are_used(
    tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "vault")
    assert_refused_before_use(tmp_path / "vault", changes, "Scrypt", monkeypatch)


def test_the_refused_function_would_have_been_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "vault")

    def used(**_: object) -> NoReturn:
        raise AssertionError("the function was called")

    monkeypatch.setattr(vault_file, "Scrypt", used)
    with pytest.raises(AssertionError):
        open_vault(tmp_path / "vault", KEY)


@pytest.mark.slow
def test_t11_every_flipped_bit_of_the_header_is_refused_as_a_wrong_key_is(tmp_path: Path) -> None:
    path = tmp_path / "vault"
    made(path)
    good = path.read_bytes()
    end = len(good) if SOAK else len(header_of(good)[1])
    refusals = {problem(path, PassphraseKey("wrong horse"))}
    for bit in range(8 * end):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        refusals.add(problem(path))
    assert len(refusals) == 1
