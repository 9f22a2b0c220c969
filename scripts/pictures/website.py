"""The example website, and a browser's own dialog over it, photographed in the browser rig.

Every code in them was answered, and so used up, before the picture is written.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from hybrid.adapters.qr_image import find_code
from hybrid.errors import InvalidQR
from hybrid.testing.browser import Browser, BrowserOptions, Page, open_browser

ROOT = Path(__file__).parents[2]
_WIDE, _NARROW = (1440, 900), (400, 860)
_NARROW_SCALE = 1.5
_SETTLED = 1.2  # seconds; wires go dark, packets arrive
_SHADES = 4  # of 256
_READY = "document.body.dataset.ready !== undefined && document.querySelector('.stage').dataset.kind"
_ASKED = "document.getElementById('phone-screen').dataset.view === 'prompt'"


def photographs() -> dict[str, bytes]:
    """PNG files by name."""
    taken: dict[str, bytes] = {}
    with open_browser(BrowserOptions(size=(1280, 860))) as browser, _website(browser) as address:
        _Visit(browser.page, address, taken).play()
        taken["browser-dialog.png"] = _dialog(browser, address)
    return {name: small(png) for name, png in taken.items()}


@contextmanager
def _website(browser: Browser) -> Iterator[str]:
    command = [sys.executable, "-m", "examples.relying_party", "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | browser.environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield re.findall(r"http://\S+", process.stdout.readline())[0]
        finally:
            process.terminate()


class _Visit:
    """Ada joins with one phone, adds the passkey of another, and signs in."""

    def __init__(self, page: Page, address: str, taken: dict[str, bytes]) -> None:
        self._page = page
        self._address = address
        self._taken = taken

    def play(self) -> None:
        page = self._page
        page.view(*_WIDE)
        self._open("/join")
        page.fill("#name", "ada")
        page.click('form [data-where="phone"]')
        page.wait_for("document.querySelector('.phone-primary.calls')")
        self._take("website-code")
        self._answer()
        page.wait_for("document.getElementById('codes').open")
        page.click('[data-do="kept-codes"]')
        self._arrive("/account")
        page.click('input[name="kind"][value="iphone"]')
        page.wait_for("document.querySelector('.stage').dataset.kind === 'iphone'")
        page.click('[data-do="add"][data-where="phone"]')
        self._answer()
        page.wait_for("document.querySelectorAll('.passkey').length === 2 && " + _READY)
        self._rename()
        page.click('[data-do="sign-out"]')
        self._arrive("/")
        page.click('[data-do="sign-in"]')
        self._answer()
        self._arrive("/account")
        page.evaluate("document.querySelector('.passkey details').open = true")
        self._take("website-account")
        page.evaluate("document.querySelector('.passkey details').open = false")
        self._take("website-narrow", narrow=True)

    def _open(self, path: str) -> None:
        self._page.goto(self._address + path)
        self._page.wait_for(_READY)

    def _arrive(self, path: str) -> None:
        self._page.wait_for(f"location.pathname === '{path}' && {_READY}")

    def _answer(self) -> None:
        self._page.click(".played .primary")
        self._page.wait_for(_ASKED)
        self._page.click('[data-phone="approve"]')

    def _rename(self) -> None:
        """The first passkey gets a name of its own."""
        self._page.evaluate("window.prompt = () => 'My work phone'")
        self._page.click('[data-do="rename"]')
        self._page.wait_for("document.querySelector('.passkey h3').textContent.includes('My work phone')")
        self._page.wait_for(_READY)

    def _take(self, name: str, *, narrow: bool = False) -> None:
        for scheme in ("light", "dark"):
            width, height = _NARROW if narrow else _WIDE
            scale = _NARROW_SCALE if narrow else 1
            self._page.view(
                width, height, scale=scale, dark=scheme == "dark", mobile=True
            )  # whose scroll bars lie over the page
            self._page.evaluate("scrollTo(0, 0); document.querySelector('.stage').scrollTo(0, 0)")
            time.sleep(_SETTLED)  # scroll bars and fonts do not tell
            self._taken[f"{name}-{scheme}.png"] = self._page.screenshot()
        self._page.view(*_WIDE, dark=False)


def _dialog(browser: Browser, address: str) -> bytes:
    """The browser's own dialog, for one more passkey. A phone answers its code before this returns."""
    page, phone = browser.new_page(), browser.phone()
    browser.page.close()
    page.goto(address + "/account")
    page.wait_for(_READY)
    page.click('input[name="laptop"][value="browser"]')
    page.evaluate("scrollTo(0, 0); document.querySelector('.stage').scrollTo(0, 0)")
    page.evaluate("document.querySelector('[data-do=add][data-where=phone]').click()")
    browser.use_phone()
    while not _shows_code(picture := browser.screenshot()):
        time.sleep(0.1)  # a screen does not tell
    if not phone.approve().succeeded:
        raise SystemExit("make_pictures: the phone could not answer the browser's code")
    return picture


def _shows_code(png: bytes) -> bool:
    with Image.open(io.BytesIO(png)) as picture:
        try:
            return bool(find_code(picture.convert("L")))
        except InvalidQR:
            return False


def small(png: bytes) -> bytes:
    """The same picture in two thirds of the bytes: neighbouring shades become one, which nobody sees."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").point(lambda value: min(255, round(value / _SHADES) * _SHADES)).save(
            buffer, "PNG", optimize=True
        )
    return buffer.getvalue()
