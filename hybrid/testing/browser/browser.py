"""The rig as people use it: a browser on a screen of its own, its page, and phones near it."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybrid.errors import HybridError
from hybrid.passkeys.store import CredentialStore
from hybrid.testing.browser.background import Background
from hybrid.testing.browser.fido_log import FidoLog, LogReport
from hybrid.testing.browser.options import BrowserOptions
from hybrid.testing.browser.page import WAIT, Ceremony, Page, attach
from hybrid.testing.browser.patience import INTERVAL
from hybrid.testing.browser.phone import Phone
from hybrid.testing.browser.place import LAPTOP_ADAPTER, PHONE_ADAPTER, Place, open_place, png

_DIALOG_TIMEOUT = 10.0
_ESCAPE_WORKS_WITHIN = 0.5
# A key that comes before the dialog has the keyboard is lost; one too many would press what comes next.
_KEY_WORKS_WITHIN = 2.0


class NoDialog(HybridError):
    """The browser's dialog is not where it should be."""

    @property
    def identifier(self) -> str:
        return "browser.no-dialog"


class Browser:
    """A running Chromium. Every method may be called from any thread but the rig's."""

    def __init__(self, background: Background[Place], place: Place) -> None:
        self._background = background
        self._place = place
        self._mark = self.log.size
        targets = background.run(place.devtools.call("Target.getTargets"))["targetInfos"]
        first = next(target["targetId"] for target in targets if target["type"] == "page")
        self.page = self._attach(first)
        """The first tab; after a test that closed it, `tidy_up` has opened another."""

    @property
    def devtools_url(self) -> str:
        """``http://127.0.0.1:PORT``, for Playwright's `connect_over_cdp` and Selenium's `debuggerAddress`."""
        return f"http://127.0.0.1:{self._place.chromium.port}"

    @property
    def log(self) -> FidoLog:
        """What Chromium says about its ceremonies."""
        return self._place.chromium.log

    @property
    def ca_file(self) -> Path:
        """Certificate, PEM, of the authority that the browser trusts."""
        return self._place.ca_file

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for a program of yours that plays the phone: where the laptop's BlueZ is."""
        return dict(self._place.bluez.environment)

    @property
    def relay_address(self) -> str:
        """``HOST:PORT`` of the relay, for such a program; its certificate is of `ca_file`."""
        return self._place.relay.address

    def tls(self, *names: str) -> ssl.SSLContext:
        """TLS settings for a server of yours with these names, which the browser trusts."""
        return self._place.ca.server_context(*names)

    def new_page(self, *, window: bool = False) -> Page:
        """Open another tab, in front of the others.

        `window`: in a small window of its own, beside which the first page is still seen. Chromium refuses an answer
        to a page that is behind another tab or covered by a window.
        """
        size: dict[str, Any] = {"newWindow": True, "left": 0, "top": 0, "width": 600, "height": 700} if window else {}
        creating = self._place.devtools.call("Target.createTarget", url="about:blank", **size)
        return self._attach(self._background.run(creating)["targetId"])

    def _attach(self, target: str) -> Page:
        return self._background.run(attach(self._background, self._place.devtools, self.log, target))

    def tidy_up(self) -> None:
        """Be as new for the next test: phones put away, everything on and up, nothing stored for any website."""
        self._mark = self.log.size
        if self.page.is_closed:
            self.page = self.new_page()
        self._background.run(self._tidy_up())

    async def _tidy_up(self) -> None:
        place = self._place
        await place.end_sessions()
        await place.dismiss_code()
        await place.bluez.strangers(place.options.strangers)
        if place.bluez.discovering(LAPTOP_ADAPTER):
            # Chromium leaves its scan on when a ceremony ends in the moment that the scan starts, and complains of it
            # in every ceremony from then on.
            await place.bluez.power(LAPTOP_ADAPTER, False)
        for adapter in (LAPTOP_ADAPTER, PHONE_ADAPTER):
            await place.bluez.power(adapter, True)
        await place.relay.up()
        await self.page.forget_sites()
        place.forget_pictures()

    def phone(
        self, *, preset: str | None = None, service_id: int | None = None, store: CredentialStore | None = None
    ) -> Phone:
        """A phone in reach of the laptop's Bluetooth, as `Phone` says. New and empty unless `store` says otherwise."""
        return Phone(self._background, self._place, preset=preset, service_id=service_id, store=store)

    def bluetooth(self, on: bool) -> None:
        """Switch the laptop's Bluetooth on or off."""
        self._background.run(self._place.bluez.power(LAPTOP_ADAPTER, on))

    def strangers(self, rate: float) -> None:
        """From now on let so many adverts of strangers a second pass by; 0 stops them."""
        self._background.run(self._place.bluez.strangers(rate))

    def relay(self, up: bool) -> None:
        """Take the relay down, with all its tunnels, or bring it back."""
        self._background.run(self._place.relay.up() if up else self._place.relay.down())

    def use_phone(self) -> None:
        """Wait for the browser's dialog, and take "use a phone or tablet" if it lets one choose.

        It does where create has the hint "hybrid" and does not prefer or require a discoverable credential. With the
        hint "security-key" it offers none. Raises `NoDialog`.
        """
        until = time.monotonic() + WAIT
        pressed_at = float("-inf")
        while (now := time.monotonic()) < until:
            match self.log.since(self._mark).steps[-1:]:
                case ("kMechanismSelection",) if now - pressed_at > _KEY_WORKS_WITHIN:
                    self.press("Return")
                    pressed_at = now
                case ("kCableV2QRCode",):
                    return
            time.sleep(INTERVAL)  # the dialog does not tell
        raise NoDialog(f"the browser offers no phone within {WAIT:g} s")

    def press(self, key: str) -> None:
        """Press a key where the keyboard is: in the page, or in the browser's dialog. `key`: as X calls it."""
        self._place.display.press(key)

    def close_dialog(self, ceremony: Ceremony) -> None:
        """Close the browser's own dialog as a person does, until the ceremony is over. Raises `NoDialog`."""
        until = time.monotonic() + _DIALOG_TIMEOUT
        while not ceremony.is_over:
            if time.monotonic() >= until:
                raise NoDialog(f"the ceremony goes on after {_DIALOG_TIMEOUT:g} s of closing the dialog")
            self.press("Escape")
            ceremony.wait(_ESCAPE_WORKS_WITHIN)
        self._background.run(self._place.dismiss_code())

    def screenshot(self, path: Path | None = None) -> bytes:
        """The whole screen as PNG, with the browser's dialog."""
        picture = png(self._place.display.picture())
        if path is not None:
            path.write_bytes(picture)
        return picture

    def pictures(self) -> list[tuple[str, bytes]]:
        """Label and PNG of the screen at each stage so far: the code, each event on the phone, the end."""
        return self._place.pictures()

    def keep_evidence(self, folder: Path, log: LogReport) -> None:
        """Write the screen at each stage and now, and a part of Chromium's log, into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, (label, picture) in enumerate([*self.pictures(), ("now", self.screenshot())]):
            (folder / f"{number:02}-{label}.png").write_bytes(picture)
        (folder / "fido.log").write_text(log.text + "\n")


@contextlib.contextmanager
def run_browser(options: BrowserOptions) -> Iterator[Browser]:
    """Run everything while the context is open. Raises `ProgramFailed`."""
    background = Background(open_place(options))
    with background as place:
        yield Browser(background, place)
