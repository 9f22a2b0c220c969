"""One end of a session with every rule of sealing open to be broken (CTAP 2.3 §11.5.1, "data transfer").

Not the codec of client and phone, which is `hybrid.protocol.frames` and cannot be made to misbehave.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hybrid.driving import MessageChannel
from hybrid.protocol import frames
from hybrid.protocol.frames import Frame, MessageType, Opener


class PeerLeft(Exception):
    """The other side closed the channel: the end of every misbehaving peer."""


class Wire:
    """Sends and receives messages, as they are or sealed."""

    def __init__(self, channel: MessageChannel) -> None:
        self.counter = 0
        self._channel = channel
        self._key = b""
        self._opener: Opener | None = None

    def agree(self, *, sends: bytes, receives: bytes) -> None:
        """Use these 32-byte keys from now on."""
        self._key = sends
        self._opener = Opener(receives)

    async def send(self, message: bytes) -> None:
        """Send bytes as they are."""
        await self._channel.send(message)

    async def send_padded(self, padded: bytes, counter: int | None = None) -> None:
        """Seal a plaintext that has its padding already; `counter`: instead of the next one."""
        used = self.counter if counter is None else counter
        self.counter += 1
        await self.send(AESGCM(self._key).encrypt(frames.nonce(used), padded, b""))

    async def send_plaintext(self, plaintext: bytes) -> None:
        """Pad and seal."""
        await self.send_padded(frames.pad(plaintext))

    async def send_frame(self, kind: MessageType, payload: bytes = b"") -> None:
        await self.send_plaintext(Frame(kind, payload).encode())

    async def receive(self) -> bytes:
        """Give the next message as it came. Raises `PeerLeft`."""
        message = await self._channel.receive(lambda: self._opener)
        if message is None:
            raise PeerLeft
        return message

    async def receive_plaintext(self) -> bytes:
        """Give the next message opened, its padding taken off."""
        if self._opener is None:
            raise PeerLeft("no keys were agreed")
        return self._opener.open(await self.receive())

    async def receive_frame(self) -> Frame:
        return Frame.decode(await self.receive_plaintext())

    async def wait_until_left(self) -> None:
        """Say nothing more until the other side closes."""
        while True:
            await self.receive()
