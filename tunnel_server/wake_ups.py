"""Small messages that must find a linked phone, wherever in the cluster it is connected.

A client that knows a phone asks its relay to wake it (``/cable/contact``), and the phone listens at any worker of any
node. This port carries what the one has to say to the other. Linking does not exist yet, so nobody calls it but tests;
what is settled is the port, what travels, and how it fails. Without NATS a single process has `InProcess`; several have
`tunnel_server.nats_wake_ups`.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

MAX_MESSAGE = 4096  # bytes: tunnel id, routing id and a client's payload are some hundred

Handler = Callable[[bytes], bool]
"""Takes a message; whether the phone got it. Called from the event loop, must not block."""


class WakeUps(Protocol):
    """How a message finds a phone."""

    def listen(self, contact_id: bytes, handler: Handler) -> AbstractAsyncContextManager[None]:
        """Be where the phone of a contact id (any length above 0) is connected, while the context is open.

        Several may listen for one contact id; each gets every message.
        """

    async def wake(self, contact_id: bytes, message: bytes) -> bool:
        """Whether a phone got the message; False if none is connected, or if that cannot be known soon.

        Raises:
            ValueError: more than `MAX_MESSAGE` bytes.
        """


def address(contact_id: bytes) -> str:
    """Name of a contact id among relays, 32 hex digits: a monitor of the messages sees no contact id."""
    return hashlib.sha256(b"tunnel-server wake-up\0" + contact_id).hexdigest()[:32]


def check_size(message: bytes) -> None:
    """Refuse a message that is too long.

    Raises:
        ValueError
    """
    if len(message) > MAX_MESSAGE:
        raise ValueError(f"a message of {len(message)} bytes, above {MAX_MESSAGE}")


class InProcess:
    """`WakeUps` of a relay that is a single process."""

    def __init__(self) -> None:
        self._handlers: dict[str, list[Handler]] = {}

    @asynccontextmanager
    async def listen(self, contact_id: bytes, handler: Handler) -> AsyncIterator[None]:
        name = address(contact_id)
        handlers = self._handlers.setdefault(name, [])
        handlers.append(handler)
        try:
            yield
        finally:
            handlers.remove(handler)
            if not handlers:
                del self._handlers[name]

    async def wake(self, contact_id: bytes, message: bytes) -> bool:
        check_size(message)
        return any([handler(message) for handler in list(self._handlers.get(address(contact_id), ()))])
