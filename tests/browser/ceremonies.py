"""Whole ceremonies that succeed, checked by everybody: the website, the phone and Chromium's log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hybrid.testing.browser import LogReport, Page, PageOutcome, Phone
from hybrid.testing.browser.phone import Approve
from tests.browser.relying_party import Registered, RelyingParty

# A scan that Chromium left on when it gave a ceremony up in the wrong moment; the next one hears adverts all the same.
_SCANNING_ALREADY = "Failed to start caBLE discovery"


def errors_of(log: LogReport) -> list[str]:
    """What Chromium complains of in this ceremony."""
    return [error for error in log.errors if error != _SCANNING_ALREADY]


@dataclass(frozen=True)
class Ceremonies:
    """What a person does who wants in."""

    page: Page
    phone: Phone
    rp: RelyingParty

    def create(self, name: str = "ada", **options: Any) -> tuple[Registered, PageOutcome]:
        outcome = self._meet("create", self.rp.creation_options(name, **options), Approve())
        return self.rp.register(outcome.credential), outcome

    def get(self, plan: Approve | None = None, **options: Any) -> tuple[Registered, PageOutcome]:
        outcome = self._meet("get", self.rp.request_options(**options), plan or Approve())
        return self.rp.sign_in(outcome.credential), outcome

    def _meet(self, method: str, options: dict[str, Any], plan: Approve) -> PageOutcome:
        begin = self.page.create if method == "create" else self.page.get
        ceremony = begin(options)
        met = self.phone.begin(plan).outcome()
        outcome = ceremony.outcome()
        log = ceremony.log()
        assert (outcome.error, outcome.message) == (None, "")
        assert met.succeeded
        assert log.advert_matched
        assert log.connected
        assert not errors_of(log)
        return outcome
