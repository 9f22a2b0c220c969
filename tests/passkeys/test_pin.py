"""authenticatorClientPIN: python-fido2's ClientPin over both protocols, and rows for what it never sends."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fido2.ctap import CtapError
from fido2.ctap2.pin import ClientPin, PinProtocol, PinProtocolV1

from hybrid.passkeys.store import MemoryStore
from tests.passkeys.rig import HASH, RP_ID
from tests.passkeys.roaming_rig import PIN, PROTOCOLS, Key

WRONG = "wrong-pin"
MC, GA, CM, BE, LBW, ACFG, PCMR = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40
CREATE = {1: HASH, 2: {"id": RP_ID}, 3: {"id": b"u"}, 4: [{"alg": -7, "type": "public-key"}]}
SIGN_IN = {1: RP_ID, 2: HASH}

both = pytest.mark.parametrize("protocol", PROTOCOLS)


def create(key: Key, token: bytes) -> int:
    return key.status(1, {**CREATE, 8: key.protocol.authenticate(token, HASH), 9: key.protocol.VERSION})


def sign_in(key: Key, token: bytes, rp_id: str = RP_ID, **options: bool) -> int:
    signature = key.protocol.authenticate(token, HASH)
    fields: dict[int, Any] = {1: rp_id, 2: HASH, 6: signature, 7: key.protocol.VERSION}
    return key.status(2, {**fields, **({5: options} if options else {})})


def refused(key: Key, pin: str = WRONG) -> int:
    with pytest.raises(CtapError) as caught:
        key.token(MC, RP_ID, pin)
    return int(caught.value.code)


def has_pin(key: Key) -> bool:
    return key.ctap.info.options["clientPin"]


def retries(key: Key) -> tuple[int, bool | int | None]:
    return key.client_pin.get_pin_retries()


@both
def test_set_change_use(protocol: type[PinProtocol]) -> None:
    key = Key(pin=None, protocol=protocol)
    assert not has_pin(key)
    key.client_pin.set_pin(PIN)
    assert has_pin(key)
    assert create(key, key.token(MC, RP_ID)) == 0
    key.client_pin.change_pin(PIN, "another")
    assert refused(key, PIN) == 0x31
    assert create(key, key.token(MC, RP_ID, "another")) == 0
    with pytest.raises(CtapError) as caught:
        key.client_pin.set_pin(PIN)
    assert caught.value.code == CtapError.ERR.PIN_AUTH_INVALID


@both
@pytest.mark.parametrize("pin", ["123", "äöü", "1" * 64, "ä" * 32], ids=["short", "3 letters", "64", "64 bytes"])
def test_pins_that_are_too_short_or_too_long(protocol: type[PinProtocol], pin: str) -> None:
    key = Key(pin=None, protocol=protocol)
    key_agreement, shared = key.agreement()
    padded = pin.encode().ljust(64, b"\0")
    sealed = key.protocol.encrypt(shared, padded)
    fields = {1: protocol.VERSION, 2: 3, 3: key_agreement, 4: key.protocol.authenticate(shared, sealed), 5: sealed}
    assert key.status(6, fields) == 0x37
    assert not has_pin(key)


@both
def test_pins_that_just_fit(protocol: type[PinProtocol]) -> None:
    for pin in ("1234", "äöüß", "1" * 63):
        assert Key(pin=pin, protocol=protocol).token(MC, RP_ID, pin)


@both
def test_lock_out(protocol: type[PinProtocol]) -> None:
    key = Key(protocol=protocol)
    assert retries(key) == (8, False)
    left = 8
    for expected in (0x31, 0x31, 0x34):
        assert refused(key) == expected
        left -= 1
    assert retries(key) == (5, True)
    assert refused(key, PIN) == refused(key) == 0x34, "nothing is compared before a power cycle"
    assert retries(key) == (5, True)
    key.authenticator.power_cycle()
    assert [refused(key) for _ in range(3)] == [0x31, 0x31, 0x34]
    key.authenticator.power_cycle()
    assert [refused(key), refused(key), refused(key, PIN)] == [0x31, 0x32, 0x32]
    key.authenticator.power_cycle()
    assert refused(key, PIN) == 0x32
    with pytest.raises(CtapError) as caught:
        key.client_pin.change_pin(PIN, "another")
    assert caught.value.code == CtapError.ERR.PIN_BLOCKED
    assert retries(key)[0] == 0
    key.ctap.reset()
    assert not has_pin(key)


@both
def test_the_right_pin_gives_all_tries_back(protocol: type[PinProtocol]) -> None:
    key = Key(protocol=protocol)
    for _ in range(5):
        assert [refused(key), refused(key)] == [0x31, 0x31]
        assert key.token(MC, RP_ID)
        assert retries(key) == (8, False)


def test_a_wrong_pin_is_counted_in_the_store_and_outlives_the_program() -> None:
    store = MemoryStore()
    refused(Key(store=store))
    again = Key(store=store, pin=None)
    assert retries(again) == (7, False)
    assert again.token(MC, RP_ID)


def test_a_wrong_pin_ends_the_key_agreement() -> None:
    key = Key()
    before = key.ctap.client_pin(2, 2)[1]
    assert key.ctap.client_pin(2, 2)[1] == before
    refused(key)
    after = key.ctap.client_pin(2, 2)[1]
    assert after != before
    key.token(MC, RP_ID)
    assert key.ctap.client_pin(2, 2)[1] == after
    key.authenticator.power_cycle()
    assert key.ctap.client_pin(2, 2)[1] != after


# --- permissions -----------------------------------------------------------------------------------------------------


@both
def test_permission_is_needed(protocol: type[PinProtocol]) -> None:
    key = Key(protocol=protocol)
    assert create(key, key.token(MC, RP_ID)) == 0
    for permissions in (GA, CM, LBW, ACFG, PCMR):
        assert create(key, key.token(permissions, RP_ID)) == 0x33
    for permissions in (MC, CM, LBW, ACFG, PCMR):
        assert sign_in(key, key.token(permissions, RP_ID)) == 0x33
    assert sign_in(key, key.token(GA, RP_ID)) == 0x2E


def test_permissions_of_later_versions_are_ignored() -> None:
    key = Key()
    shared = key.agreement()
    hash_enc = key.protocol.encrypt(shared[1], hashlib.sha256(PIN.encode()).digest()[:16])
    for permissions, wanted in ((MC | 0x100, 0), (0x80, 0x33)):
        request = {1: key.protocol.VERSION, 2: 9, 3: shared[0], 6: hash_enc, 9: permissions, 10: RP_ID}
        answer = key.ctap.send_cbor(6, request)
        assert create(key, key.protocol.decrypt(shared[1], answer[2])) == wanted


def test_tokens_are_for_one_site() -> None:
    key = Key()
    assert create(key, key.token(MC, "example.org")) == 0x33
    token = key.token(GA)  # bound at its first use
    assert sign_in(key, token, up=False) == 0x2E
    assert sign_in(key, token, "example.org", up=False) == 0x33
    assert sign_in(key, token, up=False) == 0x2E


def test_a_token_is_spent_when_a_person_was_there() -> None:
    key = Key()
    token = key.token(MC | GA, RP_ID)
    assert sign_in(key, token, up=False) == 0x2E, "a silent probe does not spend it"
    assert create(key, token) == 0
    assert create(key, token) == 0x33
    assert sign_in(key, token) == 0x33


def test_a_token_of_ctap_2_0_lasts() -> None:
    key = Key(protocol=PinProtocolV1)
    token = key.client_pin.get_pin_token(PIN)
    assert [create(key, token), create(key, token), sign_in(key, token)] == [0, 0, 0x2E]
    key.authenticator.power_cycle()
    assert create(key, token) == 0x33


def test_tokens_grow_old() -> None:
    key = Key()
    token = key.token(GA, RP_ID)
    key.clock.now += 29
    assert sign_in(key, token, up=False) == 0x2E
    key.clock.now += 570
    assert sign_in(key, token, up=False) == 0x2E
    key.clock.now += 2
    assert sign_in(key, token, up=False) == 0x33, "600 s after it was given"
    token = key.token(GA, RP_ID)
    key.clock.now += 31
    assert sign_in(key, token, up=False) == 0x33, "not used within 30 s"
    token = key.token(GA, RP_ID)
    key.clock.now -= 1
    assert sign_in(key, token, up=False) == 0x33, "the clock went backwards"


def test_only_the_newest_token_counts() -> None:
    key = Key()
    old, new = key.token(MC, RP_ID), key.token(MC, RP_ID)
    assert create(key, old) == 0x33
    assert create(key, new) == 0
    one = Key(protocol=PinProtocolV1)
    token = one.token(MC, RP_ID)
    mixed = {8: Key(pin=None).protocol.authenticate(token, HASH), 9: 2}
    assert one.status(1, {**CREATE, **mixed}) == 0x33, "a token of protocol one signs for protocol one"
    assert create(one, token) == 0


def test_changing_the_pin_ends_tokens() -> None:
    key = Key()
    lasting = key.token(PCMR)
    token = key.token(MC, RP_ID)
    key.client_pin.change_pin(PIN, "another")
    assert create(key, token) == 0x33
    assert key.token(PCMR, None, "another") != lasting


# --- rows: members of the request and status -------------------------------------------------------------------------

_POINT = ec.derive_private_key(1, ec.SECP256R1()).public_key().public_numbers()
_KEY: dict[int, Any] = {1: 2, 3: -25, -1: 1, -2: _POINT.x.to_bytes(32, "big"), -3: _POINT.y.to_bytes(32, "big")}
ROWS: dict[str, tuple[dict[int, Any] | None, int]] = {
    "no members": (None, 0x14),
    "no subcommand": ({1: 2}, 0x14),
    "subcommand is text": ({1: 2, 2: "1"}, 0x11),
    "subcommand 0": ({1: 2, 2: 0}, 0x3E),
    "a token by built-in verification": ({1: 2, 2: 6}, 0x30),
    "the same, by no protocol": ({2: 6}, 0x14),
    "its retries": ({1: 2, 2: 7}, 0x3E),
    "subcommand 99": ({1: 2, 2: 99}, 0x3E),
    "retries need no protocol": ({2: 1}, 0x00),
    "key agreement": ({1: 1, 2: 2}, 0x00),
    "key agreement without protocol": ({2: 2}, 0x14),
    "key agreement with protocol 0": ({1: 0, 2: 2}, 0x02),
    "key agreement with protocol 3": ({1: 3, 2: 2}, 0x02),
    "protocol is text": ({1: "1", 2: 2}, 0x11),
    "set without key": ({1: 2, 2: 3, 4: b"", 5: b""}, 0x14),
    "set without signature": ({1: 2, 2: 3, 3: {}, 5: b""}, 0x14),
    "set without PIN": ({1: 2, 2: 3, 3: {}, 4: b""}, 0x14),
    "set though set": ({1: 2, 2: 3, 3: {}, 4: b"", 5: b""}, 0x33),
    "change without hash": ({1: 2, 2: 4, 3: {}, 4: b"", 5: b""}, 0x14),
    "change without signature": ({1: 2, 2: 4, 3: {}, 5: b"", 6: b""}, 0x14),
    "token without hash": ({1: 2, 2: 5, 3: {}}, 0x14),
    "token with a key that is none": ({1: 2, 2: 5, 3: {}, 6: bytes(32)}, 0x14),
    "key of an unknown kind": ({1: 2, 2: 5, 3: {**_KEY, 1: 3}, 6: bytes(32)}, 0x02),
    "key of another curve": ({1: 2, 2: 5, 3: {**_KEY, -1: 2}, 6: bytes(32)}, 0x02),
    "key beside the curve": ({1: 2, 2: 5, 3: {**_KEY, -3: bytes(32)}, 6: bytes(32)}, 0x02),
    "key that is too short": ({1: 2, 2: 5, 3: {**_KEY, -2: bytes(31)}, 6: bytes(32)}, 0x02),
    "kind of key is text": ({1: 2, 2: 5, 3: {**_KEY, 1: "EC2"}, 6: bytes(32)}, 0x11),
    "curve is text": ({1: 2, 2: 5, 3: {**_KEY, -1: "P-256"}, 6: bytes(32)}, 0x11),
    "algorithm of the key is text": ({1: 2, 2: 5, 3: {**_KEY, 3: "ECDH"}, 6: bytes(32)}, 0x11),
    "x is text": ({1: 2, 2: 5, 3: {**_KEY, -2: "x"}, 6: bytes(32)}, 0x11),
    "token of CTAP 2.0 with permissions": ({1: 2, 2: 5, 3: {}, 6: bytes(32), 9: 1}, 0x02),
    "token of CTAP 2.0 with RP id": ({1: 2, 2: 5, 3: {}, 6: bytes(32), 10: RP_ID}, 0x02),
    "token without permissions": ({1: 2, 2: 9, 3: {}, 6: bytes(32)}, 0x14),
    "token with no permissions": ({1: 2, 2: 9, 3: {}, 6: bytes(32), 9: 0}, 0x02),
    "token with less than no permissions": ({1: 2, 2: 9, 3: {}, 6: bytes(32), 9: -1}, 0x02),
    "token with permissions in text": ({1: 2, 2: 9, 3: {}, 6: bytes(32), 9: "1"}, 0x11),
    "token for fingerprints": ({1: 2, 2: 9, 3: {}, 6: bytes(32), 9: BE}, 0x40),
    "token for fingerprints and more": ({1: 2, 2: 9, 3: {}, 6: bytes(32), 9: MC | BE}, 0x40),
    "lasting token that may do more": ({1: 2, 2: 9, 3: {}, 6: bytes(32), 9: PCMR | CM}, 0x40),
    "RP id is bytes": ({1: 2, 2: 9, 3: {}, 6: bytes(32), 9: MC, 10: b"x"}, 0x11),
}


@pytest.mark.parametrize(("fields", "expected"), ROWS.values(), ids=ROWS.keys())
def test_row(fields: dict[int, Any] | None, expected: int) -> None:
    key = Key()
    assert key.status(6, fields) == expected
    assert retries(key) == (8, False)


UNSET_ROWS: dict[str, dict[int, Any]] = {
    "retries": {2: 1},
    "change": {1: 2, 2: 4, 3: {}, 4: b"", 5: b"", 6: b""},
    "token": {1: 2, 2: 5, 3: {}, 6: bytes(32)},
    "token with permissions": {1: 2, 2: 9, 3: {}, 6: bytes(32), 9: 1},
}


@pytest.mark.parametrize("fields", UNSET_ROWS.values(), ids=UNSET_ROWS.keys())
def test_pin_is_not_set(fields: dict[int, Any]) -> None:
    assert Key(pin=None).status(6, fields) == 0x35


@both
def test_signatures_of_set_and_change_are_checked(protocol: type[PinProtocol]) -> None:
    key = Key(pin=None, protocol=protocol)
    key_agreement, shared = key.agreement()
    sealed = key.protocol.encrypt(shared, PIN.encode().ljust(64, b"\0"))
    fields: dict[int, Any] = {1: protocol.VERSION, 2: 3, 3: key_agreement, 5: sealed}
    assert key.status(6, {**fields, 4: bytes(16 * protocol.VERSION)}) == 0x33
    assert key.status(6, {**fields, 4: key.protocol.authenticate(shared, sealed)}) == 0
    pin_hash = key.protocol.encrypt(shared, hashlib.sha256(PIN.encode()).digest()[:16])
    change = {**fields, 2: 4, 6: pin_hash}
    assert key.status(6, {**change, 4: key.protocol.authenticate(shared, sealed)}) == 0x33
    assert retries(key) == (8, False), "an unsigned try is not counted"
    assert key.status(6, {**change, 4: key.protocol.authenticate(shared, sealed + pin_hash)}) == 0


@both
@pytest.mark.parametrize("size", [0, 16, 48, 80])
def test_padded_pin_of_another_size(protocol: type[PinProtocol], size: int) -> None:
    key = Key(pin=None, protocol=protocol)
    key_agreement, shared = key.agreement()
    sealed = key.protocol.encrypt(shared, b"1" * size)
    fields = {1: protocol.VERSION, 2: 3, 3: key_agreement, 4: key.protocol.authenticate(shared, sealed), 5: sealed}
    assert key.status(6, fields) == (0x37 if size == 80 else 0x02)


def test_no_pin_or_token_in_repr() -> None:
    key = Key()
    token = key.token(MC, RP_ID)
    state = key.authenticator._state.now
    shown = repr([key.authenticator._pin._token, state, key.authenticator._pin.protocols])
    for secret in (token, hashlib.sha256(PIN.encode()).digest()[:16]):
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown


def test_every_permission_of_fido2_is_known() -> None:
    assert {int(permission) for permission in ClientPin.PERMISSION} == {MC, GA, CM, BE, LBW, ACFG, PCMR}
