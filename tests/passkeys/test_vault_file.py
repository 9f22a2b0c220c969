"""The format of the vault: a hand-made reading of it, every flipped bit, wrong keys, absurd parameters."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from hybrid import cbor
from hybrid.errors import VaultError, VaultProblem
from hybrid.passkeys import vault_file
from hybrid.passkeys.store import CredentialState
from hybrid.passkeys.vault import Vault, open_vault
from hybrid.passkeys.vault_file import KdfCost, SecretBytes
from hybrid.passkeys.vault_keys import FileKey, KeyringKey, NoKey, PassphraseKey, VaultKey
from tests.conftest import SOAK
from tests.passkeys.test_vault import credential
from tests.passkeys.test_vault_keys import Ring

CHEAP = KdfCost(8, 1, 1)
PASSPHRASE = "correct horse"


def made(path: Path, key: VaultKey | None = None, *, passkeys: int = 2) -> Vault:
    vault = open_vault(path, key or PassphraseKey(PASSPHRASE), cost=CHEAP)
    for number in range(passkeys):
        vault.add(credential(number))
    return vault


def refusal(path: Path, key: VaultKey) -> tuple[type, str, str]:
    with pytest.raises(VaultError) as caught:
        open_vault(path, key, cost=CHEAP)
    return type(caught.value), caught.value.identifier, str(caught.value)


def header_of(data: bytes) -> tuple[dict[Any, Any], bytes]:
    header, size = cbor.decode_prefix(data[9:])
    return header, data[: 9 + size]


# --- the format -------------------------------------------------------------------------------------------------------


def test_a_file_can_be_read_by_hand(tmp_path: Path) -> None:
    """With nothing of ours but CBOR: what the module says about the format is all that another program needs."""
    made(tmp_path / "vault")
    data = (tmp_path / "vault").read_bytes()
    assert data[:9] == b"FHVAULT\x00\x02"
    header, head = header_of(data)
    assert (header[1], header[3]) == ("passphrase", 2)
    assert header[4] == {"name": "argon2id", "memory_kib": 8, "iterations": 1, "lanes": 1}
    key = Argon2id(salt=header[5], length=32, iterations=1, lanes=1, memory_cost=8).derive(PASSPHRASE.encode())
    bound = data[:9] + cbor.encode({number: header[number] for number in (1, 2, 4, 5)})
    data_key = AESGCM(key).decrypt(header[6][:12], header[6][12:], bound)
    body = cbor.decode(AESGCM(data_key).decrypt(header[7], data[len(head) :], head))
    assert list(body) == [2]
    records = [cbor.decode(record) for record in body[2]]
    assert [(record["kind"], record["id"], record["key"]) for record in records] == [
        ("passkey", b"id0", b"key0"),
        ("passkey", b"id1", b"key1"),
    ]
    assert [cbor.encode(record) for record in records] == body[2]


def test_default_cost_is_that_of_rfc_9106(tmp_path: Path) -> None:
    open_vault(tmp_path / "vault", PassphraseKey(PASSPHRASE))
    header, _ = header_of((tmp_path / "vault").read_bytes())
    assert header[4] == {"name": "argon2id", "memory_kib": 1 << 16, "iterations": 3, "lanes": 4}
    assert not KdfCost().absurd


def test_nothing_of_the_content_is_in_the_file(tmp_path: Path) -> None:
    made(tmp_path / "vault")
    data = (tmp_path / "vault").read_bytes()
    for secret in (b"key0", b"key1", b"example.com", b"user0", b"ann", PASSPHRASE.encode()):
        assert secret not in data


def test_every_write_has_a_nonce_of_its_own_and_one_data_key(tmp_path: Path) -> None:
    vault = made(tmp_path / "vault", passkeys=0)
    headers = []
    for number in range(20):
        vault.add(credential(number))
        headers.append(header_of((tmp_path / "vault").read_bytes())[0])
    assert len({header[7] for header in headers}) == 20
    assert len({header[6] for header in headers}) == 1
    assert [header[3] for header in headers] == list(range(1, 21))


# --- damage, wrong keys -----------------------------------------------------------------------------------------------


def _keys(folder: Path) -> dict[str, tuple[VaultKey, VaultKey]]:
    """A key of each kind, and a wrong one."""
    wrong = folder / "wrong"
    wrong.write_text("0123456789abcdef0123456789abcdef")
    wrong.chmod(0o600)
    ring = Ring()
    return {
        "passphrase": (PassphraseKey(PASSPHRASE), PassphraseKey("correct  horse")),
        "file": (FileKey(folder / "key"), FileKey(wrong)),
        "keyring": (KeyringKey(ring), KeyringKey(Ring())),
        "none": (NoKey(), NoKey()),
    }


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("kind", ["passphrase", "file", "keyring", "none"])
def test_t11_every_flipped_bit_is_refused_as_a_wrong_key_is(
    tmp_path: Path, kind: str, record_property: Callable[[str, object], None]
) -> None:
    path = tmp_path / "vault"
    right, wrong = _keys(tmp_path)[kind]
    made(path, right, passkeys=40 if SOAK else 1)
    good = path.read_bytes()
    head = len(header_of(good)[1])
    bits = [bit for bit in range(8 * len(good)) if SOAK or bit < 8 * head or bit % 5 == 0]
    refusals = set() if kind == "none" else {refusal(path, wrong)}
    for bit in bits:
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        refusals.add(refusal(path, right))
    record_property("bits flipped", len(bits))
    record_property("different refusals", len(refusals))
    assert len(refusals) == 1
    assert refusals.pop()[1] == ("vault.corrupt" if kind == "none" else "vault.key")
    path.write_bytes(good)
    assert len(open_vault(path, right).credentials()) == (40 if SOAK else 1)


def test_a_flipped_bit_is_noticed_by_a_vault_that_is_open(tmp_path: Path) -> None:
    vault = made(tmp_path / "vault")
    data = bytearray((tmp_path / "vault").read_bytes())
    data[-1] ^= 1
    (tmp_path / "vault").write_bytes(data)
    for use in (vault.credentials, lambda: vault.add(credential(9))):
        with pytest.raises(VaultError) as caught:
            use()
        assert caught.value.reason is VaultProblem.KEY
    assert (tmp_path / "vault").read_bytes() == data


def test_parts_of_two_generations_do_not_go_together(tmp_path: Path) -> None:
    path = tmp_path / "vault"
    vault = made(path)
    old = path.read_bytes()
    vault.set_state([b"id0"], CredentialState.DELETED, 5)
    new = path.read_bytes()
    path.write_bytes(header_of(new)[1] + old[len(header_of(old)[1]) :])
    assert refusal(path, PassphraseKey(PASSPHRASE))[1] == "vault.key"


def test_an_encrypted_vault_is_not_replaced_by_a_clear_one(tmp_path: Path) -> None:
    """Somebody who can write the file cannot make an open phone put its passkeys into a file that they can read."""
    vault = made(tmp_path / "vault")
    header, _ = header_of((tmp_path / "vault").read_bytes())
    clear = b"FHVAULT\x00\x02" + cbor.encode({1: "none", 2: header[2], 3: header[3] + 1}) + cbor.encode({2: []})
    clear += hashlib.sha256(clear).digest()
    (tmp_path / "vault").write_bytes(clear)
    with pytest.raises(VaultError):
        vault.add(credential(9))
    assert refusal(tmp_path / "vault", PassphraseKey(PASSPHRASE))[1:] == (
        "vault.key-kind",
        "the vault opens with no key, for it is not encrypted",
    )
    assert (tmp_path / "vault").read_bytes() == clear


ABSURD = {
    "memory": {"memory_kib": 1 << 30},
    "memory of 2^32": {"memory_kib": (1 << 32) - 1},
    "beyond an integer": {"memory_kib": (1 << 64) - 1},
    "a little too much memory": {"memory_kib": (1 << 19) + 1},
    "time": {"iterations": 1 << 30},
    "memory times time": {"memory_kib": 1 << 19, "iterations": 5},
    "lanes": {"lanes": 1 << 20, "memory_kib": 1 << 19},
    "memory below what the lanes need": {"memory_kib": 7},
    "no memory": {"memory_kib": 0},
    "no time": {"iterations": 0},
    "no lanes": {"lanes": 0},
    "negative": {"iterations": -1},
    "text": {"memory_kib": "8"},
    "another function": {"name": "argon2d"},
}


def assert_refused_before_use(
    path: Path, changes: dict[str, Any], function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like a wrong passphrase, without the key derivation having been called with such parameters."""
    wrong_key = refusal(path, PassphraseKey("wrong horse"))
    data = path.read_bytes()
    header, head = header_of(data)
    header[4] |= changes
    path.write_bytes(data[:9] + cbor.encode(header) + data[len(head) :])

    def used(**_: object) -> None:
        raise AssertionError("the function was called")

    monkeypatch.setattr(vault_file, function, used)
    assert refusal(path, PassphraseKey(PASSPHRASE)) == wrong_key


@pytest.mark.parametrize("changes", ABSURD.values(), ids=ABSURD.keys())
def test_absurd_parameters_are_refused_before_they_are_used(
    tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "vault")
    assert_refused_before_use(tmp_path / "vault", changes, "Argon2id", monkeypatch)


def test_the_refused_function_would_have_been_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test above can fail."""
    made(tmp_path / "vault")

    def used(**_: object) -> None:
        raise AssertionError("the function was called")

    monkeypatch.setattr(vault_file, "Argon2id", used)
    with pytest.raises(AssertionError):
        open_vault(tmp_path / "vault", PassphraseKey(PASSPHRASE))


HEADERS: dict[str, dict[int, Any]] = {
    "unknown kind of key": {1: "smartcard"},
    "kind is bytes": {1: b"passphrase"},
    "short id": {2: b"short"},
    "no generation": {3: None},
    "negative generation": {3: -1},
    "endless generation": {3: 1 << 63},
    "short salt": {5: b"short"},
    "short wrapped key": {6: bytes(59)},
    "short nonce": {7: bytes(11)},
}


@pytest.mark.parametrize("changes", HEADERS.values(), ids=HEADERS.keys())
def test_a_header_that_makes_no_sense(tmp_path: Path, changes: dict[int, Any]) -> None:
    path = tmp_path / "vault"
    made(path)
    data = path.read_bytes()
    header, head = header_of(data)
    path.write_bytes(data[:9] + cbor.encode(header | changes) + data[len(head) :])
    assert refusal(path, PassphraseKey(PASSPHRASE)) == refusal(path, PassphraseKey("wrong horse"))


BODIES: dict[str, Any] = {
    "no records": {},
    "records are maps": {2: [{"kind": "x"}]},
    "record is no map": {2: [b"\x01"]},
    "record without kind": {2: [b"\xa0"]},
    "two values in one record": {2: [b"\xa0\xa0"]},
    "record is cut": {2: [b"\xa1"]},
    "no map": [],
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_body_that_makes_no_sense(tmp_path: Path, body: Any) -> None:
    """With a right checksum, as a program with a fault would write it."""
    path = tmp_path / "vault"
    open_vault(path)
    _, head = header_of(path.read_bytes())
    clear = head + cbor.encode(body)
    path.write_bytes(clear + hashlib.sha256(clear).digest())
    assert refusal(path, NoKey())[1] == "vault.corrupt"


# --- memory -----------------------------------------------------------------------------------------------------------


def test_t14_secrets_are_overwritten() -> None:
    secret = SecretBytes(b"correct horse")
    value = secret.value
    secret.wipe()
    assert value == bytes(13)


def test_t14_a_closed_vault_has_no_key(tmp_path: Path) -> None:
    with made(tmp_path / "vault") as vault:
        data_key = vault._data_key
        assert data_key is not None
        assert any(data_key.value)
    assert not any(data_key.value)
    with pytest.raises(VaultError):
        vault.credentials()


def test_t14_a_passphrase_is_overwritten() -> None:
    key = PassphraseKey(PASSPHRASE)
    assert bytes(key.secret(b"").value) == PASSPHRASE.encode()
    key.wipe()
    assert not any(key.secret(b"").value)
