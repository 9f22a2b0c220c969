"""What clients of CTAP 2.0 and their test suites ask of a roaming authenticator beyond later editions."""

from __future__ import annotations

from typing import Any

import pytest
from fido2.ctap2.credman import CredentialManagement
from fido2.ctap2.pin import ClientPin
from fido2.webauthn import PublicKeyCredentialUserEntity

from hybrid.passkeys.profiles import PHONE, ROAMING, Profile
from hybrid.passkeys.store import MemoryStore
from tests.passkeys.rig import HASH, RP_ID
from tests.passkeys.roaming_rig import Key

ICON = "https://example.com/" + "a" * 108
PERMISSION = ClientPin.PERMISSION


def _make(key: Key, number: int, icon: str) -> None:
    user = {"id": bytes([number]), "name": "ann", "displayName": "Ann", "icon": icon}
    token = key.token(PERMISSION.MAKE_CREDENTIAL, RP_ID)
    key.ctap.make_credential(
        HASH, {"id": RP_ID}, user, [{"type": "public-key", "alg": -7}], options={"rk": True}, **key.signed(token, HASH)
    )


def _users(key: Key) -> list[dict[str, Any]]:
    token = key.token(PERMISSION.GET_ASSERTION, RP_ID)
    answers = key.ctap.get_assertions(RP_ID, HASH, **key.signed(token, HASH))
    return [dict(answer.user or {}) for answer in answers]


def test_an_icon_comes_back_whole_to_whoever_verified() -> None:
    key = Key()
    for number in (1, 2):
        _make(key, number, ICON)
    assert [user.get("icon") for user in _users(key)] == [ICON, ICON]
    unverified = [dict(answer.user or {}) for answer in key.ctap.get_assertions(RP_ID, HASH)]
    assert unverified == [{"id": b"\x02"}, {"id": b"\x01"}]


def test_an_icon_that_is_too_long_is_left_out_not_cut() -> None:
    key = Key()
    for number in (1, 2):
        _make(key, number, ICON + "b" * 256)
    assert [set(user) for user in _users(key)] == [{"id", "name", "displayName"}] * 2


def test_an_icon_is_listed_until_the_account_is_renamed() -> None:
    key = Key()
    _make(key, 1, ICON)
    management = CredentialManagement(key.ctap, key.protocol, key.token(PERMISSION.CREDENTIAL_MGMT))
    (site,) = management.enumerate_rps()
    (listed,) = management.enumerate_creds(site[4])
    assert listed[6]["icon"] == ICON
    management.update_user_info(listed[7], PublicKeyCredentialUserEntity(id=b"\x01", name="bob"))
    (listed,) = management.enumerate_creds(site[4])
    assert listed[6] == {"id": b"\x01", "name": "bob"}


def test_a_phone_keeps_no_icon() -> None:
    store = MemoryStore()
    key = Key(pin=None, store=store, profile=PHONE)
    user = {"id": b"1", "icon": ICON}
    assert key.status(0x01, {1: HASH, 2: {"id": RP_ID}, 3: user, 4: [{"type": "public-key", "alg": -7}]}) == 0
    assert [credential.user_icon for credential in store.credentials()] == [None]


@pytest.mark.parametrize("profile", [PHONE, ROAMING], ids=["phone", "roaming"])
def test_unknown_options_count_as_absent_whatever_they_hold(profile: Profile) -> None:
    key = Key(pin=None, profile=profile)
    making = {1: HASH, 2: {"id": RP_ID}, 3: {"id": b"1"}, 4: [{"type": "public-key", "alg": -7}]}
    assert key.status(0x01, {**making, 7: {"bogus": 123}}) == 0
    assert key.status(0x01, {**making, 7: {"rk": 1}}) == 0x11
    assert key.status(0x01, {**making, 7: {5: True}}) == 0x11
    assert key.status(0x02, {1: RP_ID, 2: HASH, 5: {"bogus": "x"}}) in (0, 0x2E)
