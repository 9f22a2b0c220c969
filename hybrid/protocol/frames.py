"""Encrypted messages after the handshake: padding, sealing, message types, and ends of messages on a byte stream.

CTAP 2.3 §11.5.1, "data transfer" and "data transfer channel". One ciphertext is one message of the channel; where the
channel is a stream of bytes (L2CAP), a message ends with CR LF, and only the cipher can tell such an end from chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hybrid.errors import LocalProtocolError, RemoteProtocolError
from hybrid.protocol.keys import GCM_NONCE_SIZE, GCM_TAG_SIZE, HANDSHAKE_MESSAGE_SIZE, MAX_MESSAGE_SIZE

MAX_COUNTER = (1 << 24) - 1  # Chromium refuses higher numbers
PADDING_GRANULARITY = 32
STREAM_END = b"\r\n"
MAX_CHANCE_ENDS = 64  # a random message of 1 MiB holds 16 on average; more is somebody wasting our time


class MessageType(IntEnum):
    """First byte of every plaintext after the post-handshake message."""

    SHUTDOWN = 0
    CTAP = 1
    UPDATE = 2
    JSON = 3


@dataclass(frozen=True, slots=True, repr=False)
class Frame:
    """A message type and its payload. The payload stays out of `repr`: it may hold credentials."""

    type: MessageType
    payload: bytes

    def __repr__(self) -> str:
        return f"<Frame {self.type.name} {len(self.payload)} bytes>"

    def encode(self) -> bytes:
        """Type byte, then payload."""
        return bytes([self.type]) + self.payload

    @classmethod
    def decode(cls, plaintext: bytes) -> Frame:
        """Read a plaintext. Raises `RemoteProtocolError` for an empty one or an unknown type."""
        if not plaintext:
            raise RemoteProtocolError("a message is empty")
        try:
            return cls(MessageType(plaintext[0]), plaintext[1:])
        except ValueError:
            raise RemoteProtocolError(f"a message has the unknown type {plaintext[0]}") from None


def pad(message: bytes) -> bytes:
    """Zero bytes and a count of them, up to the next multiple of 32; at least the count byte is added."""
    zeros = -(len(message) + 1) % PADDING_GRANULARITY
    return message + bytes(zeros) + bytes([zeros])


def unpad(padded: bytes) -> bytes:
    """Take the padding off.

    Tolerant where peers differ: the count may reach 255, the length need not be a multiple of 32 and the padding
    need not be zero (one client pads before it adds the type byte).

    Raises:
        RemoteProtocolError: nothing there, or a count beyond the length.
    """
    if not padded:
        raise RemoteProtocolError("a message has no padding")
    size = len(padded) - 1 - padded[-1]
    if size < 0:
        raise RemoteProtocolError("a message is shorter than its padding")
    return padded[:size]


def nonce(counter: int) -> bytes:
    """Transport nonce: 8 zero bytes, then the counter as 32 bits big-endian."""
    return counter.to_bytes(GCM_NONCE_SIZE, "big")


class Sealer:
    """Our direction: seals messages with a 32-byte key and a counter from 0."""

    def __init__(self, key: bytes, counter: int = 0) -> None:
        self._aead = AESGCM(key)
        self._counter = counter

    def __repr__(self) -> str:
        return f"<Sealer counter {self._counter}>"

    def seal(self, message: bytes) -> bytes:
        """Pad and encrypt. Raises `LocalProtocolError` when the counter or the size limit is reached."""
        if self._counter > MAX_COUNTER:
            raise LocalProtocolError("this session has sent its last message")
        padded = pad(message)
        if len(padded) + GCM_TAG_SIZE > MAX_MESSAGE_SIZE:
            raise LocalProtocolError(f"a message of {len(message)} bytes is too large for the channel")
        ciphertext = self._aead.encrypt(nonce(self._counter), padded, b"")
        self._counter += 1
        return ciphertext


class Opener:
    """The peer's direction: opens messages with a 32-byte key and a counter from 0."""

    def __init__(self, key: bytes, counter: int = 0) -> None:
        self._aead = AESGCM(key)
        self._counter = counter

    def __repr__(self) -> str:
        return f"<Opener counter {self._counter}>"

    def open(self, ciphertext: bytes) -> bytes:
        """Decrypt and take the padding off.

        Raises:
            RemoteProtocolError: too long, wrong key, skipped or repeated counter, tampered, or bad padding. Fatal.
        """
        if len(ciphertext) > MAX_MESSAGE_SIZE:
            raise RemoteProtocolError("a message is longer than 1 MiB")
        if self._counter > MAX_COUNTER:
            raise RemoteProtocolError("the peer sent more messages than a session may hold")
        padded = self._decrypt(ciphertext)
        if padded is None:
            raise RemoteProtocolError("a message does not authenticate")
        self._counter += 1
        return unpad(padded)

    def is_next(self, ciphertext: bytes) -> bool:
        """Whether these bytes are exactly the next message: the only way to know where one ends in a stream."""
        return self._decrypt(ciphertext) is not None

    def _decrypt(self, ciphertext: bytes) -> bytes | None:
        try:
            return self._aead.decrypt(nonce(self._counter), ciphertext, b"")
        except (InvalidTag, ValueError):  # ValueError: shorter than a tag
            return None


class StreamReader:
    """Cuts the bytes of an unbounded channel into messages.

    Handshake messages are 81 bytes and CR LF. Afterwards every CR LF is a candidate end: ciphertext is arbitrary, so
    one can occur inside a message, and only decryption with the current counter decides.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._chance_ends = 0

    def __repr__(self) -> str:
        return f"<StreamReader {len(self._buffer)} bytes>"

    def feed(self, data: bytes) -> None:
        """Take any run of bytes. Call `next_message` until it gives None before the next feed: that is the bound."""
        self._buffer += data

    def next_message(self, opener: Opener | None) -> bytes | None:
        """Give the next message without its end, or None until more bytes come.

        `opener`: the receive cipher, None while the handshake lasts.

        Raises:
            RemoteProtocolError: a handshake message that does not end after 81 bytes, no end within 1 MiB, or more
                ends than chance explains.
        """
        if opener is None:
            return self._next_handshake_message()
        while (end := self._buffer.find(STREAM_END, self._scanned)) >= 0:
            candidate = bytes(self._buffer[:end])
            if opener.is_next(candidate):
                return self._take(end)
            self._scanned = end + 1
            self._chance_ends += 1
            if self._chance_ends > MAX_CHANCE_ENDS:
                raise RemoteProtocolError("a message does not authenticate at any of its ends")
        if len(self._buffer) > MAX_MESSAGE_SIZE + len(STREAM_END):
            raise RemoteProtocolError("no end of message within 1 MiB")
        self._scanned = max(self._scanned, len(self._buffer) - 1, 0)
        return None

    def _next_handshake_message(self) -> bytes | None:
        end = HANDSHAKE_MESSAGE_SIZE
        if len(self._buffer) < end + len(STREAM_END):
            return None
        if self._buffer[end : end + len(STREAM_END)] != STREAM_END:
            raise RemoteProtocolError("a handshake message does not end after 81 bytes")
        return self._take(end)

    def _take(self, end: int) -> bytes:
        message = bytes(self._buffer[:end])
        del self._buffer[: end + len(STREAM_END)]
        self._scanned = self._chance_ends = 0
        return message


def split_stream(stream: bytes) -> tuple[list[bytes], bytes]:
    """Cut a stream at every CR LF: the candidate messages and what is left after the last end."""
    *messages, rest = stream.split(STREAM_END)
    return messages, rest
