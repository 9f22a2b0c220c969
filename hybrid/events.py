"""What happened, told for people: frozen facts in the past tense, never a secret in any of them.

A user interface gets them through ``on_event=`` and matches exhaustively, so a new event fails type-checking until
someone gives it a sentence. The client's events and the phone's share one union, `Event`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Proximity(StrEnum):
    """Who vouches that the two devices are near each other."""

    BLUETOOTH = "bluetooth"
    SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class Scanning:
    """The client listens for the phone's advert. `timeout`: seconds until it gives up."""

    timeout: float


@dataclass(frozen=True, slots=True)
class AdvertSeen:
    """The advert of the phone that scanned our code was heard. The code has done its work: hide it."""

    tunnel_domain: str
    proximity: Proximity
    rssi: int | None


@dataclass(frozen=True, slots=True)
class TunnelOpened:
    """The connection to the relay stands."""

    tunnel_domain: str


@dataclass(frozen=True, slots=True)
class PhoneConnected:
    """A relay that signals said that the linked phone has joined. Unauthenticated: for display only."""


@dataclass(frozen=True, slots=True)
class HandshakeDone:
    """Both sides proved that they know the code and heard the advert; everything is encrypted from here on."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The phone introduced itself; requests can be sent. `features` as announced."""

    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RequestSent:
    """A CTAP request left. `command` is its command byte; `timeout` the seconds the person at the phone has."""

    command: int
    timeout: float


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """The phone answered; `status` is the CTAP status byte."""

    status: int


@dataclass(frozen=True, slots=True)
class LinkReceived:
    """The phone offered a link, and its proof was good. The link itself is on the session."""

    name: str


@dataclass(frozen=True, slots=True)
class LinkDropped:
    """The phone sent linking information that we cannot use; nothing was stored or removed."""


@dataclass(frozen=True, slots=True)
class LinkForgotten:
    """The relay said that a stored link is gone for good."""

    name: str


@dataclass(frozen=True, slots=True)
class Advertising:
    """The phone is on the air. `timeout`: seconds until it gives up."""

    timeout: float


@dataclass(frozen=True, slots=True)
class CodeIsOld:
    """The scanned code says that it was made `age` seconds ago."""

    age: int


@dataclass(frozen=True, slots=True)
class ClientArrived:
    """A client with the right code heard our advert and completed the handshake."""


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """The client sent a CTAP request with this command byte."""

    command: int


@dataclass(frozen=True, slots=True)
class HintViolated:
    """The client asked for another operation than its code announced; it got a refusal."""

    command: int


@dataclass(frozen=True, slots=True)
class ResponseSent:
    """We answered with this CTAP status byte."""

    status: int


@dataclass(frozen=True, slots=True)
class RequestIgnored:
    """The client sent this command, and gets no answer: the phone that we are says nothing to it."""

    command: int


@dataclass(frozen=True, slots=True)
class LeftUnanswered:
    """We ended the session in place of answering this command with this status, as the phone that we are does."""

    command: int
    status: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The session is over and the channel closed."""


@dataclass(frozen=True, slots=True)
class PasskeysExported:
    """Passkeys are about to leave the vault for a file. Also a line of the vault's audit file."""

    count: int
    format: str
    encrypted: bool


@dataclass(frozen=True, slots=True)
class PasskeysImported:
    """Passkeys of a file are in the vault. Also a line of the vault's audit file."""

    count: int
    format: str


Event = (
    Scanning
    | AdvertSeen
    | TunnelOpened
    | PhoneConnected
    | HandshakeDone
    | Ready
    | RequestSent
    | ResponseReceived
    | LinkReceived
    | LinkDropped
    | LinkForgotten
    | Advertising
    | CodeIsOld
    | ClientArrived
    | RequestReceived
    | HintViolated
    | ResponseSent
    | RequestIgnored
    | LeftUnanswered
    | Closed
    | PasskeysExported
    | PasskeysImported
)
