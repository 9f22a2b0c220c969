"""Where laptop and phone meet: the air, the relay, the screen and the browser, on one event loop.

`open_place` starts everything and ends it again. `hybrid.testing.browser.browser` gives it to people.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from hybrid.adapters.qr_image import find_code
from hybrid.adapters.relay_address import parse_address
from hybrid.errors import HybridError, InvalidQR
from hybrid.protocol.tunnel import tunnel_domain
from hybrid.testing.browser.chromium import Chromium, make_home, open_chromium, private_environment
from hybrid.testing.browser.devtools import DevTools, open_devtools
from hybrid.testing.browser.display import Display, open_display
from hybrid.testing.browser.keeper import Keeper
from hybrid.testing.browser.options import BrowserOptions
from hybrid.testing.browser.patience import wait_until
from hybrid.testing.browser.programs import find_programs
from hybrid.testing.browser.relay import RelayControl
from hybrid.testing.throwaway_ca import ThrowawayCA
from hybrid.testing.virtual_bluez import VirtualBluez, virtual_bluez

_T = TypeVar("_T")

LAPTOP_ADAPTER = "hci0"  # Chromium takes the first
PHONE_ADAPTER = "hci1"

CODE_WITHIN = 15.0
"""Seconds that the browser has to show a code."""

MAX_PICTURES = 24
_LOOK_EVERY = 0.1


class NoCode(HybridError):
    """The screen shows no QR code to scan."""

    @property
    def identifier(self) -> str:
        return "browser.no-code"


class Place:
    """Everything that runs."""

    def __init__(
        self,
        options: BrowserOptions,
        ca: ThrowawayCA,
        ca_file: Path,
        bluez: VirtualBluez,
        relay: RelayControl,
        display: Display,
        chromium: Chromium,
        devtools: DevTools,
    ) -> None:
        self.options = options
        self.ca = ca
        self.ca_file = ca_file
        self.bluez = bluez
        self.relay = relay
        self.display = display
        self.chromium = chromium
        self.devtools = devtools
        self._pictures: deque[tuple[str, Image.Image]] = deque(maxlen=MAX_PICTURES)
        self._scanned: set[str] = set()
        self._sessions: set[asyncio.Task[Any]] = set()

    async def session(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do what a phone does; `end_sessions` can stop it."""
        task = asyncio.create_task(work)
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)
        return await task

    async def end_sessions(self) -> None:
        """Put all phones away, and wait until they are."""
        sessions = list(self._sessions)
        for task in sessions:
            task.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)

    async def read_code(self, limit: float) -> str:
        """Wait for a code on the screen that was not scanned or dismissed before. Raises `NoCode`, `ProgramFailed`."""
        before: bytes = b""

        async def look() -> str | None:
            nonlocal before
            picture = self.display.picture()
            pixels = picture.tobytes()
            if pixels == before:
                return None
            before = pixels
            code = await asyncio.to_thread(_code_in, picture)
            if code is None or code in self._scanned:
                return None
            self._scanned.add(code)
            self._pictures.append(("Code", picture))
            return code

        code = await wait_until(look, limit, _LOOK_EVERY)
        if code is None:
            self.chromium.program.check()
            self.keep_picture("NoCode")
            match self.chromium.log.since().steps:
                case ():
                    dialog = "the browser never showed its dialog"
                case (*_, "kMechanismSelection"):
                    dialog = "the browser's dialog lets one choose a device first, see Browser.use_phone()"
                case (*_, step):
                    dialog = f"the browser's dialog was last at {step}"
            raise NoCode(f"no code to scan appears within {limit:g} s; {dialog}")
        return code

    async def dismiss_code(self) -> None:
        """Let no phone scan the code that the screen shows now. Dialogs that were closed stay painted for a moment."""
        code = await asyncio.to_thread(_code_in, self.display.picture())
        if code is not None:
            self._scanned.add(code)

    def keep_picture(self, label: str) -> None:
        """Take a picture of the screen; the last 24 are kept."""
        self._pictures.append((label, self.display.picture()))

    def pictures(self) -> list[tuple[str, bytes]]:
        """Label and PNG of each picture that was kept, in their order."""
        return [(label, png(picture)) for label, picture in list(self._pictures)]  # phones may add to them meanwhile

    def forget_pictures(self) -> None:
        self._pictures.clear()


def png(picture: Image.Image) -> bytes:
    """A picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def _code_in(picture: Image.Image) -> str | None:
    try:
        return find_code(picture.convert("L"))
    except InvalidQR:
        return None


@contextlib.asynccontextmanager
async def open_place(options: BrowserOptions) -> AsyncIterator[Place]:
    """Start everything, and end it again. Raises `MissingParts`, `ProgramFailed`."""
    programs = find_programs()
    domains = [tunnel_domain(number) for number in options.service_ids]
    behind = None if options.relay is None else parse_address(options.relay)
    async with contextlib.AsyncExitStack() as stack:
        keeper = stack.enter_context(Keeper())
        bluez = await stack.enter_async_context(virtual_bluez(strangers=options.strangers))
        ca = ThrowawayCA.create()
        ca_file = keeper.folder / "ca.pem"
        ca_file.write_bytes(ca.certificate_pem)
        relay = RelayControl(ca.server_context(*domains), behind)
        stack.push_async_callback(relay.down)
        await relay.up()
        home = await make_home(keeper.folder, programs["libnss3-tools"], ca_file)
        env = private_environment(home, bluez.address)
        display = await open_display(keeper, programs, env, options.size)
        chromium = await open_chromium(
            keeper,
            programs["chromium"],
            env | {"DISPLAY": display.name},
            size=options.size,
            hosts={f"{domain}:443": relay.address for domain in domains} | dict(options.hosts),
            language=options.language,
            dark=options.dark,
            flags=options.flags,
        )
        devtools = await stack.enter_async_context(open_devtools(chromium.url))
        place = Place(options, ca, ca_file, bluez, relay, display, chromium, devtools)
        stack.push_async_callback(place.end_sessions)
        yield place
