"""The example website as a person meets it: in Chromium, with the command that runs it."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hybrid.adapters.qr_image import find_code
from hybrid.errors import InvalidQR
from hybrid.testing.browser import Browser, Page, Phone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
READY = "document.body.dataset.ready !== undefined && document.querySelector('.stage').dataset.kind"


@pytest.fixture(scope="module")
def address(hybrid_browser: Browser) -> Iterator[str]:
    """The website with its panel, on the same air as the browser."""
    command = [sys.executable, "-W", "error", "-m", "examples.relying_party", "--port", "0"]
    command += ["--relay", hybrid_browser.relay_address, "--relay-ca", str(hybrid_browser.ca_file)]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | hybrid_browser.environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield re.findall(r"http://\S+", line)[0]
        finally:
            process.terminate()
        assert process.wait() == 0
        assert process.stdout.read() == ""  # there is a Bluetooth, so nothing else to say


class Visit:
    """A tab on the website."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address

    def open(self, path: str, laptop: str) -> None:
        """`laptop`: who plays it, "browser" or "simulated"."""
        self.page.goto(self.address + path)
        self.page.wait_for(READY)
        self.page.click(f'input[name="laptop"][value="{laptop}"]')

    def join(self, name: str, policy: str = "any", where: str = "phone") -> None:
        self.page.fill("#name", name)
        self.page.click(f'input[name="policy"][value="{policy}"]')
        self.page.click(f'form [data-where="{where}"]')

    def keep_codes(self) -> None:
        self.page.wait_for("document.getElementById('codes').open")
        self.page.click('[data-do="kept-codes"]')

    def wait_for(self, path: str) -> None:
        self.page.wait_for(f"location.pathname === '{path}' && {READY}")

    def sign_out(self) -> None:
        self.page.click('[data-do="sign-out"]')
        self.wait_for("/")

    def problem(self) -> str:
        self.page.wait_for("document.getElementById('status').textContent")
        return self.page.text("#status")

    def agree(self) -> None:
        """On the panel's phone."""
        self.page.wait_for("document.getElementById('phone-screen').dataset.view === 'prompt'")
        self.page.click('[data-phone="approve"]')

    def scan(self, screenshot: bytes) -> None:
        """Paste a picture into the panel."""
        script = """(async () => {
            const bytes = Uint8Array.from(atob("%s"), (c) => c.charCodeAt(0));
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([bytes], "screenshot.png", {type: "image/png"}));
            const pasted = new ClipboardEvent("paste", {clipboardData, bubbles: true, cancelable: true});
            document.getElementById("pasted").dispatchEvent(pasted);
        })()"""
        self.page.evaluate(script % base64.b64encode(screenshot).decode())

    def told(self, sentence: str) -> None:
        """Wait until the panel has told this."""
        self.page.wait_for(f"document.getElementById('lines').textContent.includes({sentence!r})")


@pytest.fixture
def visit(hybrid_page: Page, address: str) -> Visit:
    return Visit(hybrid_page, address)


def test_a_real_browser_and_a_phone(visit: Visit, hybrid_phone: Phone) -> None:
    visit.open("/join", "browser")
    assert not visit.page.evaluate("document.querySelector('.no-hybrid').offsetHeight")
    visit.join("ada")
    assert hybrid_phone.approve().succeeded
    visit.keep_codes()
    visit.wait_for("/account")
    assert "stays on one device" in visit.page.text(".passkey")
    visit.page.click(".passkey summary")
    assert "phone, by QR code" in visit.page.text(".passkey dl")
    assert "BE=0" in visit.page.text(".passkey dl")

    visit.sign_out()
    visit.page.click('[data-do="sign-in"][data-where="phone"]')
    assert hybrid_phone.approve().succeeded
    visit.wait_for("/account")
    assert "by a phone, over hybrid" in visit.page.text(".passkey")

    visit.page.click('[data-do="add"][data-where="phone"]')
    assert not hybrid_phone.approve().succeeded
    assert "already" in visit.problem()
    visit.page.goto(visit.address + "/log")
    assert "Signed in" in visit.page.text(".log")


@pytest.mark.hybrid_phone(preset="iphone")
def test_a_synced_passkey(visit: Visit, hybrid_phone: Phone) -> None:
    visit.open("/join", "browser")
    visit.join("bob", "device-bound")
    hybrid_phone.approve()
    assert "stay on one device" in visit.problem()
    visit.open("/join", "browser")
    visit.join("bob")
    assert hybrid_phone.approve().succeeded
    visit.keep_codes()
    visit.wait_for("/account")
    assert "iCloud Keychain" in visit.page.text(".passkey")
    assert "synced, and backed up now" in visit.page.text(".passkey")


def test_the_panels_phone_reads_the_real_dialog(visit: Visit, hybrid_browser: Browser) -> None:
    """The code goes the way a person would take: a picture of the browser's dialog is given to the panel.

    The dialog covers its page, panel included, so the panel has a window of its own.
    """
    visit.open("/join", "browser")
    visit.join("cyd")
    hybrid_browser.use_phone()
    while not shows_code(picture := hybrid_browser.screenshot()):
        pass  # the dialog is there a moment before its code; the test's own limit ends this
    panel = Visit(hybrid_browser.new_page(window=True), visit.address)
    panel.page.goto(visit.address + "/backstage")
    panel.scan(picture)
    panel.agree()
    panel.told("whispers 20 encrypted bytes")
    panel.told("The account is open")
    panel.page.close()
    visit.keep_codes()
    visit.wait_for("/account")


def test_the_simulated_laptop(visit: Visit) -> None:
    visit.open("/join", "simulated")
    visit.join("dan")
    visit.page.click(".played .primary")
    visit.agree()
    visit.keep_codes()
    visit.wait_for("/account")
    visit.sign_out()
    visit.page.click('form[data-form="sign-in"] button')
    visit.page.click('[data-phone="scan"].calls')
    visit.agree()
    visit.wait_for("/account")
    for sentence in ("shows a QR code", "so the phone is near", "Handshake", "private key stays on the phone"):
        visit.told(sentence)
    assert visit.page.evaluate("document.querySelectorAll('.steps .done').length") == 6
    visit.page.click("#show-all")
    visit.told("The relay passes on")


def test_the_simulated_phone_declines_or_is_deaf(visit: Visit) -> None:
    visit.open("/join", "simulated")
    visit.join("eve")
    visit.page.click(".played .primary")
    visit.page.wait_for("document.getElementById('phone-screen').dataset.view === 'prompt'")
    visit.page.click('[data-phone="decline"]')
    assert "said no" in visit.problem()
    visit.page.click("#radio-switch")
    visit.page.wait_for("document.getElementById('phone-radio').className === 'radio-off'")
    visit.page.click('form [data-where="phone"]')
    visit.page.click(".played .primary")
    visit.page.wait_for("document.getElementById('stage-problem').textContent.includes('switched off')")
    visit.page.click("#radio-switch")
    visit.page.wait_for("document.getElementById('phone-radio').className === 'radio-on'")
    visit.page.click('[data-phone="scan"].calls')  # the code is as good as before
    visit.page.wait_for("document.getElementById('phone-screen').dataset.view === 'prompt'")
    visit.page.click(".played .plain")
    visit.page.wait_for("!document.querySelector('.played')")


def test_the_name_field_offers_a_passkey_of_this_device(visit: Visit) -> None:
    """With DevTools' authenticator of this device, which needs no person: it takes the offer as soon as it is there."""
    of_this_device = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
    }
    visit.page._call("WebAuthn.enable")
    visit.page._call("WebAuthn.addVirtualAuthenticator", options=of_this_device)
    visit.open("/join", "browser")
    visit.join("hal", where="")
    visit.keep_codes()
    visit.wait_for("/account")
    assert "not used yet" in visit.page.text(".passkey")
    visit.page.click('[data-do="sign-out"]')
    visit.page.wait_for("document.querySelector('.passkey').textContent.includes('last used')")
    assert "by this device" in visit.page.text(".passkey")
    visit.wait_for("/account")


def test_a_server_that_is_gone(visit: Visit) -> None:
    visit.open("/", "browser")
    visit.page.evaluate("void (window.fetch = async () => { throw new TypeError('Failed to fetch'); })")
    visit.page.click('[data-do="sign-in"][data-where="phone"]')
    assert visit.problem() == "The website does not answer; try again in a moment."
    visit.page.click('input[name="kind"][value="iphone"]')
    visit.page.wait_for("document.getElementById('stage-problem').textContent.includes('is it still running')")


def test_recovery_and_the_last_passkey(visit: Visit) -> None:
    visit.open("/join", "simulated")
    visit.join("fay")
    visit.page.click(".played .primary")
    visit.agree()
    visit.page.wait_for("document.getElementById('codes').open")
    codes = visit.page.text("#codes ol").split()
    assert len(codes) == 10
    visit.keep_codes()
    visit.wait_for("/account")
    visit.sign_out()
    visit.page.goto(visit.address + "/recover")
    visit.page.wait_for(READY)
    visit.page.fill("#name", "fay")
    visit.page.fill("#code", codes[3].lower())
    visit.page.click('form[data-form="recover"] button')
    visit.wait_for("/account")
    assert "Add a passkey to go on" in visit.page.text(".notice")


_LISTEN = """for (const what of ["UnknownCredential", "AllAcceptedCredentials", "CurrentUserDetails"]) {
    const name = `signal${what}`;
    PublicKeyCredential[name] = async (told) => sessionStorage.setItem(name, JSON.stringify(told));
}
window.confirm = () => true"""


def test_the_browser_is_told_what_the_website_knows(visit: Visit) -> None:
    def told(name: str) -> dict[str, Any]:
        visit.page.wait_for(f"sessionStorage.getItem('{name}')")
        return dict(visit.page.evaluate(f"JSON.parse(sessionStorage.getItem('{name}'))"))

    visit.open("/join", "simulated")
    visit.page.evaluate(_LISTEN)
    visit.join("gil")
    visit.page.click(".played .primary")
    visit.agree()
    visit.keep_codes()
    visit.wait_for("/account")
    (kept,) = told("signalAllAcceptedCredentials")["allAcceptedCredentialIds"]
    assert told("signalCurrentUserDetails")["displayName"] == "gil"
    visit.page.evaluate(_LISTEN)
    visit.page.click('[data-do="remove"]')
    visit.wait_for("/")
    assert told("signalAllAcceptedCredentials")["allAcceptedCredentialIds"] == []
    visit.page.evaluate(_LISTEN)
    visit.page.click('[data-do="sign-in"]')
    visit.page.click(".played .primary")
    visit.agree()
    assert "not known here" in visit.problem()
    assert told("signalUnknownCredential") == {"rpId": "localhost", "credentialId": kept}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1440, 1000, 390])
def test_nothing_sticks_out(visit: Visit, width: int, dark: bool) -> None:
    """No page is wider than its window, and texts stand out from what is behind them."""
    visit.page.view(width, 900, dark=dark, mobile=width < 500)
    for path in ("/", "/join", "/recover", "/nothing"):
        visit.open(path, "simulated")
        assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        ink, paper = visit.page.evaluate(
            "[getComputedStyle(document.querySelector('h1')).color,"
            " getComputedStyle(document.querySelector('main .card')).backgroundColor]"
        )
        assert (brightness(ink) > brightness(paper)) == dark


def shows_code(screenshot: bytes) -> bool:
    with Image.open(io.BytesIO(screenshot)) as picture:
        try:
            return bool(find_code(picture.convert("L")))
        except InvalidQR:
            return False


def brightness(color: str) -> int:
    return sum(map(int, re.findall(r"\d+", color)[:3]))
