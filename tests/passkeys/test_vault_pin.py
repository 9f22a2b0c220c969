"""The PIN kept with a vault: hashing, counting, waiting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hybrid.errors import VaultError, VaultProblem
from hybrid.passkeys.consent import Decision, LimitedConsent, PinConsent, PinRequest
from hybrid.passkeys.vault import Vault, open_vault
from hybrid.passkeys.vault_pin import VaultPin
from hybrid.ports import CtapBackend
from tests.passkeys.rig import PEER, Clock, Person, create, phone, sign_in

CHEAP = 16


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return open_vault(tmp_path / "vault")


def keeper(vault: Vault, clock: Clock | None = None) -> VaultPin:
    return VaultPin(vault, clock=clock or Clock(), cost=CHEAP)


def test_set_once_and_checked_by_another_process(vault: Vault) -> None:
    assert not keeper(vault).is_set
    assert not keeper(vault).check("1234")
    assert keeper(vault).set("1234")
    assert keeper(vault).is_set
    assert not keeper(vault).set("9999")
    assert keeper(vault).check("1234")
    assert not keeper(vault).check("9999")


def test_default_cost_is_kept_in_the_file(vault: Vault) -> None:
    VaultPin(vault).set("1234")
    (record,) = vault.records()
    assert (record["n"], record["r"], record["p"]) == (32768, 8, 1)
    assert keeper(vault).check("1234")  # with the parameters of the file, not its own


def test_composition_does_not_matter(vault: Vault) -> None:
    keeper(vault).set("u\u0308ber")
    assert keeper(vault).check("\u00fcber")


def test_the_file_does_not_hold_the_pin(vault: Vault, tmp_path: Path) -> None:
    keeper(vault).set("correct horse")
    assert b"correct horse" not in (tmp_path / "vault").read_bytes()


def test_waiting_after_three_wrong_ones_outlives_the_process(vault: Vault) -> None:
    clock = Clock()
    keeper(vault).set("1234")
    for expected in (0, 0, 30):
        assert not keeper(vault, clock).check("0000")
        assert keeper(vault, clock).wait_seconds() == expected
    assert not keeper(vault, clock).check("1234")  # not even looked at
    clock.now += 30
    assert keeper(vault, clock).wait_seconds() == 0
    assert not keeper(vault, clock).check("0000")
    assert keeper(vault, clock).wait_seconds() == 60
    clock.now += 60
    assert keeper(vault, clock).check("1234")
    assert not keeper(vault, clock).check("0000")
    assert keeper(vault, clock).wait_seconds() == 0  # counted from nothing again


def test_the_wait_is_an_hour_at_most(vault: Vault) -> None:
    clock = Clock()
    keeper(vault).set("1234")
    for _ in range(40):
        keeper(vault, clock).check("0000")
        clock.now += 3600
    clock.now -= 3600
    assert keeper(vault, clock).wait_seconds() == 3600


def test_a_clock_put_back_does_not_lengthen_the_wait(vault: Vault) -> None:
    clock = Clock()
    keeper(vault).set("1234")
    for _ in range(3):
        keeper(vault, clock).check("0000")
    clock.now -= 1_000_000
    assert keeper(vault, clock).wait_seconds() == 30


def test_a_try_counts_before_it_is_looked_at(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper(vault).set("1234")

    def killed(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr("hybrid.passkeys.vault_pin._scrypt", killed)
    with pytest.raises(KeyboardInterrupt):
        keeper(vault).check("1234")
    assert vault.records()[0]["failures"] == 1


class Keypad:
    """Types the same every time."""

    async def ask_pin(self, request: PinRequest) -> str | None:
        return "1234"


async def test_a_phone_with_a_pin_verifies_its_user(vault: Vault) -> None:
    asked = Person(Decision(True))
    backend: CtapBackend = phone(vault, LimitedConsent(PinConsent(asked, Keypad(), keeper(vault)), Clock()))
    assert (await backend.call(create(), peer=PEER))[0] == 0  # sets the PIN
    assert (await backend.call(sign_in(), peer=PEER))[0] == 0  # asks for it
    assert [record["kind"] for record in vault.records()] == ["pin", "passkey"]
    unverified = phone(vault, asked)
    assert await unverified.call(sign_in(), peer=PEER) == b"\x27"


DAMAGE: dict[str, dict[str, Any]] = {
    "memory bomb": {"n": 1 << 30},
    "memory bomb by blocks": {"r": 1 << 30},
    "endless": {"p": 17},
    "no power of two": {"n": 17},
    "n too small": {"n": 1},
    "r zero": {"r": 0},
    "n is true": {"n": True},
    "short salt": {"salt": b""},
    "hash is text": {"hash": "x"},
    "negative failures": {"failures": -1},
    "no time": {"last_failure": None},
}


@pytest.mark.parametrize("changes", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_record(vault: Vault, changes: dict[str, Any]) -> None:
    keeper(vault).set("1234")
    with vault.change() as records:
        records[0].update(changes)
    with pytest.raises(VaultError) as caught:
        keeper(vault).check("1234")
    assert caught.value.reason is VaultProblem.CORRUPT
