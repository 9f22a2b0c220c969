"""The stage: a relay on this machine, a software phone, and a laptop for browsers that cannot be one themselves.

The phone answers two kinds of codes. One that our own laptop shows is answered over the air in memory and our own
relay; any other one is a real browser's, and is answered as `hybrid phone` would: over this machine's Bluetooth, and
the relay that its maker named.
"""

from __future__ import annotations

import asyncio
import io
import secrets
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fido2.ctap import CtapError

import hybrid
from examples.relying_party.backstage.feed import Feed, Medium, Side
from examples.relying_party.backstage.person import PersonAtThePanel
from examples.relying_party.backstage.story import Story
from examples.relying_party.backstage.watched import WatchedTunnels
from hybrid.adapters.bluez_advertiser import BluezAdvertiser
from hybrid.adapters.memory import MemoryAir
from hybrid.adapters.websocket_tunnel import WebSocketTunnels
from hybrid.cli.terminal import Matrix, qr_matrix
from hybrid.errors import BluetoothProblem, BluetoothUnavailable, HybridError
from hybrid.fido2_bridge.ceremony import plan_assertion, plan_registration
from hybrid.fido2_bridge.options import load_options, read_assertion_options, read_registration_options
from hybrid.passkeys import PHONE, MemoryStore, Profile, SoftwareAuthenticator
from hybrid.passkeys.presets import preset
from hybrid.ports import Advertiser, TunnelService
from hybrid.protocol.tunnel import tunnel_domain
from hybrid.testing.throwaway_ca import ThrowawayCA
from tunnel_server.app import serve

_SERVICES = (0, 1)  # the relays that phones name: Google's and Apple's; ours plays both
_MAX_CODES = 8  # shown by our laptop and not answered yet

KINDS: dict[str, tuple[str, Profile]] = {
    "plain": ("keeps passkeys to itself", replace(PHONE, synced=False)),
    "iphone": ("like an iPhone: synced by iCloud Keychain", preset("iphone")),
    "microg": ("like microG: to itself, without a name", preset("microg")),
    "android": ("like an Android phone: synced by Google", preset("android")),
}


@dataclass(frozen=True, slots=True)
class RealWorld:
    """How the phone reaches a real browser: as the options of `hybrid phone` of the same names."""

    adapter: str | None = None
    relay: str | None = None
    relay_name: str | None = None
    relay_ca: Path | None = None


@dataclass
class _Laptop:
    """One request of a page to our laptop. `result`: WebAuthn JSON, or what went wrong."""

    invitation: hybrid.Invitation
    asking: asyncio.Task[dict[str, Any]]


class LaptopFailed(Exception):
    """What a browser would throw. `name` as DOM exceptions have it."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(sentence)
        self.name = name


@dataclass
class Stage:
    """Phone, relay and laptop. Make one with `open_stage`."""

    origin: str
    relay: TunnelService
    real: RealWorld
    bluetooth_problem: str | None
    kind: str = "plain"
    radio_on: bool = True

    def __post_init__(self) -> None:
        self._stores = {kind: MemoryStore() for kind in KINDS}
        self.feed = Feed(self._state)
        self.story = Story(self.feed)
        self.person = PersonAtThePanel(self.feed.changed, lambda text: self.feed.tell(Side.PHONE, text))
        self._air = MemoryAir()
        self._laptops: dict[str, _Laptop] = {}
        self._serving: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    # the phone

    @property
    def store(self) -> MemoryStore:
        """The passkeys of the phone in the hand; each has its own."""
        return self._stores[self.kind]

    def scan(self, code: str | None) -> None:
        """Let the phone read a code; None: the one that our laptop shows. What it did before is over.

        Raises `HybridError` for a text that is no code.
        """
        shown = {laptop.invitation.url: laptop for laptop in self._laptops.values()}
        if code is None:
            code = next(reversed(shown), "")
        hybrid.QrInvitation.parse(code)
        if not self.radio_on:  # before anything else, so that the code is still good afterwards
            raise BluetoothUnavailable("Bluetooth is switched off on the phone", BluetoothProblem.OFF)
        if self._serving is not None:
            self._serving.cancel()
        self.story.code_read()
        self._serving = self._spawn(self._be_phone(code, simulated=code in shown))

    async def _be_phone(self, code: str, *, simulated: bool) -> None:
        profile = KINDS[self.kind][1]
        phone = SoftwareAuthenticator(self.store, self.person, profile=profile)
        advertiser: Advertiser = self._air if simulated else BluezAdvertiser(self.real.adapter)
        tunnels = self.relay if simulated else self._real_relay()
        try:
            await hybrid.answer(
                code,
                phone,
                advertiser=advertiser,
                tunnels=WatchedTunnels(tunnels, self.story.sealed),
                on_event=self.story.phone,
                habits=profile.habits,
            )
        except HybridError as error:
            self.story.failed(Side.PHONE, error)
        finally:
            self.feed.changed()

    def _real_relay(self) -> TunnelService:
        return WebSocketTunnels(relay=self.real.relay, relay_name=self.real.relay_name, relay_ca=self.real.relay_ca)

    def configure(self, kind: str | None, radio_on: bool | None) -> None:
        """Take another kind of phone (one of `KINDS`) into the hand, or flip its Bluetooth switch."""
        if kind is not None:
            self.kind = kind
        if radio_on is not None:
            self.radio_on = radio_on
        self.feed.changed()

    # the laptop

    def ask(self, command: str, options: dict[str, Any]) -> tuple[str, Matrix]:
        """Show a code for a request of the page, and ask whoever comes. Gives a name for `result`, and the code.

        `command`: "create" or "get". Raises `RequestRefused`, before any code, for options that are none.
        """
        members = load_options(options)
        if command == "create":
            hint = hybrid.Hint.MAKE_CREDENTIAL
            plan_registration(read_registration_options(members), self.origin)
        else:
            hint = hybrid.Hint.GET_ASSERTION
            plan_assertion(read_assertion_options(members), self.origin)
        invitation = hybrid.invite(hint)
        name = secrets.token_urlsafe(8)
        while len(self._laptops) >= _MAX_CODES:
            self.give_up(next(iter(self._laptops)))
        self.story.code_shown()
        asking = self._spawn(self._be_laptop(invitation, options))
        self._laptops[name] = _Laptop(invitation, asking)
        self.feed.changed()
        return name, qr_matrix(invitation.url)

    async def _be_laptop(self, invitation: hybrid.Invitation, options: dict[str, Any]) -> dict[str, Any]:
        do = hybrid.make_credential if invitation.hint is hybrid.Hint.MAKE_CREDENTIAL else hybrid.get_assertion
        async with hybrid.connect(
            invitation, scanner=self._air, tunnels=self.relay, on_event=self.story.laptop
        ) as session:
            return await do(session, options, origin=self.origin)

    async def result(self, name: str) -> dict[str, Any]:
        """Wait for what became of a request. Raises `LaptopFailed`."""
        laptop = self._laptops.get(name)
        if laptop is None:
            raise LaptopFailed("AbortError", "there is no such request any more")
        try:
            return await asyncio.shield(laptop.asking)
        except CtapError as error:
            known = error.code == CtapError.ERR.CREDENTIAL_EXCLUDED
            sentence = "this phone has a passkey for this account already" if known else "the phone said no"
            raise LaptopFailed("InvalidStateError" if known else "NotAllowedError", sentence) from error
        except HybridError as error:
            self.story.failed(Side.LAPTOP, error)
            raise LaptopFailed("NotAllowedError", str(error)) from error
        except asyncio.CancelledError:
            if laptop.asking.cancelled():
                raise LaptopFailed("AbortError", "the dialog was closed") from None
            raise
        finally:
            if laptop.asking.done():
                self._laptops.pop(name, None)
                self.feed.changed()

    def give_up(self, name: str) -> None:
        """The person closed the dialog."""
        laptop = self._laptops.pop(name, None)
        if laptop is not None:
            laptop.asking.cancel()
            self.feed.changed()

    # both

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _state(self) -> dict[str, Any]:
        passkeys = [
            {"site": kept.rp_id, "account": kept.user_name, "synced": kept.backup_eligible}
            for kept in self.store.credentials()
            if kept.usable
        ]
        return {
            "phone": {
                "busy": self._serving is not None and not self._serving.done(),
                "prompt": self.person.shown,
                "kind": self.kind,
                "radioOn": self.radio_on,
                "passkeys": passkeys,
            },
            "laptop": {"showing": bool(self._laptops)},
            "bluetooth": self.bluetooth_problem,
        }

    def website(self, text: str, *, begins: bool = False, trouble: bool = False) -> None:
        """The website's part of the story."""
        self.feed.tell(Side.WEBSITE, text, to=Side.LAPTOP, by=Medium.HTTPS, begins=begins, trouble=trouble)

    async def aclose(self) -> None:
        self.feed.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def open_stage(origin: str, real: RealWorld | None = None) -> AsyncIterator[Stage]:
    """Start the relay and everything that needs it. `origin`: of the website, for the simulated laptop."""
    authority = ThrowawayCA.create()
    with tempfile.TemporaryDirectory(prefix="relying-party-") as folder:
        domains = [tunnel_domain(service) for service in _SERVICES]
        files = authority.write(Path(folder), *domains)
        async with serve(port=0, ssl_context=authority.server_context(*domains)) as server:
            relay = WebSocketTunnels(relay=f"{server.host}:{server.port}", relay_ca=files.ca)
            real = real or RealWorld()
            stage = Stage(origin, relay, real, await bluetooth_problem(real.adapter))
            try:
                yield stage
            finally:
                await stage.aclose()


async def bluetooth_problem(adapter: str | None) -> str | None:
    """Why the phone could not be heard by a real browser here; None if it could."""
    from hybrid.adapters import bluez_bus

    try:
        async with (
            bluez_bus.system_bus() as bus,
            bluez_bus.watched_adapter(bus, adapter, on_change=lambda _: None, from_last=True),
        ):
            return None
    except BluetoothUnavailable as error:
        return str(error)


def read_picture(data: bytes) -> str:
    """The code in a screenshot. Raises `InvalidQR`, and `ImportError` without the extra ``image``."""
    from PIL import Image, UnidentifiedImageError

    from hybrid.adapters.qr_image import find_code
    from hybrid.errors import InvalidQR, QRProblem

    try:
        with Image.open(io.BytesIO(data)) as image:
            return find_code(image.convert("L"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise InvalidQR("this is no picture that can be read", QRProblem.NOT_A_PICTURE) from error
