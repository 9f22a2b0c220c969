"""What the drivers need from the world, as small protocols shaped like their use.

A thing that must stop is a context manager. Adapters implement these with one technology each
(`hybrid.adapters`); tests and other programs bring their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from hybrid.events import Proximity
from hybrid.protocol.eid import FIDO_UUID
from hybrid.protocol.qr import Hint
from hybrid.protocol.tunnel import TunnelRequest


@dataclass(frozen=True, slots=True)
class Advert:
    """One broadcast as a scanner heard it.

    `data`: service data of FFF9 or FDE2, any length; `address` and `address_type` ("public" or "random") of the
    sender as the radio gives them; `adapter`: the local adapter that heard it, e.g. "hci0"; `rssi` in dBm.
    """

    data: bytes
    address: str = ""
    address_type: str = ""
    adapter: str = ""
    rssi: int | None = None


class Scanner(Protocol):
    """Hears adverts."""

    @property
    def proximity(self) -> Proximity:
        """Who vouches for nearness when an advert comes from here."""
        ...

    def scan(self) -> AbstractAsyncContextManager[AsyncIterator[Advert]]:
        """Listen while the context is open.

        The iterator gives FIDO service data only, each distinct data once, and does not end by itself.
        Entering and iterating raise `BluetoothUnavailable`.
        """
        ...


class Advertiser(Protocol):
    """Puts service data on the air."""

    @property
    def proximity(self) -> Proximity:
        """Who vouches for nearness when an advert is sent from here."""
        ...

    def advertise(
        self, service_data: bytes, *, connectable: bool = False, service_uuid: str = FIDO_UUID
    ) -> AbstractAsyncContextManager[None]:
        """Broadcast `service_data` under `service_uuid` while the context is open. Raises `BluetoothUnavailable`."""
        ...


class Channel(Protocol):
    """Ordered, two-way bytes to the peer.

    `bounded`: one receive is one message (WebSocket); otherwise a receive is any run of bytes (L2CAP), and
    `hybrid.protocol.frames` finds the ends of messages, because only the receive cipher can.
    """

    @property
    def bounded(self) -> bool: ...

    @property
    def routing_id(self) -> bytes | None:
        """3 bytes, if the relay gave one when the channel was opened."""
        ...

    @property
    def signals(self) -> bool:
        """The relay will send one unencrypted message ``00`` when a contacted phone joins."""
        ...

    async def send(self, message: bytes) -> None:
        """Raises `TunnelError` if the peer is gone."""
        ...

    async def receive(self) -> bytes | None:
        """Give the next message; None once the peer closed cleanly. Raises `TunnelError`."""
        ...

    async def aclose(self) -> None:
        """Close with code 1000. Idempotent, never raises for a channel that is already dead."""
        ...


class TunnelService(Protocol):
    """Opens tunnels through a relay."""

    @property
    def loopback(self) -> bool:
        """Whether the relay lives on this machine. The simulated air works with such a relay only."""
        ...

    async def open(self, request: TunnelRequest) -> Channel:
        """Create, join or contact, as `request` says. Raises `TunnelError`, `LinkGone` for a 410 on contact."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks, for a backend's consent prompt.

    `channel`: "qr", "link", or "local" for a program on this machine; `hint`: what the code announced, None if nothing
    known was; `linked_name`: the linked client's name; `proximity`: who vouches for nearness.
    """

    channel: str
    hint: Hint | None
    linked_name: str | None
    proximity: Proximity


LOCAL_PEER = Peer(channel="local", hint=None, linked_name=None, proximity=Proximity.SIMULATED)


class CtapBackend(Protocol):
    """What answers CTAP requests behind `hybrid.answer`."""

    @property
    def get_info(self) -> bytes:
        """CBOR of the authenticatorGetInfo response map, without a status byte. Must not change in a session."""
        ...

    async def call(self, request: bytes, *, peer: Peer) -> bytes:
        """Answer one request (command byte and CBOR) with status byte and CBOR.

        The task is cancelled when the client leaves: dismiss the prompt and store nothing unconfirmed.
        """
        ...
