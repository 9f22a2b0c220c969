"""Every failure and every event has its words."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest

from hybrid import errors, events
from hybrid.cli import messages
from hybrid.cli.messages import EXIT_BUG, CtapFailure, MissingExtra, UsageProblem, explain, explain_at_phone
from hybrid.events import Proximity

SAME_REASON = "reason"


def _failures() -> list[errors.HybridError]:
    reasons = [
        *(errors.InvalidQR(SAME_REASON, reason) for reason in errors.QRProblem),
        *(errors.BluetoothUnavailable(SAME_REASON, reason) for reason in errors.BluetoothProblem),
        *(errors.RequestRefused(SAME_REASON, reason) for reason in errors.RefusalReason),
        *(errors.VaultError(SAME_REASON, reason) for reason in errors.VaultProblem),
        *(errors.PortabilityError(SAME_REASON, reason) for reason in errors.PortabilityProblem),
        *(errors.PeerTimeout(stage, 1) for stage in errors.Stage),
        *(errors.PeerClosed(stage) for stage in errors.Stage),
        *(
            errors.TunnelError(SAME_REASON, host="relay.example", reason=reason)
            for reason in errors.TunnelProblem
            if reason not in (errors.TunnelProblem.STATUS, errors.TunnelProblem.GONE)
        ),
        *(
            errors.TunnelError(SAME_REASON, host="relay.example", reason=errors.TunnelProblem.STATUS, status=status)
            for status in (403, 404, 409, 503, 500)
        ),
        errors.LinkGone("relay.example"),
        errors.HandshakeFailed(SAME_REASON),
        errors.RemoteProtocolError(SAME_REASON),
        errors.LocalProtocolError(SAME_REASON),
        errors.ResponseRejected(SAME_REASON, "signature"),
        MissingExtra(SAME_REASON, "image"),
        messages.NoPasskeys(),
        UsageProblem(SAME_REASON, "do it otherwise"),
    ]
    return [*reasons, *(CtapFailure(status) for status in (0x27, 0x2E, 0x19, 0x2F, 0x30, 0x26, 0x28, 0x7F))]


FAILURES = _failures()


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: f"{failure.identifier}-{type(failure).__name__}")
@pytest.mark.parametrize("words_for", [explain, explain_at_phone])
def test_every_failure_has_a_sentence_and_a_hint(
    failure: errors.HybridError, words_for: Callable[[errors.HybridError], messages.Explanation]
) -> None:
    words = words_for(failure)
    for text in (words.sentence, words.hint):
        assert text
        assert "\n" not in text
        assert text[-1] not in ".!"
        assert text[0].islower()
    assert 1 <= words.exit_code <= 10


# Failures that a person mends in the same way; the sentence of each says what was wrong.
ALIKE = [
    {"timeout.scan", "timeout.advertise"},  # never both: one on each side, told apart by the sentence
    {"closed.scan", "closed.tunnel", "protocol.local"},  # cannot happen: a bug
]


def test_no_two_failures_that_are_mended_differently_share_their_words() -> None:
    seen: dict[tuple[str, str], str] = {}
    for failure in FAILURES:
        words = explain(failure)
        key = (words.sentence.replace(SAME_REASON, ""), words.hint)
        name = f"{failure.identifier} {getattr(failure, 'status', '')}"
        alike = seen.setdefault(key, name)
        assert alike == name or any({alike.split()[0], failure.identifier} <= group for group in ALIKE), key


def test_every_class_of_errors_is_tried_above() -> None:
    def leaves(kind: type[errors.HybridError]) -> set[str]:
        below = [kind for kind in kind.__subclasses__() if kind.__module__ == "hybrid.errors"]
        return {kind.__name__}.union(*map(leaves, below))

    abstract = {"HybridError", "ProtocolError", "TransportError"}
    assert leaves(errors.HybridError) - abstract <= {type(failure).__name__ for failure in FAILURES}


def test_what_is_our_fault_is_called_a_bug() -> None:
    assert explain(errors.LocalProtocolError("x")).exit_code == EXIT_BUG
    assert "bug of ours" in explain(errors.LocalProtocolError("x")).hint


@pytest.mark.parametrize("words_for", [messages.explain_status, messages.explain_sent_status])
@pytest.mark.parametrize("status", [0x27, 0x2D])
def test_a_cancelled_question_is_a_declined_one(words_for: Callable[[int], messages.Explanation], status: int) -> None:
    assert words_for(status).exit_code == messages.EXIT_DECLINED


EVENTS: list[events.Event] = [
    events.Scanning(1),
    events.AdvertSeen("relay.example", Proximity.BLUETOOTH, -60),
    events.TunnelOpened("relay.example"),
    events.PhoneConnected(),
    events.HandshakeDone(),
    events.Ready(("ctap",)),
    events.RequestSent(2, 1),
    events.ResponseReceived(0),
    events.LinkReceived("a phone"),
    events.LinkDropped(),
    events.LinkForgotten("a phone"),
    events.Advertising(1),
    events.CodeIsOld(400),
    events.ClientArrived(),
    events.RequestReceived(2),
    events.HintViolated(1),
    events.ResponseSent(0),
    events.RequestIgnored(4),
    events.LeftUnanswered(2, 0x2E),
    events.Closed(),
    events.PasskeysExported(2, "cxf", False),
    events.PasskeysImported(1, "cxf"),
]
SILENT = {events.Closed}


def test_every_event_has_a_sentence_or_is_silent_on_purpose() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(events.Event))
    sentences = [messages.sentence_of(event) for event in EVENTS if type(event) not in SILENT]
    assert all(sentences)
    assert len(set(sentences)) == len(sentences)
    assert all(messages.sentence_of(event) is None for event in EVENTS if type(event) in SILENT)


def test_a_phones_name_cannot_steer_the_terminal() -> None:
    sentence = messages.sentence_of(events.LinkReceived("evil\x1b[2J\r\n\u202ename"))
    assert sentence is not None
    assert sentence.isprintable()


def test_simulated_nearness_is_said() -> None:
    sentence = messages.sentence_of(events.AdvertSeen("relay.example", Proximity.SIMULATED, None))
    assert sentence is not None
    assert "simulated" in sentence


@pytest.mark.parametrize(("age", "told"), [(301, "5 minutes"), (86399, "1439 minutes"), (86400, "more than a day")])
def test_the_age_of_a_code(age: int, told: str) -> None:
    assert told in (messages.sentence_of(events.CodeIsOld(age)) or "")
