"""The phone in the test: our own authenticator, and the person who holds it.

What the person does is a plan. `Phone.begin` starts one in the background; the verbs (`approve`, `decline`, ...) begin
a plan and wait for its end. Every plan starts alike: wait until the screen shows a code, and scan it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from hybrid.adapters.bluez_advertiser import BluezAdvertiser
from hybrid.adapters.websocket_tunnel import WebSocketTunnels
from hybrid.authenticator import PhoneTimeouts, answer
from hybrid.errors import HybridError, PeerTimeout, Stage
from hybrid.events import Event, Proximity, RequestReceived, ResponseSent
from hybrid.passkeys import presets
from hybrid.passkeys.consent import REFUSED, Decision, Prompt
from hybrid.passkeys.engine import SoftwareAuthenticator
from hybrid.passkeys.profiles import PHONE
from hybrid.passkeys.store import Credential, CredentialStore, MemoryStore
from hybrid.protocol.ctap import Status
from hybrid.protocol.eid import FIDO_UUID
from hybrid.testing.browser.background import Background
from hybrid.testing.browser.page import WAIT
from hybrid.testing.browser.patience import INTERVAL
from hybrid.testing.browser.place import CODE_WITHIN, PHONE_ADAPTER, Place
from hybrid.testing.peers import phones

SESSION = 120.0
"""Seconds that a session may take besides those that its plan waits."""

_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Approve:
    """Agree to everything, `after` seconds.

    `account`: which of several to sign in with, by its user name; refused if there is none. Left out, it is the newest.
    """

    account: str | None = None
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Decline:
    """Refuse, `after` seconds."""

    after: float = 0.0


@dataclass(frozen=True, slots=True)
class NoPasskey:
    """Have no passkey for this site, whatever the phone holds."""


@dataclass(frozen=True, slots=True)
class Ignore:
    """Look away until the phone gives up, `seconds` after it asked."""

    seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the connection without a word when this event happens on the phone; the person never gets to answer."""

    at: type[Event] = RequestReceived


@dataclass(frozen=True, slots=True)
class OutOfRange:
    """Be too far away: the phone scans the code and advertises, and the laptop does not hear it."""

    seconds: float = 3.0


@dataclass(frozen=True, slots=True)
class Misbehave:
    """Be one of `hybrid.testing.peers.phones` in place of ours, until the laptop leaves or the seconds are over."""

    peer: phones.Phone
    seconds: float = 5.0


Plan = Approve | Decline | NoPasskey | Ignore | HangUp | OutOfRange | Misbehave


@dataclass(frozen=True, slots=True)
class PhoneOutcome:
    """How a session ended for the phone.

    `statuses`: CTAP status bytes of the answers that were sent; `error`: why the session failed, None for a clean end;
    `events` in their order; `prompts`: what the person was asked.
    """

    statuses: tuple[int, ...]
    error: HybridError | None
    events: tuple[Event, ...]
    prompts: tuple[Prompt, ...]

    @property
    def succeeded(self) -> bool:
        """The last answer was sent, and was not an error."""
        return self.error is None and self.statuses[-1:] == (Status.OK,)


class PhoneLeft(HybridError):
    """A session ended before what a test waited for."""

    @property
    def identifier(self) -> str:
        return "browser.phone-left"


class Session:
    """A plan under way. `events`: what has happened on the phone so far."""

    def __init__(self, events: list[Event], doing: Future[Any]) -> None:
        self.events = events
        self._doing = doing

    def outcome(self, limit: float = SESSION) -> PhoneOutcome:
        """Wait for the end. Raises `NoCode` if no code appeared, `TimeoutError` after `limit` seconds."""
        futures.wait([self._doing], limit)
        if not self._doing.done():
            past = ", ".join(type(event).__name__ for event in self.events) or "nothing yet"
            raise TimeoutError(f"the phone's session goes on after {limit:g} s; what happened: {past}")
        outcome: PhoneOutcome = self._doing.result()
        return outcome

    def wait_for(self, event: type[Event], limit: float = WAIT) -> None:
        """Wait until something happens on the phone. Raises `TimeoutError`, or what ends the session before."""
        until = time.monotonic() + limit
        while not any(isinstance(past, event) for past in list(self.events)):
            if self._doing.done():
                raise PhoneLeft(f"the session ended before {event.__name__}: {self.outcome()}")
            if time.monotonic() >= until:
                raise TimeoutError(f"no {event.__name__} on the phone within {limit:g} s")
            time.sleep(INTERVAL)  # the phone's loop is in another thread

    def cancel(self) -> None:
        """Put the phone away. Nothing happens if the session has ended."""
        self._doing.cancel()


class Phone:
    """A phone with its own passkeys.

    `preset`: the name of one of `hybrid.passkeys.presets` to be like; `store`: where its passkeys are, in memory unless
    given; `service_id`: number of the relay, of those that the browser was started with, in place of the preset's.
    Raises `LocalProtocolError` for an unknown preset.
    """

    def __init__(
        self,
        background: Background[Place],
        place: Place,
        *,
        preset: str | None = None,
        store: CredentialStore | None = None,
        service_id: int | None = None,
    ) -> None:
        self.profile = PHONE if preset is None else presets.preset(preset)
        self.store = MemoryStore() if store is None else store
        self.service_id = self.profile.habits.service_id if service_id is None else service_id
        self._background = background
        self._place = place

    @property
    def passkeys(self) -> list[Credential]:
        """What it holds and would use."""
        return [credential for credential in self.store.credentials() if credential.usable]

    def approve(self, *, account: str | None = None, after: float = 0.0) -> PhoneOutcome:
        """Scan the code on the screen and agree. `after`: a slow person."""
        return self.begin(Approve(account, after)).outcome(SESSION + after)

    def decline(self, *, after: float = 0.0) -> PhoneOutcome:
        """Scan the code on the screen and refuse."""
        return self.begin(Decline(after)).outcome(SESSION + after)

    def no_passkey(self) -> PhoneOutcome:
        """Scan the code on the screen with a phone that has no passkey for the site."""
        return self.begin(NoPasskey()).outcome()

    def ignore(self, seconds: float = 5.0) -> PhoneOutcome:
        """Scan the code on the screen and never answer; the phone gives up."""
        return self.begin(Ignore(seconds)).outcome(SESSION + seconds)

    def hang_up(self, at: type[Event] = RequestReceived) -> PhoneOutcome:
        """Scan the code on the screen and lose the connection at a point, by default while the phone asks."""
        return self.begin(HangUp(at)).outcome()

    def out_of_range(self, seconds: float = 3.0) -> PhoneOutcome:
        """Scan the code on the screen from too far away; the phone gives up after some seconds."""
        return self.begin(OutOfRange(seconds)).outcome(SESSION + seconds)

    def misbehave(self, peer: phones.Phone, seconds: float = 5.0) -> PhoneOutcome:
        """Scan the code on the screen with a phone that breaks a rule; it gives up after some seconds."""
        return self.begin(Misbehave(peer, seconds)).outcome(SESSION + seconds)

    def bluetooth(self, on: bool) -> None:
        """Switch the phone's Bluetooth on or off."""
        self._background.run(self._place.bluez.power(PHONE_ADAPTER, on))

    def begin(self, plan: Plan, *, code_within: float = CODE_WITHIN) -> Session:
        """Start a plan and do not wait: for drivers whose click returns only when the ceremony is over.

        `code_within`: seconds until the screen must show a code.
        """
        events: list[Event] = []
        return Session(events, self._background.begin(self._place.session(self._follow(plan, code_within, events))))

    async def _follow(self, plan: Plan, code_within: float, events: list[Event]) -> PhoneOutcome:
        code = await self._place.read_code(code_within)
        if isinstance(plan, Misbehave):
            return await self._play(code, plan)
        return await _Meeting(self, self._place, plan, events).serve(code)

    async def _play(self, code: str, plan: Misbehave) -> PhoneOutcome:
        error: HybridError | None = None
        try:
            async with asyncio.timeout(plan.seconds):
                await plan.peer.run(code, advertiser=_advertiser(self._place), tunnels=_tunnels(self._place))
        except TimeoutError:
            error = PeerTimeout(Stage.REQUEST, plan.seconds)
        except HybridError as failure:
            error = failure
        self._place.keep_picture("end")
        return PhoneOutcome((), error, (), ())


class _Meeting:
    """One session of our phone, and the person in front of it."""

    def __init__(self, phone: Phone, place: Place, plan: Plan, events: list[Event]) -> None:
        self._phone = phone
        self._place = place
        self._plan = plan
        self._events = events
        self._prompts: list[Prompt] = []
        self._statuses: list[int] = []
        self._serving: asyncio.Task[object] | None = None

    async def serve(self, code: str) -> PhoneOutcome:
        self._serving = asyncio.create_task(self._answer(code))
        error: HybridError | None = None
        try:
            await asyncio.wait({self._serving})
        finally:
            self._serving.cancel()
            await asyncio.wait({self._serving})
        if not self._serving.cancelled():
            failure = self._serving.exception()
            if failure is not None and not isinstance(failure, HybridError):
                raise failure
            error = failure
        self._place.keep_picture("end")
        return PhoneOutcome(tuple(self._statuses), error, tuple(self._events), tuple(self._prompts))

    async def _answer(self, code: str) -> object:
        plan = self._plan
        store = MemoryStore() if isinstance(plan, NoPasskey) else self._phone.store
        engine = SoftwareAuthenticator(store, self, profile=self._phone.profile, prompt_timeout=self._person_has())
        out = isinstance(plan, OutOfRange)
        return await answer(
            code,
            engine,
            advertiser=_OutOfRange() if out else _advertiser(self._place),
            tunnels=_tunnels(self._place),
            on_event=self._happened,
            timeouts=PhoneTimeouts(advertise=plan.seconds) if isinstance(plan, OutOfRange) else None,
            service_id=self._phone.service_id,
            habits=self._phone.profile.habits,
        )

    def _person_has(self) -> float:
        match self._plan:
            case Ignore(seconds):
                return seconds
            case Approve(after=after) | Decline(after=after):
                return after + _PATIENCE
            case _:
                return _PATIENCE

    def _happened(self, event: Event) -> None:
        self._events.append(event)
        if isinstance(event, ResponseSent):
            self._statuses.append(event.status)
        self._place.keep_picture(type(event).__name__)
        if isinstance(self._plan, HangUp) and isinstance(event, self._plan.at) and self._serving is not None:
            self._serving.cancel()

    async def ask(self, prompt: Prompt) -> Decision:
        """Be the person: a `hybrid.passkeys.consent.Consent`."""
        self._prompts.append(prompt)
        match self._plan:
            case Approve(account, after):
                await asyncio.sleep(after)  # a person takes a while
                names = [one.name for one in prompt.accounts]
                if account is not None and account not in names:
                    return REFUSED
                return Decision(approved=True, verified=True, account=0 if account is None else names.index(account))
            case Decline(after):
                await asyncio.sleep(after)  # a person takes a while
                return REFUSED
            case Ignore() | HangUp():
                await asyncio.get_running_loop().create_future()
        return Decision(approved=True, verified=True)


def _advertiser(place: Place) -> BluezAdvertiser:
    return BluezAdvertiser(PHONE_ADAPTER, bus_address=place.bluez.address)


def _tunnels(place: Place) -> WebSocketTunnels:
    return WebSocketTunnels(relay=place.relay.address, relay_ca=place.ca_file)


class _OutOfRange:
    """An `Advertiser` whose radio does not reach anybody."""

    proximity = Proximity.BLUETOOTH

    @contextlib.asynccontextmanager
    async def advertise(
        self, service_data: bytes, *, connectable: bool = False, service_uuid: str = FIDO_UUID
    ) -> AsyncIterator[None]:
        yield
