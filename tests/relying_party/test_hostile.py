"""Hostile use: every check of the website that an attacker meets, with answers whose signatures are good."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key
from fido2.utils import websafe_decode, websafe_encode

from tests.relying_party.visitor import Phone, Site, Visitor, create, get, reason, settings


async def test_a_replayed_assertion(site: Site, ann: Visitor, bob: Visitor, phone: Phone) -> None:
    await ann.join("ann", phone)
    answer = get(await bob.options("sign-in/begin"), phone)
    assert reason(await bob.post("sign-in/finish", answer)) == ""
    assert reason(await bob.post("sign-in/finish", answer)) == "challenge"


async def test_a_replayed_registration(site: Site, ann: Visitor, phone: Phone) -> None:
    answer = create(await ann.options("join/begin", name="ann"), phone)
    assert reason(await ann.post("join/finish", answer)) == ""
    assert reason(await ann.post("join/finish", answer)) == "challenge"


async def test_a_challenge_is_used_up_by_a_bad_answer_too(site: Site, ann: Visitor, phone: Phone) -> None:
    await ann.join("ann", phone)
    options = await ann.options("sign-in/begin")
    assert reason(await ann.post("sign-in/finish", get(options, phone, origin="https://evil.example"))) == "origin"
    assert reason(await ann.post("sign-in/finish", get(options, phone))) == "challenge"


async def test_an_answer_from_another_browser(site: Site, ann: Visitor, bob: Visitor, phone: Phone) -> None:
    await ann.join("ann", phone)
    answer = get(await ann.options("sign-in/begin"), phone)
    assert reason(await bob.post("sign-in/finish", answer)) == "challenge"


async def test_an_old_answer(site: Site, ann: Visitor, phone: Phone) -> None:
    await ann.join("ann", phone)
    answer = get(await ann.options("sign-in/begin"), phone)
    site.clock.now += settings().challenge_lifetime
    assert reason(await ann.post("sign-in/finish", answer)) == "challenge"


async def test_a_challenge_made_up(site: Site, ann: Visitor, phone: Phone) -> None:
    await ann.join("ann", phone)
    answer = get({"challenge": websafe_encode(bytes(32))}, phone)
    assert reason(await ann.post("sign-in/finish", answer)) == "challenge"


async def test_a_challenge_for_another_purpose(site: Site, ann: Visitor, phone: Phone) -> None:
    await ann.join("ann", phone)
    answer = get(await ann.options("sign-in/begin"), phone)
    assert reason(await ann.post("confirm/finish", answer)) == "challenge"
    answer = get(await ann.options("confirm/begin"), phone)
    assert reason(await ann.post("sign-in/finish", answer)) == "challenge"


async def test_a_challenge_of_the_account_that_was_signed_in_before(
    site: Site, ann: Visitor, phone: Phone, other_phone: Phone
) -> None:
    """One browser, two accounts one after the other: what was begun for the first is not finished for the second."""
    await ann.join("ann", phone)
    adding = create(await ann.options("passkeys/begin"), other_phone)
    confirming = get(await ann.options("confirm/begin"), phone)
    await ann.post("sign-out")
    third = Phone()
    with third.device:
        await ann.join("eve", third)
    assert reason(await ann.post("passkeys/finish", adding)) == "challenge"
    assert reason(await ann.post("confirm/finish", confirming)) == "challenge"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "https://harbour.example.evil.example",
        "https://login.harbour.example",  # python-fido2's own rule would take any subdomain
        "https://harbour.example:8443",
        "http://harbour.example",
        "null",
        "",
    ],
)
async def test_a_foreign_origin(site: Site, ann: Visitor, phone: Phone, other_phone: Phone, origin: str) -> None:
    await ann.join("ann", phone)
    assert reason(await ann.sign_in(phone, origin=origin)) == "origin"
    assert reason(await ann.add(other_phone, origin=origin)) == "origin"


@pytest.mark.parametrize(
    "framing", [{"crossOrigin": True}, {"topOrigin": "https://evil.example"}, {"crossOrigin": "false"}], ids=str
)
async def test_a_page_that_frames_us(
    site: Site, ann: Visitor, phone: Phone, other_phone: Phone, framing: dict[str, Any]
) -> None:
    await ann.join("ann", phone)
    assert reason(await ann.sign_in(phone, **framing)) == "framed"
    assert reason(await ann.add(other_phone, **framing)) == "framed"


async def test_the_wrong_kind_of_answer(site: Site, ann: Visitor, phone: Phone, other_phone: Phone) -> None:
    await ann.join("ann", phone)
    assert reason(await ann.sign_in(phone, kind="webauthn.create")) == "invalid-answer"
    assert reason(await ann.add(other_phone, kind="webauthn.get")) == "invalid-answer"


async def test_a_swapped_user_handle(site: Site, ann: Visitor, bob: Visitor, phone: Phone, other_phone: Phone) -> None:
    await ann.join("ann", phone)
    await bob.join("bob", other_phone)
    (of_bob,) = other_phone.store.credentials()
    assert reason(await ann.sign_in(phone, user_handle=of_bob.user_id)) == "user-handle"
    assert reason(await ann.sign_in(phone, user_handle=None)) == "user-handle"
    assert site.last_detail()["reason"] == "user-handle"


async def test_somebody_elses_passkey_confirms_nothing(
    site: Site, ann: Visitor, bob: Visitor, phone: Phone, other_phone: Phone
) -> None:
    await ann.join("ann", phone)
    await bob.join("bob", other_phone)
    options = await ann.options("confirm/begin")
    answer = get({**options, "allowCredentials": []}, other_phone)
    assert reason(await ann.post("confirm/finish", answer)) == "user-handle"


async def test_somebody_elses_passkey_is_out_of_reach(
    site: Site, ann: Visitor, bob: Visitor, phone: Phone, other_phone: Phone
) -> None:
    await ann.join("ann", phone)
    await bob.join("bob", other_phone)
    (of_bob,) = other_phone.store.credentials()
    for path in ("passkeys/remove", "passkeys/rename", "passkeys/copied"):
        body = {"id": websafe_encode(of_bob.credential_id), "name": "mine"}
        assert reason(await ann.post(path, body)) == "unknown-passkey"


@pytest.mark.parametrize(("before", "after"), [(False, True), (True, False)])
async def test_a_flipped_be(site: Site, ann: Visitor, before: bool, after: bool) -> None:
    phone = Phone(synced=before)
    with phone.device:
        await ann.join("ann", phone)
        phone.tamper(backup_eligible=after, backed_up=False)
        assert reason(await ann.sign_in(phone)) == "backup-changed"
    assert site.events()[-1] == "refused"
    assert site.last_detail()["reason"] == "backup-changed"


def flip(answer: dict[str, Any], flag: int) -> dict[str, Any]:
    """Change a flag of an assertion, whose signature does not fit any more."""
    seen = bytearray(websafe_decode(answer["response"]["authenticatorData"]))
    seen[32] ^= flag
    return {**answer, "response": {**answer["response"], "authenticatorData": websafe_encode(bytes(seen))}}


def sign_anew(answer: dict[str, Any], phone: Phone) -> dict[str, Any]:
    """What a device would send that lies: the passkey's own signature over what the answer says now."""
    (credential,) = phone.store.credentials()
    key = load_der_private_key(credential.private_key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    response = answer["response"]
    hashed = sha256(websafe_decode(response["clientDataJSON"])).digest()
    signature = key.sign(websafe_decode(response["authenticatorData"]) + hashed, ec.ECDSA(hashes.SHA256()))
    return {**answer, "response": {**response, "signature": websafe_encode(signature)}}


@pytest.mark.parametrize(
    ("flag", "expected"),
    [(0x01, "invalid-answer"), (0x04, "not-verified"), (0x08, "backup-changed"), (0x10, "backup-flags")],
)
async def test_flags_of_a_device_that_lies(site: Site, ann: Visitor, phone: Phone, flag: int, expected: str) -> None:
    await ann.join("ann", phone)
    answer = flip(get(await ann.options("sign-in/begin"), phone), flag)
    assert reason(await ann.post("sign-in/finish", sign_anew(answer, phone))) == expected
    answer = sign_anew(get(await ann.options("sign-in/begin"), phone), phone)
    assert reason(await ann.post("sign-in/finish", answer)) == ""


@pytest.mark.parametrize("flag", [0x08, 0x10, 0x20])
async def test_flags_are_signed(site: Site, ann: Visitor, phone: Phone, flag: int) -> None:
    await ann.join("ann", phone)
    answer = flip(get(await ann.options("sign-in/begin"), phone), flag)
    assert reason(await ann.post("sign-in/finish", answer)) == "invalid-answer"


async def test_bs_without_be_at_registration(site: Site, ann: Visitor, phone: Phone) -> None:
    answer = create(await ann.options("join/begin", name="ann"), phone)
    attestation = websafe_decode(answer["response"]["attestationObject"])
    flags = attestation.index(b"authData") + 8 + 2 + 32  # after its CBOR head and the hash of the RP id
    assert attestation[flags] == 0x45
    answer["response"]["attestationObject"] = websafe_encode(
        attestation[:flags] + bytes([0x55]) + attestation[flags + 1 :]
    )
    assert reason(await ann.post("join/finish", answer)) == "backup-flags"


async def test_a_counter_that_goes_backwards(site: Site, ann: Visitor, phone: Phone) -> None:
    await ann.join("ann", phone)
    phone.tamper(sign_count=10)
    assert reason(await ann.sign_in(phone)) == ""
    assert reason(await ann.sign_in(phone)) == ""
    (kept,) = phone.store.credentials()
    assert kept.sign_count == 12
    for behind in (10, 11):  # the next signature says one more: less than the last one, and the same
        phone.tamper(sign_count=behind)
        assert reason(await ann.sign_in(phone)) == "counter"
    phone.tamper(sign_count=None)  # zero after it was not
    assert reason(await ann.sign_in(phone)) == "counter"


async def test_an_algorithm_that_was_not_asked_for(site: Site, ann: Visitor, phone: Phone) -> None:
    options = await ann.options("join/begin", name="ann")
    answer = create({**options, "pubKeyCredParams": [{"type": "public-key", "alg": -9}]}, phone)
    assert reason(await ann.post("join/finish", answer)) == "algorithm"


async def test_another_site(site: Site, ann: Visitor, phone: Phone) -> None:
    options = await ann.options("join/begin", name="ann")
    answer = create({**options, "rp": {"id": "other.example", "name": "Other"}}, phone)
    assert reason(await ann.post("join/finish", answer)) == "invalid-answer"


async def test_a_passkey_belongs_to_one_account(
    site: Site, ann: Visitor, bob: Visitor, phone: Phone, other_phone: Phone
) -> None:
    """Registering a known id would let its owner into somebody else's account, or out of theirs."""
    await ann.join("ann", phone)
    (of_ann,) = phone.store.credentials()
    options = await bob.options("join/begin", name="bob")
    answer = create(options, other_phone)
    (of_bob,) = other_phone.store.credentials()
    stolen = websafe_decode(answer["response"]["attestationObject"]).replace(of_bob.credential_id, of_ann.credential_id)
    answer["response"]["attestationObject"] = websafe_encode(stolen)
    assert reason(await bob.post("join/finish", answer)) == "invalid-answer"  # the id beside it is another one
    answer = create(await bob.options("join/begin", name="bob"), other_phone)
    of_bob = other_phone.store.credentials()[-1]
    stolen = websafe_decode(answer["response"]["attestationObject"]).replace(of_bob.credential_id, of_ann.credential_id)
    answer["response"]["attestationObject"] = websafe_encode(stolen)
    answer["id"] = answer["rawId"] = websafe_encode(of_ann.credential_id)
    assert reason(await bob.post("join/finish", answer)) == "known-passkey"
    assert [account.name for account in site.website.accounts.everyone()] == ["ann"]


@pytest.mark.parametrize(
    "change",
    [
        {"response": None},
        {"response": {}},
        {"rawId": "!"},
        {"id": "AAAA"},
        {"response": {"clientDataJSON": "e30", "authenticatorData": "AAAA", "signature": ""}},
        {"response": {"clientDataJSON": "W10", "authenticatorData": "A" * 60, "signature": ""}},
        {"response": {"clientDataJSON": 5, "authenticatorData": "A" * 60, "signature": []}},
    ],
    ids=str,
)
async def test_answers_that_are_none(site: Site, ann: Visitor, phone: Phone, change: dict[str, Any]) -> None:
    await ann.join("ann", phone)
    answer = {**get(await ann.options("sign-in/begin"), phone), **change}
    assert reason(await ann.post("sign-in/finish", answer)) == "invalid-answer"


async def test_deeply_nested_cbor(site: Site, ann: Visitor, phone: Phone) -> None:
    answer = create(await ann.options("join/begin", name="ann"), phone)
    answer["response"]["attestationObject"] = websafe_encode(b"\x81" * 40_000)
    assert reason(await ann.post("join/finish", answer)) == "invalid-answer"


@pytest.mark.parametrize(
    "head", [b"", b"\x18", b"\x19\x01", b"\x1a\x01", b"\x1b\x01", b"\x58\x20", b"\xa1"], ids=bytes.hex
)
async def test_cbor_that_ends_too_early(site: Site, ann: Visitor, phone: Phone, head: bytes) -> None:
    answer = create(await ann.options("join/begin", name="ann"), phone)
    answer["response"]["attestationObject"] = websafe_encode(head)
    assert reason(await ann.post("join/finish", answer)) == "invalid-answer"


async def test_challenges_are_kept_hashed(site: Site, ann: Visitor, phone: Phone) -> None:
    handed_out = [(await ann.options("join/begin", name="ann"))["challenge"]]
    await ann.join("ann", phone)
    for path in ("sign-in/begin", "confirm/begin", "passkeys/begin"):
        handed_out.append((await ann.options(path))["challenge"])
    rows = site.website.database.rows("SELECT * FROM challenge")
    assert len(rows) == 4
    kept = repr([tuple(row) for row in rows])
    for challenge in handed_out:
        assert challenge not in kept
        assert repr(websafe_decode(challenge))[2:-1] not in kept


async def test_a_signature_of_another_key(site: Site, ann: Visitor, bob: Visitor, phone: Phone) -> None:
    await ann.join("ann", phone)
    answer = get(await ann.options("sign-in/begin"), phone)
    other = get(await ann.options("sign-in/begin"), phone)
    answer["response"]["signature"] = other["response"]["signature"]
    assert reason(await ann.post("sign-in/finish", answer)) == "invalid-answer"


async def test_nobody_does_anything_signed_out(site: Site, ann: Visitor) -> None:
    for path in (
        *("confirm/begin", "confirm/finish", "passkeys/begin", "passkeys/finish", "passkeys/rename"),
        *("passkeys/remove", "passkeys/copied", "account/name", "codes/new", "admin/policy"),
    ):
        assert reason(await ann.post(path, {"id": "AAAA"})) == "signed-out"


async def test_a_cookie_of_somebody_else_is_not_taken_over(site: Site, ann: Visitor, phone: Phone) -> None:
    """Session fixation: signing in makes a new token, whatever cookie came with the request."""
    ann.client.cookies.set("__Host-session", "planted", domain="harbour.example")
    joined = await ann.join("ann", phone)
    assert "planted" not in joined.headers["set-cookie"]
