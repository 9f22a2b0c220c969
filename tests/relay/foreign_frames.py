"""What `websockets` makes of client frames, in the words of `tunnel_server.frames`, to compare the two."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from tunnel_server.frames import (
    Closing,
    Code,
    FrameReader,
    Message,
    Ping,
    Violation,
    header,
    whole_close,
    whole_message,
)

_silent = logging.getLogger(f"{__name__}.silent")
_silent.disabled = True


@dataclass
class Reading:
    """Messages, pongs and the end of one stream. `end`: a close code, 1005 for an empty close frame, None if open."""

    messages: list[bytes] = field(default_factory=list)
    pings: list[bytes] = field(default_factory=list)
    end: int | None = None
    why: str = field(default="", compare=False)


def ours(pieces: Iterable[bytes], limit: int) -> Reading:
    reading, reader = Reading(), FrameReader(limit)
    for piece in pieces:
        short = whole_message(piece, limit) if reader.empty else None
        answer = whole_close(piece) if reader.empty else None
        events = reader.feed(piece)
        if short is not None:
            assert events == [Message(*short)], "the short way says what the long one says"
        if answer is not None:
            assert events == [Closing(answer)]
        for event in events:
            assert reading.end is None, "nothing follows the end"
            match event:
                case Message(size, frame):
                    head = header(size)
                    assert frame[: len(head)] == head
                    assert len(frame) == len(head) + size
                    reading.messages.append(frame[len(head) :])
                case Ping(answer):
                    assert answer[:2] == bytes([0x8A, len(answer) - 2])
                    reading.pings.append(answer[2:])
                case Closing(answer):
                    assert answer[:2] == bytes([0x88, len(answer) - 2])
                    reading.end = int.from_bytes(answer[2:4], "big") or 1005
                case Violation(code):
                    reading.end = code
        assert reader.held <= limit + 14 + 125
    return reading


def theirs(pieces: Iterable[bytes], limit: int) -> Reading:
    reading, message = Reading(), bytearray()
    server = ServerProtocol(state=State.OPEN, max_size=limit, logger=_silent)
    for piece in pieces:
        if server.state is not State.OPEN:
            break
        server.receive_data(piece)
        for event in server.events_received():
            assert isinstance(event, Frame)
            if event.opcode in (Opcode.BINARY, Opcode.CONT):
                message += event.data
                if event.fin:
                    reading.messages.append(bytes(message))
                    message.clear()
            elif event.opcode is Opcode.PING:
                reading.pings.append(bytes(event.data))
            elif event.opcode is Opcode.TEXT:
                reading.end = Code.TEXT
                return reading
    if server.close_sent is not None:
        reading.end, reading.why = server.close_sent.code, str(server.parser_exc)
    return reading


def check_agreement(data: bytes, pieces: Iterable[bytes], limit: int) -> None:
    """Read `data` cut into `pieces`, at once, and as `websockets` does, and compare."""
    mine = ours([data], limit)
    assert mine == ours(pieces, limit), "however it is cut"
    other = theirs([data], limit)
    if mine == other:
        return
    assert other.messages[: len(mine.messages)] == mine.messages
    if other.why == "incomplete fragmented message":
        return  # a close frame between fragments: legal to us (RFC 6455 section 5.4), refused by `websockets`
    # We refuse at the header what `websockets` refuses, or delivers, when it is complete. Of two faults in one close
    # frame it tells the other, and it takes a length in a longer form than it needs.
    assert mine.end in (Code.TEXT, Code.PROTOCOL)
    faults = (None, Code.TEXT, Code.PROTOCOL, Code.UTF8, Code.SIZE)
    assert other.end in faults or b"\xfe\x00" in data or b"\xff\x00\x00" in data
