"""The phones of other makers, as presets have them, in front of Chromium."""

from __future__ import annotations

import pytest

from hybrid.passkeys.presets import PRESETS
from hybrid.testing.browser import Browser, Page, Phone
from tests.browser.ceremonies import Ceremonies
from tests.browser.relying_party import RelyingParty, b64

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.mark.parametrize("preset", PRESETS)
def test_create_and_get(browser: Browser, page: Page, rp: RelyingParty, preset: str) -> None:
    phone = browser.phone(preset=preset)
    ceremonies = Ceremonies(page, phone, rp)
    made, _ = ceremonies.create()
    assert ceremonies.get()[0] is made
    assert ceremonies.get(allowCredentials=[made.descriptor])[0] is made
    profile = PRESETS[preset]
    assert profile.passkey_aaguid is not None
    assert made.credential.aaguid == profile.passkey_aaguid.bytes
    assert bool(made.data.flags & made.data.FLAG.BE) is profile.synced


@pytest.mark.parametrize("preset", [name for name, profile in PRESETS.items() if "prf" in profile.extensions])
def test_prf(browser: Browser, page: Page, rp: RelyingParty, preset: str) -> None:
    ceremonies = Ceremonies(page, browser.phone(preset=preset), rp)
    _, created = ceremonies.create(extensions={"prf": {}})
    assert created.extensions["prf"]["enabled"] is True
    salts = {"prf": {"eval": {"first": b64(b"salt")}}}
    first = ceremonies.get(extensions=salts)[1].extensions["prf"]["results"]
    assert ceremonies.get(extensions=salts)[1].extensions["prf"]["results"] == first


@pytest.mark.hybrid_phone(preset="iphone")
def test_the_mark_says_what_the_fixture_is_like(phone: Phone) -> None:
    assert phone.profile.name == "iphone"
    assert phone.service_id == 1


def test_a_phone_that_leaves_when_it_finds_nothing(browser: Browser, page: Page, rp: RelyingParty) -> None:
    ceremony = page.get(rp.request_options())
    left = browser.phone(preset="android-chrome2022").approve()
    assert left.statuses == ()
    assert ceremony.outcome().error == "NotAllowedError"
    assert any("is fatal to the request" in line for line in ceremony.log().errors)
