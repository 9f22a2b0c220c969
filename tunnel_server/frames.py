"""WebSocket frames as a server reads and writes them (RFC 6455 sections 5 and 7). Pure, and the first reader of bytes
from anybody; text and extensions are refused, because the hybrid transport uses neither.

Whatever a header alone can tell is refused at the header: reserved bits, opcodes, masks, text, lengths. What is read
becomes frames that are ready to be sent on, so a message is copied once to take the mask off and once more to put a
new header in front. `whole_message` and `whole_close` are short ways for the common cases, `FrameReader` the long one
for every case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

Unmask = Callable[[bytes | bytearray | memoryview, bytes], bytes]
"""Data (any length) and the mask (4 bytes) to the data without it."""

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FIN, _RESERVED, _OPCODE, _CONTROL = 0x80, 0x70, 0x0F, 0x08
_MASKED = 0x80
_SHORT, _MEDIUM, _LONG = 125, 126, 127  # section 5.2: lengths in the header, in 2 bytes, in 8 bytes
_MASK_SIZE = 4
_BINARY_FRAME = bytes([_FIN | _BINARY])
_SHORT_HEADERS = tuple(bytes([_FIN | _BINARY, size]) for size in range(_SHORT + 1))


class Code(IntEnum):
    """Why a tunnel ends: WebSocket close codes (section 7.4.1), given to both sides."""

    LEFT = 1000  # the peer left
    VANISHED = 1001  # the peer vanished, or the relay stops
    PROTOCOL = 1002  # unmasked, reserved bits or otherwise illegal
    TEXT = 1003  # only binary messages are forwarded
    UTF8 = 1007  # a close frame with a reason that is no text
    LIMIT = 1008  # a limit or the time
    SIZE = 1009  # a message is too long


_CLOSE_FRAMES = {code: bytes([_FIN | _CLOSE, 2]) + code.to_bytes(2, "big") for code in Code}


@dataclass(slots=True, repr=False)
class Message:
    """A binary message of `size` bytes, as the one unmasked frame that carries it on."""

    size: int
    frame: bytes

    def __repr__(self) -> str:
        return f"<Message of {self.size} bytes>"


@dataclass(slots=True)
class Ping:
    """A ping; `answer` is the frame to send back."""

    answer: bytes


@dataclass(slots=True)
class Closing:
    """The other side closes; `answer` is the frame to send back if we have not closed before. Nothing follows."""

    answer: bytes


@dataclass(slots=True)
class Violation:
    """The other side broke the rules. Nothing follows."""

    code: Code


Event = Message | Ping | Closing | Violation


class _Broken(Exception):
    def __init__(self, code: Code) -> None:
        self.code = code


def xor(data: bytes | bytearray | memoryview, mask: bytes) -> bytes:
    """Take a mask of 4 bytes off, or put it on (section 5.3), without a library."""
    size = len(data)
    stream = (mask * (size // _MASK_SIZE + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(stream, "little")).to_bytes(size, "little")


def header(size: int) -> bytes:
    """Header of an unmasked frame with a whole binary message of `size` bytes."""
    if size <= _SHORT:
        return _SHORT_HEADERS[size]
    if size < 1 << 16:
        return _BINARY_FRAME + bytes([_MEDIUM]) + size.to_bytes(2, "big")
    return _BINARY_FRAME + bytes([_LONG]) + size.to_bytes(8, "big")


def close_frame(code: Code) -> bytes:
    """An unmasked close frame without a reason."""
    return _CLOSE_FRAMES[code]


def whole_message(data: bytes, limit: int, unmask: Unmask = xor) -> tuple[int, bytes] | None:
    """Size and outgoing frame, if `data` is exactly one frame with a whole binary message of at most `limit` bytes.

    None for everything else, right or wrong: `FrameReader` decides about it.
    """
    have = len(data)
    if have < 6 or data[0] != 0x82:
        return None
    size = data[1] - _MASKED
    if size < _MEDIUM:  # negative without a mask, and so never as long as `data`
        if have != size + 6 or size > limit:
            return None
        return size, _SHORT_HEADERS[size] + unmask(data[6:], data[2:6])
    if size == _MEDIUM:
        size = have - 8
        if size <= _SHORT or size > limit or (data[2] << 8 | data[3]) != size:
            return None
        return size, b"\x82\x7e" + data[2:4] + unmask(data[8:], data[4:8])
    size = have - 14
    if size < 1 << 16 or size > limit or int.from_bytes(data[2:10], "big") != size:
        return None
    return size, b"\x82\x7f" + data[2:10] + unmask(memoryview(data)[14:], data[10:14])


def whole_close(data: bytes, unmask: Unmask = xor) -> bytes | None:
    """The frame that answers, if `data` is exactly one legal close frame; None for everything else."""
    have = len(data)
    if have < 6 or data[0] != _FIN | _CLOSE or data[1] != _MASKED + have - 6 or have > _SHORT + 6:
        return None
    payload = unmask(data[6:], data[2:6])
    try:
        _check_close(payload)
    except _Broken:
        return None
    return bytes([_FIN | _CLOSE, len(payload)]) + payload


class FrameReader:
    """Client frames of one connection, in pieces of any size.

    `limit` bytes are allowed in a message, whether in one frame or in fragments, which are put together. Never holds
    more than one unfinished message, one unfinished control frame and what `feed` was given last.
    """

    __slots__ = ("_at", "_buffer", "_finished", "_limit", "_message", "_unmask", "announced", "frames")

    def __init__(self, limit: int, unmask: Unmask = xor) -> None:
        self._limit = limit
        self._unmask = unmask
        self._buffer: bytes | bytearray = b""
        self._at = 0  # where the next frame begins in the buffer
        self._message: bytearray | None = None  # fragments so far
        self._finished = False
        self.announced = 0  # bytes of the unfinished message, as far as headers have told
        self.frames = 0  # that the last `feed` read

    @property
    def empty(self) -> bool:
        """Between two messages: a new reader would do as well."""
        return not self._buffer and self._message is None and not self._finished

    @property
    def held(self) -> int:
        """Bytes kept until more comes."""
        return len(self._buffer) + (len(self._message) if self._message is not None else 0)

    def feed(self, data: bytes) -> list[Event]:
        """What `data` completes, in order. After a `Closing` or a `Violation` everything is ignored."""
        events: list[Event] = []
        self.frames = 0
        if self._finished:
            return events
        if self._buffer:
            self._buffer += data
        else:
            self._buffer = data
        try:
            while self._read_frame(events):
                self.frames += 1
        except _Broken as broken:
            events.append(Violation(broken.code))
            self._finished = True
        if self._finished:
            self._buffer, self._message = b"", None
        elif self._at or self._buffer is data:
            self._buffer = bytearray(self._buffer[self._at :])
        self._at = 0
        return events

    def _read_frame(self, events: list[Event]) -> bool:
        """Read one frame; False if it is not complete, or was the last."""
        buffer, at = self._buffer, self._at
        have = len(buffer) - at
        if have < 2:
            return False
        first, length = buffer[at], buffer[at + 1] ^ _MASKED
        self._check_header(first, length)
        start = at + 2
        if length > _SHORT:
            start += 2 if length == _MEDIUM else 8
            if len(buffer) < start:
                return False
            length = self._long_length(int.from_bytes(buffer[at + 2 : start], "big"), length)
        if not first & _CONTROL:
            self._announce(length)
        end = start + _MASK_SIZE + length
        if len(buffer) < end:
            return False
        mask = bytes(buffer[start : start + _MASK_SIZE])
        with memoryview(buffer) as view, view[start + _MASK_SIZE : end] as masked:
            payload = self._unmask(masked, mask)
        self._at = end
        self._take(first, payload, events)
        return not self._finished

    def _check_header(self, first: int, length: int) -> None:
        """The first two bytes; `length` is the second with its mask bit turned over."""
        opcode = first & _OPCODE
        if length & _MASKED or first & _RESERVED:
            raise _Broken(Code.PROTOCOL)  # section 5.1: a client masks; section 5.2: no extension gave the bits a sense
        if opcode == _TEXT:
            raise _Broken(Code.TEXT)
        if opcode & _CONTROL:
            # Section 5.5: control frames are short and in one piece.
            good = opcode <= _PONG and first & _FIN and length <= _SHORT
        else:
            # Section 5.4: fragments of two messages are never mixed.
            good = opcode == (_BINARY if self._message is None else _CONTINUATION)
        if not good:
            raise _Broken(Code.PROTOCOL)

    @staticmethod
    def _long_length(length: int, form: int) -> int:
        """Section 5.2: the shortest form, and the highest bit is zero; what is too long is told by its length."""
        if length < (_MEDIUM if form == _MEDIUM else 1 << 16):
            raise _Broken(Code.PROTOCOL)
        return length

    def _announce(self, length: int) -> None:
        self.announced = length + (len(self._message) if self._message is not None else 0)
        if self.announced > self._limit:
            raise _Broken(Code.SIZE)

    def _take(self, first: int, payload: bytes, events: list[Event]) -> None:
        opcode = first & _OPCODE
        if opcode == _PING:
            events.append(Ping(bytes([_FIN | _PONG, len(payload)]) + payload))
        elif opcode == _CLOSE:
            _check_close(payload)
            events.append(Closing(bytes([_FIN | _CLOSE, len(payload)]) + payload))
            self._finished = True
        elif opcode != _PONG:
            self._take_data(bool(first & _FIN), payload, events)

    def _take_data(self, fin: bool, payload: bytes, events: list[Event]) -> None:
        if self._message is not None:
            self._message += payload
        elif not fin:
            self._message = bytearray(payload)
        if fin:
            if self._message is not None:
                payload, self._message = bytes(self._message), None
            self.announced = 0
            events.append(Message(len(payload), header(len(payload)) + payload))


def _check_close(payload: bytes) -> None:
    """Section 5.5.1: nothing, or a code and a reason; section 7.4: which codes may be sent."""
    if not payload:
        return
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in _SENDABLE or 3000 <= code < 5000):
        raise _Broken(Code.PROTOCOL)
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise _Broken(Code.UTF8) from None


# IANA's registry of close codes, without those that are never sent (1004 to 1006, 1015).
_SENDABLE = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
