"""What a website asks a phone for through Chromium, and gets."""

from __future__ import annotations

import pytest
from webauthn.helpers.exceptions import InvalidAuthenticationResponse

from hybrid.passkeys import AAGUID
from hybrid.testing.browser import Browser, Page, Phone
from hybrid.testing.browser.phone import Approve
from tests.browser.ceremonies import Ceremonies
from tests.browser.conftest import HASHED, SHOP
from tests.browser.relying_party import RelyingParty, b64, unb64

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def test_create_and_get(ceremonies: Ceremonies) -> None:
    made, outcome = ceremonies.create()
    assert made.credential.aaguid == AAGUID.bytes
    assert set(made.transports) == {"hybrid", "internal"}
    assert outcome.credential is not None
    assert outcome.credential["authenticatorAttachment"] == "cross-platform"
    who, outcome = ceremonies.get()
    assert who is made
    assert outcome.credential is not None
    assert outcome.credential["response"]["userHandle"] == b64(b"ada")


def test_the_website_notices_a_changed_answer(ceremonies: Ceremonies) -> None:
    made, _ = ceremonies.create()
    answer = ceremonies.get()[1].credential
    assert answer is not None
    signature = bytearray(unb64(answer["response"]["signature"]))
    signature[-1] ^= 1
    changed = answer | {"response": answer["response"] | {"signature": b64(bytes(signature))}}
    with pytest.raises(InvalidAuthenticationResponse, match="signature"):
        ceremonies.rp.check_by_py_webauthn(changed, made)
    with pytest.raises(ValueError, match="Invalid signature"):
        ceremonies.rp.check_by_python_fido2(changed, made)


def test_a_passkey_that_nobody_asked_to_be_discoverable(ceremonies: Ceremonies) -> None:
    selection = {"residentKey": "discouraged", "userVerification": "required"}
    made, _ = ceremonies.create(authenticatorSelection=selection, hints=[])
    assert ceremonies.get(allowCredentials=[made.descriptor])[0] is made


def test_a_choice_of_devices_comes_first(browser: Browser, ceremonies: Ceremonies) -> None:
    selection = {"residentKey": "discouraged", "userVerification": "required"}
    ceremony = ceremonies.page.create(ceremonies.rp.creation_options(authenticatorSelection=selection))
    browser.use_phone()
    assert ceremonies.phone.approve().succeeded
    ceremonies.rp.register(ceremony.outcome().credential)
    assert ceremony.log().steps[:2] == ("kMechanismSelection", "kCableV2QRCode")


@pytest.mark.parametrize(
    ("hints", "resident_key", "first"),
    [
        ([], "discouraged", "kCableV2QRCode"),
        (["client-device"], "discouraged", "kCableV2QRCode"),
        (["hybrid"], "preferred", "kCableV2QRCode"),
        (["hybrid"], None, "kMechanismSelection"),
        (["security-key"], "required", "kUsbInsertAndActivate"),
    ],
)
def test_what_the_dialog_shows_first(
    page: Page, rp: RelyingParty, hints: list[str], resident_key: str | None, first: str
) -> None:
    selection = {} if resident_key is None else {"residentKey": resident_key}
    ceremony = page.create(rp.creation_options(hints=hints, authenticatorSelection=selection))
    ceremony.wait_for_log(f"UI step: {first}")
    assert ceremony.log().steps[0] == first
    ceremony.abort()
    assert ceremony.outcome().error == "AbortError"


def test_get_with_an_allow_list(ceremonies: Ceremonies) -> None:
    made, _ = ceremonies.create("ada")
    ceremonies.create("bob")
    assert ceremonies.get(allowCredentials=[made.descriptor])[0] is made
    without_transports = {name: value for name, value in made.descriptor.items() if name != "transports"}
    assert ceremonies.get(allowCredentials=[without_transports], hints=[])[0] is made


def test_several_accounts_on_one_phone(ceremonies: Ceremonies) -> None:
    accounts = {name: ceremonies.create(name)[0] for name in ("ada", "bob", "cyd")}
    for name, made in accounts.items():
        assert ceremonies.get(Approve(account=name))[0] is made
    ceremony = ceremonies.page.get(ceremonies.rp.request_options())
    asked = ceremonies.phone.approve()
    assert ceremonies.rp.sign_in(ceremony.outcome().credential) is accounts["cyd"]
    assert [account.name for account in asked.prompts[0].accounts] == ["cyd", "bob", "ada"]


def test_a_phone_that_is_registered_already(ceremonies: Ceremonies, page: Page, phone: Phone, rp: RelyingParty) -> None:
    made, _ = ceremonies.create()
    ceremony = page.create(rp.creation_options(excludeCredentials=[made.descriptor]))
    assert phone.approve().statuses == (0x19,)
    assert ceremony.outcome().error == "InvalidStateError"
    assert ceremony.log().ctap_statuses == (0x19,)
    assert len(phone.passkeys) == 1


def test_prf_at_create_and_at_get(ceremonies: Ceremonies) -> None:
    salts = {"first": b64(b"one"), "second": b64(b"two")}
    _, created = ceremonies.create(extensions={"prf": {"eval": salts}})
    assert created.extensions["prf"]["enabled"] is True
    at_create = created.extensions["prf"]["results"]
    at_get = ceremonies.get(extensions={"prf": {"eval": salts}})[1].extensions["prf"]["results"]
    assert at_get == at_create
    assert len({at_get["first"], at_get["second"]}) == 2
    assert [len(unb64(value)) for value in at_get.values()] == [32, 32]
    other = ceremonies.get(extensions={"prf": {"eval": {"first": b64(b"three")}}})[1].extensions["prf"]["results"]
    assert other["first"] not in at_get.values()


def test_prf_by_credential(ceremonies: Ceremonies) -> None:
    made, _ = ceremonies.create(extensions={"prf": {}})
    wanted = ceremonies.get(extensions={"prf": {"eval": {"first": b64(b"salt")}}})[1].extensions["prf"]["results"]
    by_credential = {"evalByCredential": {made.descriptor["id"]: {"first": b64(b"salt")}}}
    _, found = ceremonies.get(allowCredentials=[made.descriptor], extensions={"prf": by_credential})
    assert found.extensions["prf"]["results"] == wanted


def test_large_blob(ceremonies: Ceremonies) -> None:
    made, created = ceremonies.create(extensions={"largeBlob": {"support": "required"}})
    assert created.extensions["largeBlob"] == {"supported": True}
    here = [made.descriptor]
    blob = b64(b"a certificate" * 50)
    _, written = ceremonies.get(allowCredentials=here, extensions={"largeBlob": {"write": blob}})
    assert written.extensions["largeBlob"] == {"written": True}
    _, read = ceremonies.get(allowCredentials=here, extensions={"largeBlob": {"read": True}})
    assert read.extensions["largeBlob"] == {"blob": blob}


@pytest.mark.parametrize("service_id", [0, 1, HASHED])
def test_relays_by_number(browser: Browser, page: Page, rp: RelyingParty, service_id: int) -> None:
    ceremonies = Ceremonies(page, browser.phone(service_id=service_id), rp)
    made, _ = ceremonies.create()
    assert ceremonies.get()[0] is made


def test_a_website_with_a_name_of_its_own(page: Page, phone: Phone, shop_origin: str) -> None:
    page.goto(shop_origin)
    ceremonies = Ceremonies(page, phone, RelyingParty(shop_origin, SHOP))
    made, _ = ceremonies.create()
    assert ceremonies.get()[0] is made
    assert [passkey.rp_id for passkey in phone.passkeys] == [SHOP]


def test_strangers_pass_by(browser: Browser, ceremonies: Ceremonies) -> None:
    browser.strangers(200)
    ceremony = ceremonies.page.create(ceremonies.rp.creation_options())
    ceremony.wait_for_log("no v2 match")
    assert ceremonies.phone.approve().succeeded
    made = ceremonies.rp.register(ceremony.outcome().credential)
    assert ceremonies.get()[0] is made
