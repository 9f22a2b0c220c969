"""authenticatorCredentialManagement, judged by python-fido2's CredentialManagement."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from fido2.ctap import CtapError
from fido2.ctap2.credman import CredentialManagement
from fido2.ctap2.pin import PinProtocol
from fido2.hid import CTAPHID
from fido2.webauthn import PublicKeyCredentialDescriptor, PublicKeyCredentialType, PublicKeyCredentialUserEntity

from hybrid import cbor
from hybrid.passkeys.store import CredentialState, MemoryStore
from tests.passkeys.rig import HASH, RP_ID
from tests.passkeys.roaming_rig import PROTOCOLS, Device, Key

MC, CM, PCMR = 0x01, 0x04, 0x40
OTHER = "example.org"


def rp_hash(rp_id: str) -> bytes:
    return hashlib.sha256(rp_id.encode()).digest()


def add(key: Key, name: str, rp_id: str = RP_ID, *, rk: bool = True, **extensions: Any) -> bytes:
    made = key.ctap.make_credential(
        HASH,
        {"id": rp_id, "name": f"The {rp_id}"},
        {"id": name.encode(), "name": name},
        [{"alg": -7, "type": "public-key"}],
        extensions=extensions or None,
        options={"rk": rk},
        **key.signed(key.token(MC, rp_id), HASH),
    )
    assert made.auth_data.credential_data is not None
    return bytes(made.auth_data.credential_data.credential_id)


def manager(key: Key, permissions: int = CM, rp_id: str | None = None) -> CredentialManagement:
    return CredentialManagement(key.ctap, key.protocol, key.token(permissions, rp_id))


def descriptor(credential_id: bytes) -> PublicKeyCredentialDescriptor:
    return PublicKeyCredentialDescriptor(type=PublicKeyCredentialType.PUBLIC_KEY, id=credential_id)


def code(caught: pytest.ExceptionInfo[CtapError]) -> int:
    return int(caught.value.code)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_listing(protocol: type[PinProtocol]) -> None:
    key = Key(protocol=protocol)
    assert key.ctap.info.remaining_disc_creds == 1000
    ann, bob = add(key, "ann", credProtect=2), add(key, "bob", largeBlobKey=True, thirdPartyPayment=True)
    add(key, "cid", OTHER)
    add(key, "not discoverable", rk=False)
    assert key.ctap.info.remaining_disc_creds == 997
    listing = manager(key)
    assert listing.get_metadata() == {1: 3, 2: 997}
    sites = listing.enumerate_rps()
    assert [(site[3], site[4]) for site in sites] == [
        ({"id": rp_id, "name": f"The {rp_id}"}, rp_hash(rp_id)) for rp_id in (RP_ID, OTHER)
    ]
    passkeys = listing.enumerate_creds(rp_hash(RP_ID))
    assert [passkey[6] for passkey in passkeys] == [{"id": n.encode(), "name": n} for n in ("ann", "bob")]
    assert [passkey[7]["id"] for passkey in passkeys] == [ann, bob]
    assert [passkey[8][3] for passkey in passkeys] == [-7, -7]
    assert [passkey[10] for passkey in passkeys] == [2, 1]
    assert [passkey[12] for passkey in passkeys] == [False, True]
    assert 11 not in passkeys[0]
    assert len(passkeys[1][11]) == 32
    assert passkeys[0][9] == 2
    assert 9 not in passkeys[1]
    assert listing.enumerate_creds(rp_hash("nobody.example")) == []


def test_nothing_to_list() -> None:
    listing = manager(Key())
    assert listing.get_metadata() == {1: 0, 2: 1000}
    assert listing.enumerate_rps() == []


def test_remove_and_rename() -> None:
    key = Key()
    ann, bob = add(key, "ann"), add(key, "bob")
    change = manager(key)
    change.update_user_info(
        descriptor(ann), PublicKeyCredentialUserEntity(id=b"ann", name="Anna" * 100, display_name="A")
    )
    assert change.enumerate_creds(rp_hash(RP_ID))[0][6] == {"id": b"ann", "name": "Anna" * 64, "displayName": "A"}
    change.delete_cred(descriptor(bob))
    assert change.get_metadata()[1] == 1
    found = key.store.find(bob)
    assert found is not None
    assert found.state is CredentialState.DELETED, "the store keeps a copy"
    for credential_id in (bob, b"unknown"):
        with pytest.raises(CtapError) as caught:
            change.delete_cred(descriptor(credential_id))
        assert code(caught) == 0x2E
    with pytest.raises(CtapError) as caught:
        change.update_user_info(descriptor(ann), PublicKeyCredentialUserEntity(id=b"bob", name="x"))
    assert code(caught) == 0x02


def test_a_token_that_only_reads() -> None:
    key = Key()
    token = key.token(PCMR)
    ann = add(key, "ann")
    key.authenticator.power_cycle()
    assert key.token(PCMR) == token, "it lasts"
    listing = CredentialManagement(key.ctap, key.protocol, token)
    assert listing.get_metadata()[1] == 1
    assert len(listing.enumerate_rps()) == 1
    assert len(listing.enumerate_creds(rp_hash(RP_ID))) == 1
    changes: list[Callable[[], object]] = [
        lambda: listing.delete_cred(descriptor(ann)),
        lambda: listing.update_user_info(descriptor(ann), PublicKeyCredentialUserEntity(id=b"ann", name="x")),
    ]
    for change in changes:
        with pytest.raises(CtapError) as caught:
            change()
        assert code(caught) == 0x33


def test_what_its_holder_sees_in_get_info() -> None:
    key = Key()
    assert key.ctap.info.enc_identifier is None
    token = key.token(PCMR)
    first, second = key.ctap.info, key.ctap.info
    assert first.enc_identifier != second.enc_identifier
    assert first.get_identifier(token) == second.get_identifier(token)
    assert first.get_identifier(token) is not None
    assert first.get_cred_store_state(token) == second.get_cred_store_state(token)
    ann = add(key, "ann")
    after = key.ctap.info
    assert after.get_identifier(token) == first.get_identifier(token)
    assert after.get_cred_store_state(token) != first.get_cred_store_state(token)
    add(key, "not discoverable", rk=False)
    assert key.ctap.info.get_cred_store_state(token) == after.get_cred_store_state(token)
    manager(key).delete_cred(descriptor(ann))
    assert key.ctap.info.get_cred_store_state(token) != after.get_cred_store_state(token)


def test_a_token_for_one_site() -> None:
    key = Key()
    ann, cid = add(key, "ann"), add(key, "cid", OTHER)
    limited = manager(key, CM, RP_ID)
    assert len(limited.enumerate_creds(rp_hash(RP_ID))) == 1
    changes: list[Callable[[], object]] = [
        limited.get_metadata,
        limited.enumerate_rps,
        lambda: limited.enumerate_creds(rp_hash(OTHER)),
        lambda: limited.delete_cred(descriptor(cid)),
        lambda: limited.update_user_info(descriptor(cid), PublicKeyCredentialUserEntity(id=b"cid", name="x")),
    ]
    for change in changes:
        with pytest.raises(CtapError) as caught:
            change()
        assert code(caught) == 0x33
    limited.delete_cred(descriptor(ann))


def test_other_permissions_are_not_enough() -> None:
    key = Key()
    for permissions in (0x01, 0x02, 0x10, 0x20):
        with pytest.raises(CtapError) as caught:
            manager(key, permissions, RP_ID).get_metadata()
        assert code(caught) == 0x33


def _signed(key: Key, subcommand: int, params: dict[int, Any] | None = None) -> dict[int, Any]:
    message = bytes([subcommand]) + (b"" if params is None else cbor.encode(params))
    signature = key.protocol.authenticate(key.token(CM), message)
    return {1: subcommand, 3: 2, 4: signature, **({} if params is None else {2: params})}


ROWS: dict[str, tuple[dict[int, Any] | None, int]] = {
    "no members": (None, 0x14),
    "subcommand 0": ({1: 0}, 0x3E),
    "subcommand 8": ({1: 8}, 0x3E),
    "subcommand is bytes": ({1: b"\x01"}, 0x11),
    "no signature": ({1: 1}, 0x36),
    "no protocol": ({1: 1, 4: bytes(32)}, 0x14),
    "unknown protocol": ({1: 1, 3: 9, 4: bytes(32)}, 0x02),
    "wrong signature": ({1: 1, 3: 2, 4: bytes(32)}, 0x33),
    "params is a list": ({1: 4, 2: [], 3: 2, 4: bytes(32)}, 0x11),
    "next site without a first": ({1: 3}, 0x30),
    "next passkey without a first": ({1: 5}, 0x30),
}


@pytest.mark.parametrize(("fields", "expected"), ROWS.values(), ids=ROWS.keys())
def test_row(fields: dict[int, Any] | None, expected: int) -> None:
    key = Key()
    add(key, "ann")
    key.token(CM)
    assert key.status(0x0A, fields) == expected


PARAM_ROWS: dict[str, tuple[int, dict[int, Any] | None, int]] = {
    "no hash": (4, None, 0x14),
    "hash is text": (4, {1: "x"}, 0x11),
    "no passkey": (6, {}, 0x14),
    "passkey without id": (6, {2: {"type": "public-key"}}, 0x14),
    "passkey of unknown type": (6, {2: {"id": b"x", "type": "secret"}}, 0x2E),
    "no user": (7, {2: {"id": b"x", "type": "public-key"}}, 0x14),
    "user without id": (7, {2: {"id": b"x", "type": "public-key"}, 3: {}}, 0x14),
    "user name is bytes": (7, {2: {"id": b"x", "type": "public-key"}, 3: {"id": b"x", "name": b""}}, 0x11),
}


@pytest.mark.parametrize(("subcommand", "params", "expected"), PARAM_ROWS.values(), ids=PARAM_ROWS.keys())
def test_params_row(subcommand: int, params: dict[int, Any] | None, expected: int) -> None:
    key = Key()
    add(key, "ann")
    assert key.status(0x0A, _signed(key, subcommand, params)) == expected


def test_the_signature_covers_the_params() -> None:
    key = Key()
    ann, bob = add(key, "ann"), add(key, "bob")
    fields = _signed(key, 6, {2: {"id": ann, "type": "public-key"}})
    fields[2] = {2: {"id": bob, "type": "public-key"}}
    assert key.status(0x0A, fields) == 0x33


def test_a_listing_goes_on_only_where_it_began() -> None:
    key = Key(store=MemoryStore())
    for name in ("ann", "bob", "cid"):
        add(key, name, f"{name}.example")
    other = Device(key.authenticator, "second")
    begin = bytes([0x0A]) + cbor.encode(_signed(key, 2))
    go_on = bytes([0x0A]) + cbor.encode({1: 3})
    assert key.device.call(CTAPHID.CBOR, begin)[0] == 0
    assert other.call(CTAPHID.CBOR, go_on)[0] == 0x30
    assert other.call(CTAPHID.CBOR, b"\x0b")[0] == 0
    assert [key.device.call(CTAPHID.CBOR, go_on)[0] for _ in range(3)] == [0, 0, 0x30]
    assert key.device.call(CTAPHID.CBOR, begin)[0] == 0
    assert key.status(0x0B) == 0
    assert key.device.call(CTAPHID.CBOR, go_on)[0] == 0x30, "another command on the channel ended it"
    for end in (lambda: key.status(0x04), key.authenticator.power_cycle):
        begin = bytes([0x0A]) + cbor.encode(_signed(key, 2))
        assert key.device.call(CTAPHID.CBOR, begin)[0] == 0
        end()
        assert key.device.call(CTAPHID.CBOR, go_on)[0] == 0x30


def test_sites_go_on_while_passkeys_of_one_are_listed() -> None:
    key = Key()
    for name in ("ann", "bob"):
        add(key, name, f"{name}.example")
        add(key, f"{name}2", f"{name}.example")
    listing = manager(key)
    first = listing.enumerate_rps_begin()
    assert [passkey[6]["id"] for passkey in listing.enumerate_creds(first[4])] == [b"ann", b"ann2"]
    second = listing.enumerate_rps_next()
    assert [passkey[6]["id"] for passkey in listing.enumerate_creds(second[4])] == [b"bob", b"bob2"]
