"""Fixtures for tests of a website with a real browser and a phone: `hybrid.testing.browser` for pytest.

Registered with pytest wherever this package is installed. It imports nothing of the rig until a fixture is used, and
then names what is missing with the command that installs it. ::

    def test_register(hybrid_page, hybrid_phone):
        hybrid_page.goto("http://localhost:8000/")
        hybrid_page.click("#register")
        assert hybrid_phone.approve().succeeded
        assert hybrid_page.text("#account") == "ada"

What the rig tells a test, that something is not installed or that no code appears, stands right below the test's own
line; ``--full-trace`` shows how it came to that. When a test that uses the fixtures fails, the screen at each stage and
Chromium's own account of it are kept in a folder of ``--hybrid-pictures`` that its report names.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import pytest

from hybrid.errors import HybridError

if TYPE_CHECKING:
    from hybrid.testing.browser import Browser, BrowserOptions, Page, Phone

_OURS = "hybrid.testing."
_NOBODYS = re.compile(r"_pytest|pluggy|pytest_\w+|contextlib$")  # what calls a test or a fixture, or enters a context

_LOG_MARK = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """One option: where pictures of failures go."""
    parser.getgroup("hybrid").addoption(
        "--hybrid-pictures",
        metavar="DIR",
        default="hybrid-pictures",
        help="where the screen at each stage of a failed browser test is kept (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """One mark: what the phone of a test is like."""
    config.addinivalue_line("markers", "hybrid_phone(**options): what `hybrid_phone` is like, as for Browser.phone()")


@pytest.fixture(scope="session")
def hybrid_browser_options() -> BrowserOptions:
    """How to start the browser. Override it in your conftest.py."""
    from hybrid.testing.browser import BrowserOptions

    return BrowserOptions()


@pytest.fixture(scope="session")
def hybrid_browser(hybrid_browser_options: BrowserOptions) -> Iterator[Browser]:
    """One browser for all tests; each has its own tab and phone in it."""
    from hybrid.testing.browser import open_browser

    with open_browser(hybrid_browser_options) as browser:
        yield browser


@pytest.fixture
def hybrid_page(hybrid_browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A new tab, without cookies and storage of the tests before. Bluetooth and relay are in order."""
    hybrid_browser.tidy_up()
    request.node.stash[_LOG_MARK] = hybrid_browser.log.size
    page = hybrid_browser.new_page()
    yield page
    page.close()
    hybrid_browser.tidy_up()


@pytest.fixture
def hybrid_phone(hybrid_browser: Browser, hybrid_page: Page, request: pytest.FixtureRequest) -> Phone:
    """A phone without passkeys. The mark ``hybrid_phone(preset="iphone")`` makes it another."""
    mark = request.node.get_closest_marker("hybrid_phone")
    return hybrid_browser.phone(**(mark.kwargs if mark else {}))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell what the rig says, and keep what can be seen when a test fails, before its fixtures end."""
    told = None if item.config.getoption("fulltrace") else call.excinfo
    before = None if told is None else _before_the_rig(told)
    if told is not None and before is not None:
        call.excinfo = pytest.ExceptionInfo.from_exception(told.value.with_traceback(before))
    report = yield
    if told is not None and before is None and report.failed:
        report.longrepr = told.getrepr(style="value")
    browser: Browser | None = getattr(item, "funcargs", {}).get("hybrid_browser")
    if call.when != "teardown" and report.failed and browser is not None:  # ceremonies are in fixtures, too
        folder = Path(item.config.getoption("--hybrid-pictures")) / re.sub(r"[^\w.-]+", "-", item.nodeid)
        try:
            log = browser.log.since(item.stash.get(_LOG_MARK, 0))
            browser.keep_evidence(folder, log)
        except OSError as error:  # the rig may be what failed
            report.sections.append(("screen at each stage", f"not kept: {error}"))
        else:
            report.sections.append(("chromium's FIDO log", log.text))
            report.sections.append(("screen at each stage", str(folder)))
    return report


def _before_the_rig(told: pytest.ExceptionInfo[BaseException]) -> TracebackType | None:
    """How a test or a fixture came to call the rig; None if pytest itself did. All of the traceback for what is not
    said by the rig to its user."""
    if not told.errisinstance((HybridError, TimeoutError)):
        return told.tb
    before: list[TracebackType] = []
    entry: TracebackType | None = told.tb
    while entry is not None and not _module(entry).startswith(_OURS):
        before.append(entry)
        entry = entry.tb_next
    if entry is None:
        return told.tb
    trace = None
    for past in reversed(before):
        if not _NOBODYS.match(_module(past)):
            trace = TracebackType(trace, past.tb_frame, past.tb_lasti, past.tb_lineno)
    return trace


def _module(entry: TracebackType) -> str:
    return str(entry.tb_frame.f_globals.get("__name__"))
