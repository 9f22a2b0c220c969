"""The ceremony in sentences for somebody who has never seen one."""

from __future__ import annotations

from examples.relying_party.backstage.feed import Feed, Medium, Side, Step
from hybrid.cli.messages import explain, sentence_of
from hybrid.errors import HybridError
from hybrid.events import (
    Advertising,
    AdvertSeen,
    ClientArrived,
    Closed,
    CodeIsOld,
    Event,
    HandshakeDone,
    HintViolated,
    Ready,
    RequestReceived,
    RequestSent,
    ResponseReceived,
    ResponseSent,
    Scanning,
    TunnelOpened,
)
from hybrid.protocol.ctap import Command, Status

_LAPTOP, _PHONE, _RELAY = Side.LAPTOP, Side.PHONE, Side.RELAY


def in_words(error: HybridError) -> str:
    """What happened and what to do next, as sentences."""
    told = explain(error)
    return " ".join(text[:1].upper() + text[1:] + "." for text in (told.sentence, told.hint))


class Story:
    """Turns events into lines of a feed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def code_shown(self) -> None:
        self._feed.tell(
            _LAPTOP,
            "The laptop shows a QR code: a fresh public key and a one-time secret. It names neither you nor "
            "the website.",
            to=_PHONE,
            by=Medium.CAMERA,
            step=Step.CODE,
        )

    def code_read(self) -> None:
        self._feed.tell(Side.PERSON, "You point the phone's camera at the code.", to=_PHONE, by=Medium.CAMERA)

    def decided(self, approved: bool) -> None:
        text = "You agree on the phone, which unlocks it: presence and verification." if approved else "You decline."
        self._feed.tell(Side.PERSON, text, to=_PHONE, trouble=not approved)

    def failed(self, side: Side, error: HybridError) -> None:
        self._feed.tell(side, in_words(error), trouble=True)

    def laptop(self, event: Event) -> None:
        """The laptop's side."""
        tell = self._feed.tell
        match event:
            case Scanning():
                tell(_LAPTOP, "The laptop listens for a phone nearby.", by=Medium.BLUETOOTH, quiet=True)
            case AdvertSeen(domain):
                tell(
                    _LAPTOP,
                    f"The laptop hears the whisper, so the phone is near, and reads in it where to meet: {domain}.",
                    step=Step.NEAR,
                )
            case TunnelOpened():
                tell(_LAPTOP, "The laptop joins the phone at the relay.", to=_RELAY, by=Medium.RELAY, step=Step.MEET)
            case HandshakeDone():
                tell(
                    _LAPTOP,
                    "Handshake: each proves that it knows the code and the whisper. From here on only these two can "
                    "read what they say; the relay cannot.",
                    to=_PHONE,
                    by=Medium.RELAY,
                    step=Step.SECURE,
                )
            case Ready():
                tell(_PHONE, "The phone says what it can do.", to=_LAPTOP, by=Medium.RELAY, quiet=True)
            case RequestSent():
                tell(
                    _LAPTOP,
                    "The laptop passes on what the website asks, sealed.",
                    to=_PHONE,
                    by=Medium.RELAY,
                    step=Step.ASK,
                )
            case ResponseReceived(status):
                good = status == Status.OK
                text = "The laptop checks the answer and hands it to the page." if good else "The phone said no."
                tell(_LAPTOP, text, trouble=not good)
            case Closed():
                tell(_LAPTOP, "The tunnel is closed; code and keys are worth nothing now.", quiet=True)
            case _:
                self._other(_LAPTOP, event)

    def phone(self, event: Event) -> None:
        """The phone's side."""
        tell = self._feed.tell
        match event:
            case TunnelOpened(domain):
                tell(_PHONE, f"The phone opens a tunnel at the relay {domain}.", to=_RELAY, by=Medium.RELAY)
            case Advertising():
                tell(
                    _PHONE,
                    "The phone whispers 20 encrypted bytes over Bluetooth. Only who is near can hear them, "
                    "only who made the code can read them.",
                    to=_LAPTOP,
                    by=Medium.BLUETOOTH,
                    step=Step.NEAR,
                )
            case ClientArrived():
                tell(_PHONE, "The phone knows: whoever arrived has the code and is near.", step=Step.SECURE)
            case RequestReceived(command):
                wish = "a new passkey" if command == Command.MAKE_CREDENTIAL else "a signature"
                tell(_PHONE, f"The phone unseals the request: the website wants {wish}.", step=Step.ASK)
            case ResponseSent(status):
                tell(
                    _PHONE,
                    "The signed answer travels back, sealed. The private key stays on the phone."
                    if status == Status.OK
                    else "The phone declines, sealed as well.",
                    to=_LAPTOP,
                    by=Medium.RELAY,
                    step=Step.ANSWER,
                )
            case CodeIsOld(age):
                tell(_PHONE, f"Careful: this code was made {age} seconds ago.", trouble=True)
            case HintViolated():
                tell(_PHONE, "The request is not the one that the code announced; the phone refuses.", trouble=True)
            case Closed():
                pass  # the laptop's line says it
            case _:
                self._other(_PHONE, event)

    def _other(self, side: Side, event: Event) -> None:
        """What only linked phones and vaults have: as the commands say it."""
        sentence = sentence_of(event)
        if sentence is not None:
            self._feed.tell(side, sentence, quiet=True)

    def sealed(self, sender: Side, size: int) -> None:
        """The relay's whole view of a message."""
        other = _LAPTOP if sender is _PHONE else _PHONE
        self._feed.tell(
            _RELAY,
            f"The relay passes on {size} sealed bytes from the {sender} to the {other}.",
            to=other,
            by=Medium.RELAY,
            quiet=True,
        )
