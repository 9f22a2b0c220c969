"""Harmless texts, policies, the PIN in front of a consent, and the limits on prompts."""

from __future__ import annotations

import asyncio
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hybrid.passkeys.consent import (
    REFUSED,
    Account,
    AlwaysApprove,
    Decision,
    LimitedConsent,
    NeverApprove,
    Operation,
    PinConsent,
    PinProblem,
    PinPurpose,
    PinRequest,
    Prompt,
    harmless,
    pin_problem,
    shown_rp_id,
)
from tests.passkeys.rig import PEER, AbsentPerson, Clock, Person

PROMPT = Prompt(
    operation=Operation.CREATE,
    rp_id="example.com",
    rp_name="Example",
    accounts=(Account("ann", "Ann", 0),),
    saved_in="a vault",
    synced=False,
    replaces=0,
    peer=PEER,
)
SIGN_IN = replace(PROMPT, operation=Operation.SIGN_IN)
NOTHING = replace(PROMPT, operation=Operation.NOTHING_FOUND, accounts=())
AGREED = Decision(True)
VERIFIED = Decision(True, verified=True)

HARMLESS = {
    "plain": ("Ann Example", "Ann Example"),
    "other scripts stay": ("Änne 日本 Иван", "Änne 日本 Иван"),
    "terminal sequence": ("\x1b[2Jann\x07", "\\x1b[2Jann\\x07"),
    "8-bit terminal sequence": ("\x9b2J", "\\x9b2J"),
    "line ends are spaces": ("ann\r\nsaved in: my vault\u2028x", "ann saved in: my vault x"),
    "direction": ("\u202egro.elpmaxe\u202c\u2066x\u2069\u200f", "gro.elpmaxex"),
    "invisible": ("a\u200bn\ufeffn\u00ad", "ann"),
    "private and unassigned": ("a\ue000\U000e0041\u0378b", "ab"),
    "stacked marks": ("x" + "\u0336" * 50, "x" + "\u0336" * 3),
    "long": ("a" * 65, "a" * 63 + "…"),
    "just fits": ("a" * 64, "a" * 64),
    "lone surrogate": ("a\ud800b", "ab"),
}


@pytest.mark.parametrize(("text", "shown"), HARMLESS.values(), ids=HARMLESS.keys())
def test_harmless(text: str, shown: str) -> None:
    assert harmless(text) == shown


@settings(deadline=None)
@given(st.text(alphabet=st.characters()))
@example("\x1b]0;title\x07")
def test_harmless_leaves_nothing_that_acts(text: str) -> None:
    shown = harmless(text)
    assert len(shown) <= 64
    assert not any(unicodedata.category(char).startswith("C") for char in shown)
    assert not any(char.isspace() and char != " " for char in shown)
    shown.encode()


RP_IDS = {
    "plain": ("login.example.com", "login.example.com"),
    "mixed script": ("ex\u0430mple.com", "xn--exmple-4nf.com"),
    "one foreign script": ("\u0430\u0440\u0440\u04cf\u0435.com", "xn--80ak6aa92e.com"),
    "A-label stays": ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    "upper case is folded": ("B\u00dcCHER.example", "xn--bcher-kva.example"),
    "controls": ("example.com\x1b[m", "example.com\\x1b[m"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize(("rp_id", "shown"), RP_IDS.values(), ids=RP_IDS.keys())
def test_shown_rp_id(rp_id: str, shown: str) -> None:
    assert shown_rp_id(rp_id) == shown


def test_shown_rp_id_keeps_the_end() -> None:
    shown = shown_rp_id("example.com." + "ü" * 200 + ".evil.example")
    assert len(shown) <= 253
    assert shown_rp_id("a" * 253) == "a" * 253
    assert shown_rp_id("a." * 200 + "evil.example").endswith(".evil.example")
    assert shown_rp_id("a." * 200 + "evil.example").startswith("…")


@settings(deadline=None)
@given(st.text(alphabet=st.characters(), max_size=253))
def test_shown_rp_id_is_plain(rp_id: str) -> None:
    shown = shown_rp_id(rp_id)
    assert shown.removeprefix("…").isascii()
    assert shown.isprintable()


async def test_policies() -> None:
    for prompt in (PROMPT, SIGN_IN, NOTHING):
        assert await AlwaysApprove().ask(prompt) == Decision(True, verified=True, account=0)
        assert (await NeverApprove().ask(prompt)).approved is False


# --- PIN -------------------------------------------------------------------------------------------------------------


class Keypad:
    """Types from a list; remembers what it was asked for."""

    def __init__(self, *typed: str | None) -> None:
        self.requests: list[PinRequest] = []
        self._typed = list(typed)

    async def ask_pin(self, request: PinRequest) -> str | None:
        self.requests.append(request)
        return None if request.purpose is PinPurpose.BLOCKED else self._typed.pop(0)

    @property
    def purposes(self) -> list[PinPurpose]:
        return [request.purpose for request in self.requests]


class Keeper:
    """A `PinKeeper` in memory."""

    def __init__(self, pin: str | None = None, wait: int = 0) -> None:
        self.pin = pin
        self.wait = wait

    @property
    def is_set(self) -> bool:
        return self.pin is not None

    def wait_seconds(self) -> int:
        return self.wait

    def set(self, pin: str) -> bool:
        self.pin = pin
        return True

    def check(self, pin: str) -> bool:
        return pin == self.pin


async def test_pin_is_offered_at_the_first_use_and_asked_after() -> None:
    keypad, keeper = Keypad("1234", "1234", "1234"), Keeper()
    consent = PinConsent(Person(replace(AGREED, account=1)), keypad, keeper)
    assert await consent.ask(PROMPT) == Decision(True, verified=True, account=1)
    assert keeper.pin == "1234"
    assert await consent.ask(SIGN_IN) == Decision(True, verified=True, account=1)
    assert keypad.purposes == [PinPurpose.SET, PinPurpose.REPEAT, PinPurpose.ENTER]


async def test_new_pin_must_be_good_and_typed_twice_alike() -> None:
    keypad, keeper = Keypad("123", "x" * 64, "1234", "4321", "1234", "1234"), Keeper()
    assert (await PinConsent(Person(AGREED), keypad, keeper).ask(PROMPT)).verified
    assert [request.problem for request in keypad.requests] == [
        None,
        PinProblem.TOO_SHORT,
        PinProblem.TOO_LONG,
        None,
        PinProblem.MISMATCH,
        None,
    ]


@pytest.mark.parametrize("typed", [(None,), ("1234", None)])
async def test_giving_up_a_new_pin_refuses(typed: tuple[str | None, ...]) -> None:
    keeper = Keeper()
    assert await PinConsent(Person(AGREED), Keypad(*typed), keeper).ask(PROMPT) == REFUSED
    assert keeper.pin is None


async def test_three_wrong_pins_end_the_session() -> None:
    keypad, person = Keypad("0000", "1111", "2222"), Person(AGREED)
    consent = PinConsent(person, keypad, Keeper("1234"))
    assert await consent.ask(SIGN_IN) == REFUSED
    assert [request.tries_left for request in keypad.requests] == [3, 2, 1]
    assert [request.problem for request in keypad.requests] == [None, PinProblem.WRONG, PinProblem.WRONG]
    for prompt in (SIGN_IN, PROMPT, NOTHING):
        assert await consent.ask(prompt) == REFUSED
    assert len(person.prompts) == 1


async def test_a_right_pin_forgives_wrong_ones() -> None:
    keypad = Keypad("0000", "1111", "1234", "0000", "1111", "1234")
    consent = PinConsent(Person(AGREED), keypad, Keeper("1234"))
    assert (await consent.ask(SIGN_IN)).verified
    assert (await consent.ask(SIGN_IN)).verified


async def test_wrong_pins_count_across_operations() -> None:
    keypad = Keypad("0000", "1111", None, "2222")
    consent = PinConsent(Person(AGREED), keypad, Keeper("1234"))
    assert await consent.ask(SIGN_IN) == REFUSED
    assert await consent.ask(SIGN_IN) == REFUSED
    assert keypad.requests[-1].tries_left == 1


async def test_blocked_pin_is_said_and_refused() -> None:
    keypad = Keypad()
    assert await PinConsent(Person(AGREED), keypad, Keeper("1234", wait=30)).ask(SIGN_IN) == REFUSED
    assert keypad.requests == [PinRequest(PinPurpose.BLOCKED, wait=30)]


NO_PIN = {
    "refused": (PROMPT, REFUSED),
    "already verified": (PROMPT, VERIFIED),
    "nothing found": (NOTHING, AGREED),
    "only somebody here": (replace(PROMPT, operation=Operation.SELECT), AGREED),
}


@pytest.mark.parametrize(("prompt", "decision"), NO_PIN.values(), ids=NO_PIN.keys())
async def test_no_pin_asked(prompt: Prompt, decision: Decision) -> None:
    keypad = Keypad()
    assert await PinConsent(Person(decision), keypad, Keeper("1234")).ask(prompt) == decision
    assert keypad.requests == []


def test_pin_length_counts_composed_characters() -> None:
    assert pin_problem("u\u0308" * 3) is PinProblem.TOO_SHORT
    assert pin_problem("u\u0308" * 4) is None
    assert pin_problem("1" * 63) is None


# --- T9 --------------------------------------------------------------------------------------------------------------


async def test_t9_five_prompts_a_minute() -> None:
    person, clock = Person(VERIFIED), Clock(0)
    consent = LimitedConsent(person, clock)
    for _ in range(5):
        assert await consent.ask(NOTHING) == VERIFIED
        clock.now += 10
    for prompt in (PROMPT, SIGN_IN, NOTHING):  # the same for a match and for none
        assert await consent.ask(prompt) == REFUSED
    assert len(person.prompts) == 5
    clock.now = 60
    assert await consent.ask(PROMPT) == VERIFIED
    assert await consent.ask(PROMPT) == REFUSED


async def test_t9_pause_after_three_refusals_doubles() -> None:
    person, clock = Person(REFUSED), Clock(0)
    consent = LimitedConsent(person, clock)
    for _ in range(3):
        await consent.ask(PROMPT)
        clock.now += 30
    assert len(person.prompts) == 3
    clock.now = 119
    await consent.ask(PROMPT)
    assert len(person.prompts) == 3
    clock.now = 120
    await consent.ask(PROMPT)
    assert len(person.prompts) == 4
    clock.now = 239
    await consent.ask(PROMPT)
    assert len(person.prompts) == 4
    clock.now = 240
    await consent.ask(PROMPT)
    assert len(person.prompts) == 5


async def test_t9_agreeing_ends_the_count_but_dismissing_does_not() -> None:
    clock = Clock(0)
    person = Person(REFUSED, REFUSED, AGREED, REFUSED, REFUSED, AGREED, REFUSED)
    consent = LimitedConsent(person, clock)
    for prompt in (PROMPT, PROMPT, PROMPT, PROMPT, PROMPT):
        await consent.ask(prompt)
        clock.now += 60
    await consent.ask(NOTHING)
    clock.now += 60
    assert len(person.prompts) == 6
    await consent.ask(PROMPT)
    await consent.ask(PROMPT)
    assert len(person.prompts) == 7


async def test_t9_one_prompt_at_a_time() -> None:
    person = AbsentPerson()
    consent = LimitedConsent(person, Clock(0))
    first = asyncio.create_task(consent.ask(PROMPT))
    await person.waiting.wait()
    assert await consent.ask(PROMPT) == REFUSED
    person.waiting.clear()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(consent.ask(PROMPT))
    await person.waiting.wait()  # a prompt taken away does not stand in the way
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
