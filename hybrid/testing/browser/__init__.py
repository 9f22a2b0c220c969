"""A real Chromium as the laptop, on a machine without Bluetooth and without a screen, and our phone beside it.

Debian's own Chromium, unmodified and headful, shows its QR code on a screen that nobody sees, hears our phone's advert
through a virtual BlueZ, joins our relay over TLS that it checks, and completes create and get with our phone::

    with open_browser() as browser:
        page, phone = browser.page, browser.phone()
        page.goto("http://localhost:8000/")     # your website
        page.click("#register")
        assert phone.approve().succeeded        # scans the code off the screen, and agrees
        page.wait_for("document.querySelector('#account')")

Everything is a plain function for plain tests: the rig runs on a thread of its own. From coroutines, call it through
`asyncio.to_thread`. The fixtures of `hybrid.testing.pytest_plugin` wrap it for pytest. A person's part is a verb of
`Phone` (`approve`, `decline`, `no_passkey`, `ignore`, `hang_up`, `out_of_range`, `misbehave`, `bluetooth`), trouble on
the laptop's side one of `Browser` (`bluetooth`, `relay`, `strangers`). How a ceremony ended is told three times: by the
page (`Ceremony.outcome`), by the phone (`PhoneOutcome`), and by Chromium's log (`Ceremony.log`).

For pictures: `Page.view(width, height, dark=True)` and `Page.screenshot()` for the page alone, `Browser.screenshot()`
for the whole screen with the browser's dialog, `BrowserOptions(dark=True)` for a dark dialog.

Needs the extra ``browser`` and some programs; `MissingParts` names those that are not there. Linux only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hybrid.testing.browser.options import BrowserOptions
from hybrid.testing.browser.programs import MissingParts, find_programs

if TYPE_CHECKING:
    from hybrid.testing.browser.browser import Browser
    from hybrid.testing.browser.fido_log import LogReport
    from hybrid.testing.browser.keeper import ProgramFailed
    from hybrid.testing.browser.page import Ceremony, Page, PageError, PageOutcome
    from hybrid.testing.browser.phone import Phone, PhoneOutcome
    from hybrid.testing.browser.place import NoCode

_HOME = {
    "Browser": "browser",
    "Ceremony": "page",
    "LogReport": "fido_log",
    "NoCode": "place",
    "Page": "page",
    "PageError": "page",
    "PageOutcome": "page",
    "Phone": "phone",
    "PhoneOutcome": "phone",
    "ProgramFailed": "keeper",
}


def __getattr__(name: str) -> Any:
    """The rest of the names, loaded when they are first used: they need the extra."""
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@contextlib.contextmanager
def open_browser(options: BrowserOptions | None = None) -> Iterator[Browser]:
    """Run a browser, a relay and an air while the context is open. It takes a second or two.

    Nothing is left running or on disk afterwards, even if this process is killed. Raises `MissingParts` with the names
    of all that is not installed and the command that installs it; `ProgramFailed`.
    """
    find_programs()
    from hybrid.testing.browser.browser import run_browser

    with run_browser(options or BrowserOptions()) as browser:
        yield browser


__all__ = [
    "Browser",
    "BrowserOptions",
    "Ceremony",
    "LogReport",
    "MissingParts",
    "NoCode",
    "Page",
    "PageError",
    "PageOutcome",
    "Phone",
    "PhoneOutcome",
    "ProgramFailed",
    "open_browser",
]
