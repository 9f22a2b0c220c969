"""Time: how long ceremonies take, one after another, and what happens when it is over."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable

import pytest

from hybrid.events import RequestReceived
from hybrid.testing.browser import Browser, Page, PageError, Phone
from hybrid.testing.browser.phone import Approve, Ignore
from tests.browser.ceremonies import Ceremonies
from tests.browser.relying_party import RelyingParty

SOAK = os.environ.get("HYBRID_SOAK") == "1"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0 if SOAK else 120)]

ROUNDS = 100 if SOAK else 2
LEAST_TIME = 180  # seconds that Chromium gives a person, whatever less the website asks for


@pytest.mark.soak
def test_one_ceremony_after_another(ceremonies: Ceremonies, record_property: Callable[[str, object], None]) -> None:
    took: dict[str, list[float]] = {"create": [], "get": []}
    for number in range(ROUNDS):
        began = time.monotonic()
        made, _ = ceremonies.create(f"person {number}")
        took["create"].append(time.monotonic() - began)
        began = time.monotonic()
        assert ceremonies.get(Approve(account=f"person {number}"))[0] is made
        took["get"].append(time.monotonic() - began)
    for method, seconds in took.items():
        median, least, most = statistics.median(seconds), min(seconds), max(seconds)
        record_property(
            f"{method}, in s", f"median {median:.2f}, min {least:.2f}, max {most:.2f} of {ROUNDS}, 0 failed"
        )


def test_the_website_stops_waiting(page: Page, rp: RelyingParty) -> None:
    options = json.dumps(rp.request_options())
    name = page.evaluate(
        f"navigator.credentials.get({{publicKey: PublicKeyCredential.parseRequestOptionsFromJSON({options}),"
        " signal: AbortSignal.timeout(1000)}).catch(error => error.name)"
    )
    assert name == "TimeoutError"


@pytest.mark.soak
@pytest.mark.parametrize("connected", [False, True])
def test_chromium_stops_waiting(browser: Browser, page: Page, phone: Phone, rp: RelyingParty, connected: bool) -> None:
    ceremony = page.get(rp.request_options(timeout=1000))
    session = phone.begin(Ignore(2 * LEAST_TIME)) if connected else None
    if session is not None:
        session.wait_for(RequestReceived)
    ceremony.wait_for_log(f'"timeout": {LEAST_TIME * 1000}')
    if SOAK:
        if not connected:  # Chromium shows that the time is over, and tells the page when somebody has read it
            ceremony.wait_for_log("UI step: kTimedOut", LEAST_TIME + 60)
            browser.close_dialog(ceremony)
        outcome = ceremony.outcome(LEAST_TIME + 60)
        assert outcome.seconds >= LEAST_TIME
    else:  # nobody has three minutes here
        with pytest.raises(PageError, match="goes on after 2 s"):
            ceremony.outcome(2)
        browser.close_dialog(ceremony)
        outcome = ceremony.outcome()
    assert outcome.error == "NotAllowedError"
    if session is not None:
        assert (session.outcome().statuses, session.outcome().error) == ((), None)
