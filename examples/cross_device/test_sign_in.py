"""How do I test that people can sign in to my website with the passkey on their phone? With these fixtures.

Run it with ``pytest examples/cross_device``. No Bluetooth, no screen, no phone.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from examples.cross_device.website import serve
from hybrid.testing.browser import Browser, Page, Phone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serve() as address:
        yield address


def test_register_and_sign_in(hybrid_page: Page, hybrid_phone: Phone, address: str) -> None:
    hybrid_page.goto(address)
    hybrid_page.click("#register")
    assert hybrid_phone.approve().succeeded
    hybrid_page.wait_for("document.querySelector('output').textContent === 'registered'")
    hybrid_page.click("#sign-in")
    assert hybrid_phone.approve().succeeded
    hybrid_page.wait_for("document.querySelector('output').textContent === 'signed in'")


def test_the_person_declines(hybrid_page: Page, hybrid_phone: Phone, address: str) -> None:
    hybrid_page.goto(address)
    hybrid_page.click("#register")
    hybrid_phone.decline()
    hybrid_page.wait_for("document.querySelector('output').textContent === 'NotAllowedError'")


@pytest.mark.hybrid_phone(preset="iphone")
def test_an_iphone_without_a_passkey(hybrid_page: Page, hybrid_phone: Phone, address: str) -> None:
    hybrid_page.goto(address)
    hybrid_page.click("#sign-in")
    hybrid_phone.no_passkey()
    hybrid_page.wait_for("document.querySelector('output').textContent === 'NotAllowedError'")


def test_the_phone_is_too_far_away(
    hybrid_browser: Browser, hybrid_page: Page, hybrid_phone: Phone, address: str
) -> None:
    hybrid_page.goto(address)
    hybrid_page.click("#register")
    hybrid_phone.out_of_range()
    hybrid_browser.press("Escape")  # the person gives up
    hybrid_page.wait_for("document.querySelector('output').textContent === 'NotAllowedError'")
