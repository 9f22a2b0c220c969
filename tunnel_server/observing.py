"""What a relay tells whoever watches it: how tunnels end, how long handshakes take. No id, no address, no payload.

Calls are made from the event loop between two packets, so they must be cheap and must not raise. How many bytes and
messages were passed on, how many tunnels are pending and joined: `tunnel_server.relay.Relay` holds these as plain
numbers (`pending`, `joined`, `forwarded_messages`, `forwarded_bytes`, `connections`), to be read when somebody asks.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol


class Outcome(Enum):
    """How a tunnel ended."""

    JOINED = "joined"  # both sides met, and one of them left with a close frame
    VANISHED = "vanished"  # both sides met, and one of them ended without a close frame
    ABANDONED = "abandoned"  # its owner went before anybody joined
    LONELY = "lonely"  # nobody joined in time
    EXPIRED = "expired"  # joined, then silent for too long, or too old
    LIMITED = "limited"  # too many messages, too many bytes, or a reader that stalled
    ERRORED = "errored"  # a side broke the rules of WebSocket, or sent text
    STOPPED = "stopped"  # the relay stopped


class Observer(Protocol):
    """Who watches. Seconds are floats."""

    def handshake_done(self, seconds: float) -> None:
        """A TLS handshake is complete, `seconds` after its connection was accepted."""

    def handshake_failed(self) -> None:
        """A TLS handshake failed, or was not complete when its connection ended."""

    def upgraded(self, seconds: float) -> None:
        """A request was answered with 101, `seconds` after its connection was accepted."""

    def refused(self, status: int) -> None:
        """A request was answered with an HTTP `status` other than 101."""

    def dropped(self) -> None:
        """A connection was ended without an answer: too many of them, or no request in time."""

    def handed_over(self) -> None:
        """A request to join a tunnel of another relay was given to the `tunnel_server.foreign.Router`."""

    def tunnel_ended(self, outcome: Outcome, seconds: float) -> None:
        """A tunnel is over, `seconds` after it was created."""


class Unobserved:
    """An `Observer` that forgets everything."""

    def handshake_done(self, seconds: float) -> None:
        pass

    def handshake_failed(self) -> None:
        pass

    def upgraded(self, seconds: float) -> None:
        pass

    def refused(self, status: int) -> None:
        pass

    def dropped(self) -> None:
        pass

    def handed_over(self) -> None:
        pass

    def tunnel_ended(self, outcome: Outcome, seconds: float) -> None:
        pass
