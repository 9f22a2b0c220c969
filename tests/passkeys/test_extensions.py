"""Extensions of the phone and of the roaming profile: inputs, outputs, and one secret by whatever way."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import zlib
from dataclasses import replace
from typing import Any

import pytest
from fido2.ctap2.base import AssertionResponse, AttestationResponse
from fido2.ctap2.pin import PinProtocol, PinProtocolV1

from hybrid import cbor
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.store import Credential, MemoryStore
from tests.passkeys.rig import HASH, PEER, RP_ID, Person, create, descriptor, phone, sign_in
from tests.passkeys.roaming_rig import PROTOCOLS, Key

A, B = hashlib.sha256(b"a").digest(), hashlib.sha256(b"b").digest()
DATA = b"large " * 100


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


PACKED = deflated(DATA)


async def ok(authenticator: SoftwareAuthenticator, request: bytes) -> dict[int, Any]:
    answer = await authenticator.call(request, peer=PEER)
    assert answer[0] == 0, f"status {answer[0]:#x}"
    fields: dict[int, Any] = cbor.decode_map(answer[1:])
    assert cbor.encode(fields) == answer[1:]
    return fields


async def status(authenticator: SoftwareAuthenticator, request: bytes) -> int:
    return (await authenticator.call(request, peer=PEER))[0]


async def with_passkey() -> tuple[SoftwareAuthenticator, Credential, MemoryStore]:
    store = MemoryStore()
    authenticator = phone(store)
    await ok(authenticator, create())
    return authenticator, store.credentials()[0], store


def expected(credential: Credential, salt: bytes) -> bytes:
    assert credential.secret_uv is not None
    return hmac.digest(credential.secret_uv, salt, "sha256")


# --- phone: what is refused ------------------------------------------------------------------------------------------

CREATE_ROWS = {
    "prf empty": ({"prf": {}}, 0x00),
    "prf one": ({"prf": {"eval": {"first": A}}}, 0x00),
    "prf is true": ({"prf": True}, 0x11),
    "prf eval is bytes": ({"prf": {"eval": A}}, 0x11),
    "prf no first": ({"prf": {"eval": {"second": A}}}, 0x14),
    "prf first of 31 bytes": ({"prf": {"eval": {"first": A[1:]}}}, 0x11),
    "prf second of 33 bytes": ({"prf": {"eval": {"first": A, "second": B + b"x"}}}, 0x11),
    "prf first is text": ({"prf": {"eval": {"first": "a" * 32}}}, 0x11),
    "largeBlob preferred": ({"largeBlob": {"support": "preferred"}}, 0x00),
    "largeBlob required": ({"largeBlob": {"support": "required"}}, 0x00),
    "largeBlob other text": ({"largeBlob": {"support": "maybe"}}, 0x11),
    "largeBlob no support": ({"largeBlob": {}}, 0x14),
    "largeBlob more": ({"largeBlob": {"read": True, "support": "required"}}, 0x11),
    "largeBlob is true": ({"largeBlob": True}, 0x11),
    "credProtect 0": ({"credProtect": 0}, 0x2C),
    "credProtect 4": ({"credProtect": 4}, 0x2C),
    "credProtect true": ({"credProtect": True}, 0x11),
    "credBlob is text": ({"credBlob": "x"}, 0x11),
    "another's hmac-secret is passed over": ({"hmac-secret": 1, "largeBlobKey": False}, 0x00),
    "names that are no text": ({1: 2}, 0x00),
}
GET_ROWS = {
    "prf empty": ({"prf": {}}, 0x00),
    "prf eval no first": ({"prf": {"eval": {}}}, 0x14),
    "prf eval short": ({"prf": {"eval": {"first": b""}}}, 0x11),
    "prf by credential is a list": ({"prf": {"evalByCredential": []}}, 0x11),
    "prf by credential of text": ({"prf": {"evalByCredential": {"x": {"first": A}}}}, 0x11),
    "prf by credential no map": ({"prf": {"evalByCredential": {b"x": A}}}, 0x11),
    "prf by another credential malformed": ({"prf": {"evalByCredential": {b"x": {"first": b"short"}}}}, 0x11),
    "largeBlob read": ({"largeBlob": {"read": True}}, 0x00),
    "largeBlob read and write": ({"largeBlob": {"originalSize": 1, "read": True, "write": b""}}, 0x11),
    "largeBlob write without size": ({"largeBlob": {"write": PACKED}}, 0x14),
    "largeBlob size without write": ({"largeBlob": {"originalSize": 5}}, 0x14),
    "largeBlob write and more": ({"largeBlob": {"x": 1, "originalSize": 1, "write": b""}}, 0x11),
    "largeBlob empty": ({"largeBlob": {}}, 0x14),
    "largeBlob support": ({"largeBlob": {"support": "required"}}, 0x14),
    "credBlob is bytes": ({"credBlob": b"x"}, 0x11),
}


def canonical(extensions: dict[Any, Any]) -> dict[Any, Any]:
    return dict(cbor.decode_map(cbor.encode(extensions)))


@pytest.mark.parametrize(("extensions", "wanted"), CREATE_ROWS.values(), ids=CREATE_ROWS.keys())
async def test_create_row(extensions: dict[Any, Any], wanted: int) -> None:
    person = Person()
    assert await status(phone(MemoryStore(), person), create(m6=canonical(extensions))) == wanted
    assert bool(person.prompts) == (wanted == 0), "a malformed input is refused before a person is asked"


@pytest.mark.parametrize(("extensions", "wanted"), GET_ROWS.values(), ids=GET_ROWS.keys())
async def test_get_row(extensions: dict[Any, Any], wanted: int) -> None:
    authenticator, _, _ = await with_passkey()
    assert await status(authenticator, sign_in(m4=canonical(extensions))) == wanted


# --- phone: prf ------------------------------------------------------------------------------------------------------


async def test_prf_at_creation_is_unsigned() -> None:
    store = MemoryStore()
    authenticator = phone(store)
    plain = await ok(authenticator, create())
    assert set(plain) == {1, 2, 3}
    fields = await ok(authenticator, create(m6={"prf": {}}))
    assert fields[6] == {"prf": {"enabled": True}}
    fields = await ok(authenticator, create(m6={"prf": {"eval": {"first": A, "second": B}}}))
    credential = store.credentials()[-1]
    results = {"first": expected(credential, A), "second": expected(credential, B)}
    assert fields[6] == {"prf": {"enabled": True, "results": results}}
    assert AttestationResponse.from_dict(fields).auth_data.flags & 0x80 == 0


async def test_prf_at_sign_in() -> None:
    authenticator, credential, _ = await with_passkey()
    one, two = expected(credential, A), expected(credential, B)
    mine = credential.credential_id
    rows: list[tuple[dict[str, Any], dict[str, bytes] | None]] = [
        ({}, None),
        ({"eval": {"first": A}}, {"first": one}),
        ({"eval": {"first": A, "second": B}}, {"first": one, "second": two}),
        ({"eval": {"first": A}, "evalByCredential": {mine: {"first": B}}}, {"first": two}),
        ({"eval": {"first": A}, "evalByCredential": {b"other": {"first": B}}}, {"first": one}),
        ({"evalByCredential": {b"other": {"first": B}}}, None),
        ({"evalByCredential": {mine: {"first": A, "second": B}}}, {"first": one, "second": two}),
    ]
    for asked, results in rows:
        fields = await ok(authenticator, sign_in(m3=[descriptor(mine)], m4={"prf": asked}))
        assert fields.get(8) == (None if results is None else {"prf": {"results": results}})
        assert AssertionResponse.from_dict({k: v for k, v in fields.items() if k != 8}).auth_data.extensions is None


async def test_prf_of_a_passkey_without_secrets() -> None:
    authenticator, credential, store = await with_passkey()
    store.update(replace(credential, secret_uv=None, secret_no_uv=None))
    assert 8 not in await ok(authenticator, sign_in(m4={"prf": {"eval": {"first": A}}}))


# --- phone: large blob, credBlob, credProtect ------------------------------------------------------------------------


async def test_large_blob_is_written_and_read() -> None:
    authenticator, credential, store = await with_passkey()
    created = await ok(phone(MemoryStore()), create(m6={"largeBlob": {"support": "required"}}))
    assert created[6] == {"largeBlob": {"supported": True}}
    assert 8 not in await ok(authenticator, sign_in(m4={"largeBlob": {"read": True}}))
    write = {"largeBlob": {"write": PACKED, "originalSize": len(DATA)}}
    assert (await ok(authenticator, sign_in(m4=write)))[8] == {"largeBlob": {"written": True}}
    found = store.find(credential.credential_id)
    assert found is not None
    assert found.large_blob == (PACKED, len(DATA))
    assert found.use_count == 2
    read = await ok(authenticator, sign_in(m4={"largeBlob": {"read": True}}))
    assert read[8] == {"largeBlob": {"blob": PACKED, "originalSize": len(DATA)}}
    assert 8 not in await ok(authenticator, sign_in(m4={"largeBlob": {"read": False}}))


BAD_BLOBS = {
    "larger than it says": (PACKED, len(DATA) - 1),
    "smaller than it says": (PACKED, len(DATA) + 1),
    "cut": (PACKED[:-1], len(DATA)),
    "more behind": (PACKED + b"x", len(DATA)),
    "no DEFLATE": (b"\xff" * 20, 20),
    "too large": (deflated(bytes(hashlib.shake_256(b"x").digest(4200))), 4200),
    "a bomb": (deflated(bytes(3_000_000)), 3_000_000),
    "below nothing": (PACKED, -1),
}


@pytest.mark.parametrize(("data", "size"), BAD_BLOBS.values(), ids=BAD_BLOBS.keys())
async def test_large_blob_that_does_not_fit_is_not_kept(data: bytes, size: int) -> None:
    authenticator, credential, store = await with_passkey()
    fields = await ok(authenticator, sign_in(m4={"largeBlob": {"write": data, "originalSize": size}}))
    assert fields[8] == {"largeBlob": {"written": False}}
    found = store.find(credential.credential_id)
    assert found is not None
    assert found.large_blob is None


async def test_cred_blob_and_cred_protect_are_signed() -> None:
    authenticator = phone(MemoryStore())
    fields = await ok(authenticator, create(m6={"credBlob": b"b" * 32, "credProtect": 3}))
    assert AttestationResponse.from_dict(fields).auth_data.extensions == {"credBlob": True, "credProtect": 3}
    # Always verified, so nothing is hidden (G9).
    fields = await ok(authenticator, sign_in(m4={"credBlob": True}))
    assert AssertionResponse.from_dict(fields).auth_data.extensions == {"credBlob": b"b" * 32}
    fields = await ok(authenticator, create(m6={"credBlob": b"b" * 33}))
    assert AttestationResponse.from_dict(fields).auth_data.extensions == {"credBlob": False}
    fields = await ok(authenticator, sign_in(m4={"credBlob": True}))
    assert AssertionResponse.from_dict(fields).auth_data.extensions == {"credBlob": b""}


# --- roaming ---------------------------------------------------------------------------------------------------------


def sealed(key: Key, *salts: bytes) -> tuple[dict[int, Any], bytes]:
    """An hmac-secret input, and the secret that opens the output."""
    key_agreement, shared = key.agreement()
    salt_enc = key.protocol.encrypt(shared, b"".join(salts))
    salt_auth = key.protocol.authenticate(shared, salt_enc)
    return {1: dict(key_agreement), 2: salt_enc, 3: salt_auth, 4: key.protocol.VERSION}, shared


def make(key: Key, extensions: dict[str, Any], *, verified: bool = True, **options: bool) -> AttestationResponse:
    signature = key.signed(key.token(1, RP_ID), HASH) if verified else {}
    return key.ctap.make_credential(
        HASH,
        {"id": RP_ID},
        {"id": b"u", "name": "ann"},
        [{"alg": -7, "type": "public-key"}],
        extensions=extensions,
        options=options or None,
        **signature,
    )


def use(key: Key, extensions: dict[str, Any], *, verified: bool = True, allow: Any = None, **options: bool) -> Any:
    signature = key.signed(key.token(2, RP_ID), HASH) if verified else {}
    return key.ctap.get_assertion(RP_ID, HASH, allow, extensions=extensions, options=options or None, **signature)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_hmac_secret_and_native_prf_give_the_same_bytes(protocol: type[PinProtocol]) -> None:
    key = Key(protocol=protocol)
    asked, shared = sealed(key, A, B)
    made = make(key, {"hmac-secret": True, "hmac-secret-mc": asked}, rk=True)
    assert made.auth_data.extensions is not None
    assert made.auth_data.extensions["hmac-secret"] is True
    at_creation = key.protocol.decrypt(shared, made.auth_data.extensions["hmac-secret-mc"])
    asked, shared = sealed(key, A, B)
    at_sign_in = key.protocol.decrypt(shared, use(key, {"hmac-secret": asked}).auth_data.extensions["hmac-secret"])
    fields = asyncio.run(ok(phone(key.store), sign_in(m4={"prf": {"eval": {"first": A, "second": B}}})))
    results = fields[8]["prf"]["results"]
    assert at_creation == at_sign_in == results["first"] + results["second"]


def test_hmac_secret_differs_without_verification() -> None:
    key = Key()
    make(key, {"hmac-secret": True}, rk=True)
    outputs = []
    for verified in (True, False):
        asked, shared = sealed(key, A)
        output = use(key, {"hmac-secret": asked}, verified=verified).auth_data.extensions["hmac-secret"]
        outputs.append(key.protocol.decrypt(shared, output))
    assert outputs[0] != outputs[1]
    assert len(outputs[0]) == len(outputs[1]) == 32


HMAC_ROWS = {
    "is true": (lambda asked: True, 0x11),
    "no key": (lambda asked: {k: v for k, v in asked.items() if k != 1}, 0x14),
    "no salts": (lambda asked: {k: v for k, v in asked.items() if k != 2}, 0x14),
    "no signature": (lambda asked: {k: v for k, v in asked.items() if k != 3}, 0x14),
    "key is bytes": (lambda asked: {**asked, 1: b""}, 0x11),
    "key without x": (lambda asked: {**asked, 1: {1: 2, 3: -25, -1: 1, -3: A}}, 0x14),
    "key of another curve": (lambda asked: {**asked, 1: {**asked[1], -1: 2}}, 0x02),
    "key not on the curve": (lambda asked: {**asked, 1: {**asked[1], -2: A}}, 0x02),
    "salts of 48 bytes more": (lambda asked: {**asked, 2: asked[2] + bytes(48)}, 0x03),
    "wrong signature": (lambda asked: {**asked, 3: bytes(32)}, 0x33),
    "short signature": (lambda asked: {**asked, 3: bytes(16)}, 0x03),
    "unknown protocol": (lambda asked: {**asked, 4: 3}, 0x02),
}


@pytest.mark.parametrize(("change", "wanted"), HMAC_ROWS.values(), ids=HMAC_ROWS.keys())
def test_hmac_secret_row(change: Any, wanted: int) -> None:
    key = Key()
    make(key, {"hmac-secret": True}, rk=True)
    asked, _ = sealed(key, A)
    assert key.status(2, {1: RP_ID, 2: HASH, 4: {"hmac-secret": change(asked)}}) == wanted


def test_hmac_secret_of_a_ctap_2_0_client_has_its_own_error() -> None:
    key = Key(protocol=PinProtocolV1)
    make(key, {"hmac-secret": True}, rk=True)
    asked, _ = sealed(key, A)
    del asked[4]
    assert key.status(2, {1: RP_ID, 2: HASH, 4: {"hmac-secret": asked}}) == 0
    assert key.status(2, {1: RP_ID, 2: HASH, 4: {"hmac-secret": {**asked, 3: bytes(16)}}}) == 0xE0


def test_hmac_secret_needs_a_person() -> None:
    key = Key()
    make(key, {"hmac-secret": True}, rk=True)
    asked, _ = sealed(key, A)
    assert key.status(2, {1: RP_ID, 2: HASH, 4: {"hmac-secret": asked}, 5: {"up": False}}) == 0x2B


def test_hmac_secret_mc_only_with_hmac_secret() -> None:
    key = Key()
    asked, _ = sealed(key, A)
    made = make(key, {"hmac-secret-mc": asked}, rk=True)
    assert made.auth_data.extensions is None


def test_large_blob_key() -> None:
    key = Key()
    made = make(key, {"largeBlobKey": True}, rk=True)
    assert made.large_blob_key is not None
    assert len(made.large_blob_key) == 32
    assert use(key, {"largeBlobKey": True}).large_blob_key == made.large_blob_key
    assert use(key, {}).large_blob_key is None
    assert key.status(2, {1: RP_ID, 2: HASH, 4: {"largeBlobKey": False}}) == 0x2C
    key = Key(pin=None)
    request = {1: HASH, 2: {"id": RP_ID}, 3: {"id": b"u"}, 4: [{"alg": -7, "type": "public-key"}]}
    assert key.status(1, {**request, 6: {"largeBlobKey": True}}) == 0x2C
    assert key.status(1, {**request, 6: {"largeBlobKey": True}, 7: {"rk": True}}) == 0


def test_third_party_payment() -> None:
    key = Key()
    assert make(key, {"thirdPartyPayment": True}, rk=True).auth_data.extensions is None
    assert use(key, {"thirdPartyPayment": True}).auth_data.extensions == {"thirdPartyPayment": True}
    make(key, {}, rk=True)
    assert use(key, {"thirdPartyPayment": True}).auth_data.extensions == {"thirdPartyPayment": False}


def test_native_extensions_are_not_served_here() -> None:
    key = Key()
    made = make(key, {"prf": {}, "largeBlob": {"support": "required"}}, rk=True)
    assert made.unsigned_extension_outputs == {}
    assert use(key, {"prf": {"eval": {"first": A}}}).auth_data.extensions is None


PROTECT_ROWS = {  # level: found without verification in a list, without a list
    1: (True, True),
    2: (True, False),
    3: (False, False),
}


@pytest.mark.parametrize(("level", "found"), PROTECT_ROWS.items())
def test_g9_cred_protect(level: int, found: tuple[bool, bool]) -> None:
    key = Key()
    made = make(key, {"credProtect": level}, rk=True)
    assert made.auth_data.extensions == {"credProtect": level}
    assert made.auth_data.credential_data is not None
    listed = [descriptor(made.auth_data.credential_data.credential_id)]
    statuses = tuple(
        key.status(2, {1: RP_ID, 2: HASH, **({3: allow} if allow else {})}) == 0 for allow in (listed, None)
    )
    assert statuses == found
    assert use(key, {}, allow=listed).auth_data.flags & 4
    assert use(key, {}).auth_data.flags & 4
    # Excluding is seen likewise: level 3 shows itself to nobody who is not verified.
    request = {1: HASH, 2: {"id": RP_ID}, 3: {"id": b"v"}, 4: [{"alg": -7, "type": "public-key"}], 5: listed}
    assert key.status(1, request) == (0 if level == 3 else 0x19)
