"""Where a join goes whose routing ID is not ours: the port through which whoever knows the owner takes it over.

The relay has read and checked the request head and has answered nothing. A `Router` that returns a `Taker` owns the
rest of the connection: it gets every byte that follows, and what it writes goes to the client as it is, so the answer
to the request (101 or a refusal) must come from the owner. The connection goes on counting for the limits on
connections, and ends at the latest after the lifetime of a tunnel. No `Router`, or None from it: the client gets 404.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hybrid.protocol.tunnel import Connect


class Stream(Protocol):
    """The client's side of a connection, below HTTP and above TLS and PROXY headers."""

    def write(self, data: bytes) -> None:
        """Send; never blocks. `Taker.pause_writing` says when it is too much."""

    def pause_reading(self) -> None:
        """No `Taker.data_received` from now on."""

    def resume_reading(self) -> None:
        """Undo `pause_reading`."""

    def close(self) -> None:
        """Send what is left, then end."""

    def abort(self) -> None:
        """End at once."""


class Taker(Protocol):
    """Who took a connection over; called like an `asyncio.Protocol`."""

    def data_received(self, data: bytes) -> None:
        """Bytes from the client. The first ones may come before anything else has happened."""

    def eof_received(self) -> None:
        """The client sends nothing more; it may still read."""

    def pause_writing(self) -> None:
        """The client reads more slowly than it is written to."""

    def resume_writing(self) -> None:
        """The client has caught up."""

    def connection_lost(self) -> None:
        """The connection is over, whoever ended it. Always the last call."""


@dataclass(frozen=True, slots=True, repr=False)
class ForeignJoin:
    """A good request to join a tunnel of another relay.

    `head` holds the request as it came, from its first line to the empty one, at most 8 KiB; what the client sent
    behind it comes through `Taker.data_received`. `headers`: its fields, names in lower case, values in order.
    `client` is the address that limits apply to, None for a connection that is never limited. `descriptor` is the TCP
    socket's, if nothing but this stream goes through it, so that it can be given away; None behind TLS.
    """

    connect: Connect
    head: bytes
    headers: Mapping[bytes, Sequence[bytes]]
    client: str | None
    stream: Stream
    descriptor: int | None = None

    def __repr__(self) -> str:
        return f"<ForeignJoin, head of {len(self.head)} bytes>"


Router = Callable[[ForeignJoin], Taker | None]
"""Called from the event loop; must not block. It may start tasks, and write to the stream later."""
