"""The website with real attestations and assertions: what works, and what is kept of it."""

from __future__ import annotations

import json

import pytest
from fido2.utils import websafe_decode

from tests.relying_party.visitor import ORIGIN, RELATED, Phone, Site, Visitor, create, get, reason, settings
from tests.relying_party.visitor import site as make_site


async def test_join_and_sign_in(site: Site, ann: Visitor, bob: Visitor, phone: Phone) -> None:
    joined = await ann.join("ann", phone)
    assert reason(joined) == ""
    assert reason(await bob.sign_in(phone)) == ""
    assert site.events() == ["account-made", "passkey-added", "codes-made", "signed-in"]
    assert site.last_detail() == {
        "passkey": site.last_detail()["passkey"],
        "name": "fido-hybrid",
        "way": "phone",
        "transports": "hybrid, internal",
        "be": False,
        "bs": False,
    }


async def test_what_is_kept_of_a_passkey(site: Site, ann: Visitor, synced_phone: Phone) -> None:
    await ann.join("ann", synced_phone, transports=("internal", "hybrid", "<script>"))
    account = site.website.accounts.named("ANN")
    assert account is not None
    assert len(account.id) == 32
    (passkey,) = site.website.accounts.passkeys(account)
    (kept,) = synced_phone.store.credentials()
    assert (passkey.id, passkey.algorithm, passkey.transports) == (kept.credential_id, -7, ("hybrid", "internal"))
    assert (passkey.backup_eligible, passkey.backed_up, passkey.counter) == (True, True, 0)
    assert (passkey.attachment, passkey.created, passkey.last_used) == ("cross-platform", site.clock.now, None)
    assert (str(passkey.aaguid), passkey.nickname) == ("e0292e03-97e0-421c-82f1-28e6935b08f4", "fido-hybrid")
    site.clock.now += 5
    await ann.sign_in(synced_phone, attachment="platform")
    (passkey,) = site.website.accounts.passkeys(account)
    assert (passkey.last_used, passkey.last_way) == (site.clock.now, "this-device")


@pytest.mark.parametrize(
    ("where", "hint", "attachment"),
    [
        ("phone", "hybrid", "cross-platform"),
        ("security-key", "security-key", "cross-platform"),
        ("this-device", "client-device", "platform"),
        ("", None, None),
        ("elsewhere", None, None),
    ],
)
async def test_options(site: Site, ann: Visitor, where: str, hint: str | None, attachment: str | None) -> None:
    asked = await ann.options("sign-in/begin", where=where)
    assert asked.get("hints") == ([hint] if hint else None)
    assert not asked.get("allowCredentials")
    assert (asked["rpId"], asked["userVerification"]) == ("harbour.example", "required")
    made = await ann.options("join/begin", name="ann", where=where)
    assert made.get("hints") == ([hint] if hint else None)
    assert made["authenticatorSelection"].get("authenticatorAttachment") == attachment
    assert made["authenticatorSelection"]["residentKey"] == "required"
    assert [item["alg"] for item in made["pubKeyCredParams"]] == [-7, -8, -257]
    assert made["extensions"] == {"credProps": True}
    assert made["attestation"] == "none"


async def test_another_passkey_is_added_and_the_first_is_excluded(
    site: Site, ann: Visitor, phone: Phone, other_phone: Phone
) -> None:
    await ann.join("ann", phone)
    (first,) = phone.store.credentials()
    options = await ann.options("passkeys/begin")
    (excluded,) = options["excludeCredentials"]
    assert websafe_decode(excluded["id"]) == first.credential_id
    assert excluded["transports"] == ["hybrid", "internal"]
    with pytest.raises(Exception, match="CREDENTIAL_EXCLUDED"):
        create(options, phone)
    added = await ann.post("passkeys/finish", create(options, other_phone))
    assert reason(added) == ""
    (second,) = other_phone.store.credentials()
    listed = added.json()["signal"]["allAcceptedCredentialIds"]
    assert [websafe_decode(text) for text in listed] == [first.credential_id, second.credential_id]
    assert reason(await ann.sign_in(phone)) == reason(await ann.sign_in(other_phone)) == ""


@pytest.mark.parametrize("policy", ["any", "device-bound"])
async def test_an_automatic_passkey_needs_neither_presence_nor_verification(
    site: Site, ann: Visitor, phone: Phone, other_phone: Phone, policy: str
) -> None:
    from fido2.utils import websafe_encode
    from fido2.webauthn import AttestationObject, AuthenticatorData

    await ann.join("ann", phone, policy=policy)
    for automatic, expected in ((False, "not-verified"), (True, "" if policy == "any" else "not-verified")):
        options = await ann.options("passkeys/begin", automatic=automatic)
        answer = create(options, other_phone)
        seen = AttestationObject(websafe_decode(answer["response"]["attestationObject"])).auth_data
        silent = bytearray(seen)
        silent[32] &= ~0x05
        attestation = AttestationObject.create("none", AuthenticatorData(bytes(silent)), {})
        answer["response"]["attestationObject"] = websafe_encode(attestation)
        assert reason(await ann.post("passkeys/finish", answer)) == expected


async def test_an_automatic_passkey_is_for_this_site(
    site: Site, ann: Visitor, phone: Phone, other_phone: Phone
) -> None:
    await ann.join("ann", phone)
    options = await ann.options("passkeys/begin", automatic=True)
    answer = create({**options, "rp": {"id": "other.example", "name": "Other"}}, other_phone)
    assert reason(await ann.post("passkeys/finish", answer)) == "invalid-answer"
    options = await ann.options("passkeys/begin", automatic=True)
    answer = create(options, other_phone, kind="webauthn.get")
    assert reason(await ann.post("passkeys/finish", answer)) == "invalid-answer"


async def test_passkey_on_this_device_is_offered_to_those_who_come_by_phone(
    site: Site, ann: Visitor, phone: Phone
) -> None:
    await ann.join("ann", phone)
    assert (await ann.sign_in(phone)).json()["upgrade"] is True
    assert (await ann.sign_in(phone, attachment="platform")).json()["upgrade"] is False


async def test_what_the_browser_is_told_after_sign_in(site: Site, ann: Visitor, phone: Phone) -> None:
    await ann.join("ann", phone)
    signal = (await ann.sign_in(phone)).json()["signal"]
    (kept,) = phone.store.credentials()
    assert signal["rpId"] == "harbour.example"
    assert (signal["name"], signal["displayName"]) == ("ann", "ann")
    assert websafe_decode(signal["userId"]) == kept.user_id
    renamed = await ann.post("account/name", {"displayName": "Ann  Example"})
    assert renamed.json()["signal"]["displayName"] == "Ann Example"


async def test_an_unknown_passkey_is_named_so_that_the_browser_can_forget_it(
    site: Site, ann: Visitor, phone: Phone, other_phone: Phone
) -> None:
    await ann.join("ann", phone)
    await ann.add(other_phone)
    (second,) = other_phone.store.credentials()
    await ann.post("passkeys/remove", {"id": created_id(other_phone)})
    refused = await ann.sign_in(other_phone)
    assert reason(refused) == "unknown-passkey"
    assert websafe_decode(refused.json()["unknown"]["credentialId"]) == second.credential_id
    assert refused.json()["unknown"]["rpId"] == "harbour.example"


def created_id(phone: Phone) -> str:
    from fido2.utils import websafe_encode

    return websafe_encode(phone.store.credentials()[0].credential_id)


async def test_rename_and_report_a_copy(site: Site, ann: Visitor, phone: Phone) -> None:
    await ann.join("ann", phone)
    assert reason(await ann.post("passkeys/rename", {"id": created_id(phone), "name": " My\u202e phone "})) == ""
    assert reason(await ann.post("passkeys/copied", {"id": created_id(phone)})) == ""
    assert site.events()[-2:] == ["passkey-renamed", "copy-reported"]
    account = site.website.accounts.named("ann")
    assert account is not None
    (passkey,) = site.website.accounts.passkeys(account)
    assert (passkey.nickname, passkey.copied) == ("My phone", site.clock.now)


async def test_a_changed_backup_state_is_kept_and_logged(site: Site, ann: Visitor, synced_phone: Phone) -> None:
    await ann.join("ann", synced_phone)
    synced_phone.tamper(backed_up=False)
    assert reason(await ann.sign_in(synced_phone)) == ""
    assert site.events()[-2:] == ["backup-changed", "signed-in"]
    assert site.last_detail()["bs"] is False


async def test_related_origins(site: Site, ann: Visitor, phone: Phone) -> None:
    listed = await ann.page("/.well-known/webauthn")
    assert listed.headers["content-type"] == "application/json"
    assert json.loads(listed.text) == {"origins": [RELATED]}
    assert reason(await ann.join("ann", phone, origin=RELATED)) == ""
    assert reason(await ann.sign_in(phone, origin=RELATED)) == ""


async def test_a_session_ends(site: Site, ann: Visitor, phone: Phone) -> None:
    await ann.join("ann", phone)
    assert (await ann.page("/account")).status_code == 200
    await ann.post("sign-out")
    assert (await ann.page("/account")).status_code == 303
    await ann.sign_in(phone)
    site.clock.now += settings().session_lifetime
    assert (await ann.page("/account")).status_code == 303


async def test_what_changes_the_account_wants_a_fresh_signature(site: Site, ann: Visitor, phone: Phone) -> None:
    await ann.join("ann", phone)
    site.clock.now += settings().fresh + 1
    for path in ("passkeys/begin", "passkeys/remove", "codes/new"):
        assert reason(await ann.post(path, {"id": created_id(phone)})) == "not-fresh"
    options = await ann.options("confirm/begin")
    assert [item["id"] for item in options["allowCredentials"]] == [created_id(phone)]
    assert reason(await ann.post("confirm/finish", get(options, phone))) == ""
    assert reason(await ann.post("codes/new")) == ""


async def test_headers_and_cookies(site: Site, ann: Visitor, phone: Phone) -> None:
    page = await ann.page("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["cache-control"] == "no-store"
    assert "max-age" in page.headers["strict-transport-security"]
    joined = await ann.join("ann", phone)
    cookie = joined.headers["set-cookie"]
    assert cookie.startswith("__Host-session=")
    for attribute in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"):
        assert attribute in cookie
    assert "Domain" not in cookie


async def test_on_localhost_cookies_work_without_https(phone: Phone) -> None:
    made = make_site(settings(rp_id="localhost", origins=("http://localhost:8000",)))
    assert not made.website.settings.secure
    made.website.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": RELATED},
        {"origin": ORIGIN, "sec-fetch-site": "cross-site"},
        {"origin": ORIGIN, "content-type": "text/plain"},
        {"origin": ORIGIN, "content-type": "application/x-www-form-urlencoded"},
    ],
    ids=str,
)
async def test_requests_of_other_sites_change_nothing(
    site: Site, ann: Visitor, phone: Phone, headers: dict[str, str]
) -> None:
    await ann.join("ann", phone)
    refused = await ann.post("sign-out", **headers)
    assert reason(refused) in ("foreign-request", "bad-request")
    assert (await ann.page("/account")).status_code == 200


async def test_other_host_names_are_sent_home(site: Site, ann: Visitor) -> None:
    page = await ann.client.get("/account", headers={"host": "rebound.example"})
    assert (page.status_code, page.headers["location"]) == (307, ORIGIN)
    posted = await ann.client.post("/api/sign-out", json={}, headers={"host": "rebound.example", "origin": ORIGIN})
    assert posted.status_code == 421


@pytest.mark.parametrize("body", [b"[]", b"{", b"[" * 60_000, b'{"a": "' + b"a" * 70_000 + b'"}', b"\xff"], ids=len)
async def test_bodies_that_are_none(site: Site, ann: Visitor, body: bytes) -> None:
    headers = {"origin": ORIGIN, "content-type": "application/json"}
    refused = await ann.client.post("/api/sign-in/finish", content=body, headers=headers)
    assert reason(refused) == "bad-request"


@pytest.mark.parametrize("name", ["", "   ", "\u202e", "x" * 65, None, 5, ["ann"]], ids=repr)
async def test_names_that_are_none(site: Site, ann: Visitor, name: object) -> None:
    assert reason(await ann.post("join/begin", {"name": name})) == "bad-request"


async def test_a_name_is_taken_once(site: Site, ann: Visitor, bob: Visitor, phone: Phone, other_phone: Phone) -> None:
    late = create(await bob.options("join/begin", name="Ann"), other_phone)
    await ann.join("ann", phone)
    assert reason(await bob.post("join/begin", {"name": "ANN"})) == "name-taken"
    assert reason(await bob.post("join/finish", late)) == "name-taken"
    assert len(site.website.accounts.everyone()) == 1
