"""What the person at the phone is asked, and who answers: a person, or a policy in tests.

One prompt object in, one decision out. A user interface brings a `Consent` (and a `PinEntry`) that talks to a person
and stacks the wrappers here on it::

    LimitedConsent(PinConsent(terminal, terminal, VaultPin(vault)))

Nothing here draws or reads a terminal.
"""

from __future__ import annotations

import asyncio
import time
import unicodedata
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from hybrid.ports import Peer

_MAX_SHOWN_TEXT = 64
_MAX_SHOWN_RP_ID = 253
_MAX_MARKS = 3  # combining marks on one character; more of them paint over the lines around it


class Operation(StrEnum):
    """What the person is asked for."""

    CREATE = "create"
    SIGN_IN = "sign-in"
    NOTHING_FOUND = "nothing-found"  # nothing to decide: approved means that the person has seen it
    SELECT = "select"  # the client only wants to know that somebody is here
    RESET = "reset"  # remove every passkey, the PIN and all settings; no site, no account


@dataclass(frozen=True, slots=True)
class Account:
    """A passkey as a person tells it from others. Times in seconds since 1970; the texts are harmless."""

    name: str
    display_name: str
    created_at: int
    last_used_at: int | None = None
    synced: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question. Every text in it is harmless to print.

    `rp_id`: the site, to be shown large; `rp_name`: what the client calls it, secondary, unverified; `accounts`: the
    one to be made, or those to choose from, newest first, or none; `saved_in`: where a new passkey goes; `synced`:
    whether it is copied to other devices from there; `replaces`: how many passkeys of the same account are archived
    if the person agrees; `peer`: who asks.
    """

    operation: Operation
    rp_id: str
    rp_name: str
    accounts: tuple[Account, ...]
    saved_in: str
    synced: bool
    replaces: int
    peer: Peer


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to a prompt.

    `verified`: it was really checked who answers, e.g. by a PIN of ours; agreeing alone is not that. `account`: index
    in the prompt's accounts.
    """

    approved: bool
    verified: bool = False
    account: int = 0


REFUSED = Decision(approved=False)


class Consent(Protocol):
    """Answers prompts."""

    async def ask(self, prompt: Prompt) -> Decision:
        """Show `prompt` and wait for the decision. Cancelled when it no longer matters: take the prompt away."""
        ...


class AlwaysApprove:
    """For tests: agrees to everything and stands for user verification; of several passkeys the newest."""

    async def ask(self, prompt: Prompt) -> Decision:
        return Decision(approved=True, verified=True, account=0)


class NeverApprove:
    """For tests: agrees to nothing, whether or not anything matched."""

    async def ask(self, prompt: Prompt) -> Decision:
        return REFUSED


class PinPurpose(StrEnum):
    """Why a PIN is asked."""

    SET = "set"  # there is none yet: a new one
    REPEAT = "repeat"  # the new one again
    ENTER = "enter"
    BLOCKED = "blocked"  # nothing to type: too many wrong ones, try again in `wait` seconds


class PinProblem(StrEnum):
    """What was wrong with the text typed before."""

    WRONG = "wrong"
    TOO_SHORT = "too-short"
    TOO_LONG = "too-long"
    MISMATCH = "mismatch"


@dataclass(frozen=True, slots=True)
class PinRequest:
    """One question for a PIN. `tries_left` for ENTER, `wait` in seconds for BLOCKED."""

    purpose: PinPurpose
    problem: PinProblem | None = None
    tries_left: int = 0
    wait: int = 0


class PinEntry(Protocol):
    """Lets a person type a PIN."""

    async def ask_pin(self, request: PinRequest) -> str | None:
        """Give the typed text, not echoed; None if the person gives up. For BLOCKED the answer is not looked at."""
        ...


class PinKeeper(Protocol):
    """Knows the PIN. All may raise `VaultError`."""

    @property
    def is_set(self) -> bool: ...

    def wait_seconds(self) -> int:
        """How long no PIN is looked at, because too many were wrong; 0 if one may be tried."""
        ...

    def set(self, pin: str) -> bool:
        """Keep a first PIN. False if there is one already."""
        ...

    def check(self, pin: str) -> bool:
        """Whether it is the PIN. Always false while there is time to wait."""
        ...


MIN_PIN_LENGTH = 4
MAX_PIN_SIZE = 63  # UTF-8 bytes, as for CTAP PINs
_TRIES_PER_SESSION = 3


def normal_pin(pin: str) -> str:
    """The form that is kept and compared: the same keys give the same PIN on every keyboard layout's composition."""
    return unicodedata.normalize("NFC", pin)


def pin_problem(pin: str) -> PinProblem | None:
    """What stops this text from being a new PIN."""
    pin = normal_pin(pin)
    if len(pin) < MIN_PIN_LENGTH:
        return PinProblem.TOO_SHORT
    if len(pin.encode(errors="replace")) > MAX_PIN_SIZE:
        return PinProblem.TOO_LONG
    return None


class PinConsent:
    """Adds user verification by a PIN of ours to a `Consent` that only asks.

    The PIN is offered at the first use and asked for every operation after that. Three wrong ones in a row end the
    session: everything that follows is refused, whether or not anything matched.
    """

    def __init__(self, consent: Consent, entry: PinEntry, keeper: PinKeeper) -> None:
        self._consent = consent
        self._entry = entry
        self._keeper = keeper
        self._wrong = 0

    async def ask(self, prompt: Prompt) -> Decision:
        if self._wrong >= _TRIES_PER_SESSION:
            return REFUSED
        decision = await self._consent.ask(prompt)
        needs_pin = prompt.operation in (Operation.CREATE, Operation.SIGN_IN)
        if not decision.approved or decision.verified or not needs_pin:
            return decision
        verified = await (self.enter() if self._keeper.is_set else self._set())
        return replace(decision, verified=True) if verified else REFUSED

    async def enter(self) -> bool:
        """Ask for the PIN that is set; whether it was given."""
        problem = None
        while self._wrong < _TRIES_PER_SESSION:
            wait = self._keeper.wait_seconds()
            if wait:
                await self._entry.ask_pin(PinRequest(PinPurpose.BLOCKED, problem, wait=wait))
                return False
            request = PinRequest(PinPurpose.ENTER, problem, tries_left=_TRIES_PER_SESSION - self._wrong)
            pin = await self._entry.ask_pin(request)
            if pin is None:
                return False
            if self._keeper.check(pin):
                self._wrong = 0
                return True
            self._wrong += 1
            problem = PinProblem.WRONG
        return False

    async def _set(self) -> bool:
        problem = None
        while True:
            pin = await self._entry.ask_pin(PinRequest(PinPurpose.SET, problem))
            if pin is None:
                return False
            problem = pin_problem(pin)
            if problem is not None:
                continue
            again = await self._entry.ask_pin(PinRequest(PinPurpose.REPEAT))
            if again is None:
                return False
            if normal_pin(again) == normal_pin(pin):
                return self._keeper.set(pin)
            problem = PinProblem.MISMATCH


_PROMPTS_PER_MINUTE = 5
_REFUSALS_BEFORE_BACK_OFF = 3
_BACK_OFF = 60.0
_MAX_BACK_OFF = 3600.0


class LimitedConsent:
    """Protects a person from a flood of prompts: one at a time, five a minute, a pause after three refusals.

    The pause is a minute and doubles with each further refusal. What is over a limit is refused without a prompt,
    whether or not anything matched. Not for policies, which nobody looks at. `clock` gives monotonic seconds.
    """

    def __init__(self, consent: Consent, clock: Callable[[], float] = time.monotonic) -> None:
        self._consent = consent
        self._clock = clock
        self._pending = asyncio.Lock()
        self._shown: deque[float] = deque(maxlen=_PROMPTS_PER_MINUTE)
        self._refusals = 0
        self._quiet_until = float("-inf")

    async def ask(self, prompt: Prompt) -> Decision:
        now = self._clock()
        crowded = len(self._shown) == _PROMPTS_PER_MINUTE and now - self._shown[0] < 60
        if self._pending.locked() or crowded or now < self._quiet_until:
            return REFUSED
        async with self._pending:
            self._shown.append(now)
            decision = await self._consent.ask(prompt)
        if not decision.approved:
            self._refused()
        elif prompt.operation is not Operation.NOTHING_FOUND:  # dismissing that one agrees to nothing
            self._refusals = 0
        return decision

    def _refused(self) -> None:
        self._refusals += 1
        more = self._refusals - _REFUSALS_BEFORE_BACK_OFF
        if more >= 0:
            self._quiet_until = self._clock() + min(_BACK_OFF * 2.0 ** min(more, 16), _MAX_BACK_OFF)


def harmless(text: str, limit: int = _MAX_SHOWN_TEXT) -> str:
    """Make text of a peer safe to print on one line of a terminal.

    Controls become visible (``\\x1b``), so that no terminal sequence survives; invisible and direction-changing
    characters go; white space becomes single spaces; stacked marks are thinned; more than `limit` characters are cut.
    """
    kept: list[str] = []
    marks = 0
    for char in unicodedata.normalize("NFC", text[: 8 * limit]):
        category = unicodedata.category(char)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if char.isspace():
            kept.append(" ")
        elif category == "Cc":
            kept.append(f"\\x{ord(char):02x}")
        elif not category.startswith("C") and marks <= _MAX_MARKS:
            kept.append(char)
    shown = " ".join("".join(kept).split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def shown_rp_id(rp_id: str) -> str:
    """The RP id as a person may judge it: names that are not plain ASCII in their A-label form (``xn--...``).

    Not only names of mixed script: a name in one foreign script can look like a Latin one, too. If it is too long,
    the beginning is cut, because the end says whose name it is.
    """
    labels = [
        label if label.isascii() else "xn--" + label.lower().encode("punycode", errors="replace").decode()
        for label in unicodedata.normalize("NFC", rp_id).split(".")
    ]
    shown = harmless(".".join(labels), limit=8 * _MAX_SHOWN_RP_ID)
    return shown if len(shown) <= _MAX_SHOWN_RP_ID else "…" + shown[1 - _MAX_SHOWN_RP_ID :]
