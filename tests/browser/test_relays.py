"""Somebody else's relay behind TLS that the rig puts in front of it."""

from __future__ import annotations

import pytest

from hybrid.testing.browser import BrowserOptions, open_browser
from hybrid.testing.browser.background import Background
from tests.browser.ceremonies import Ceremonies
from tests.browser.foreign_relay import foreign_relay
from tests.browser.relying_party import RelyingParty

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def test_a_foreign_plain_relay(rp: RelyingParty) -> None:
    with (
        Background(foreign_relay()) as (relay, port),
        open_browser(BrowserOptions(relay=f"127.0.0.1:{port}")) as browser,
    ):
        browser.page.goto(rp.origin)
        ceremonies = Ceremonies(browser.page, browser.phone(), rp)
        made, _ = ceremonies.create()
        assert ceremonies.get()[0] is made
        assert relay.joined == 2
