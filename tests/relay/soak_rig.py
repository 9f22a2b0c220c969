"""Many short tunnels through a relay, each with its bytes cut at random and half of them with a side that is killed.

What each side will send is laid down before it starts: its request, up to eight messages, perhaps a close frame. Every
message carries its tunnel, its direction and its number, so that the other side knows what is lost, doubled, out of
order, changed or somebody else's. A killed side stops at a random byte of all this: with a reset, or with an end of its
stream.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import struct
from array import array
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from typing import cast

from benchmarks.relay.connection_tracking import let_others_end

from .probe_rig import BINARY, CLOSE, CONTINUATION, PING, PONG, request

MESSAGES = 8  # as many as a relay keeps for who is not there yet
_SIZES = (0, 1, 60, 125 - 20, 126 - 20, 300, 300, 300, 2000, 5000)
_PIECES = (1, 2, 3, 7, 20, 100)
_LOOK = 250  # transactions between two looks whether the kernel has room for more connections


class End(Enum):
    """How a tunnel ends."""

    DONE = "one side closes when it has everything"
    HASTY = "one side closes as soon as it has sent everything"
    RESET = "one side resets its connection, anywhere"
    EOF = "one side ends its stream, anywhere"


class Wrong(Exception):
    """The relay broke a promise."""


def xor_mask(payload: bytes, mask: bytes) -> bytes:
    pattern = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pattern, "big")).to_bytes(len(payload), "big")


def client_frame(opcode: int, payload: bytes, mask: bytes, *, fin: bool = True) -> bytes:
    size = len(payload)
    first = opcode | (0x80 if fin else 0)
    head = struct.pack("!BB", first, 0x80 | size) if size < 126 else struct.pack("!BBH", first, 0xFE, size)
    return head + mask + xor_mask(payload, mask)


def message(tunnel: str, side: int, number: int, size: int) -> bytes:
    """A message that says whose it is, and whose content follows from that."""
    label = b"%s/%d/%d/" % (tunnel.encode()[:12], side, number)
    return label + (blake2b(label).digest() * (size // 64 + 1))[:size]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one side sends, byte by byte, and what it may expect."""

    stream: bytes
    head: int  # where the messages begin in it
    messages: list[bytes]
    ends: list[int]  # of each message in `stream`
    hasty: bool  # a close frame is the end of `stream`
    stop: int | None  # where it is killed


def make_plan(dice: random.Random, path: str, tunnel: str, side: int, end: End, *, ends_it: bool) -> Plan:
    stream = bytearray(request(path))
    head, messages, ends = len(stream), [], []
    for number in range(dice.randrange(MESSAGES + 1)):
        content = message(tunnel, side, number, dice.choice(_SIZES))
        mask = dice.randbytes(4)
        if dice.random() < 0.1:
            cut = dice.randrange(len(content) + 1)
            stream += client_frame(BINARY, content[:cut], mask, fin=False) + client_frame(PING, b"", mask)
            stream += client_frame(CONTINUATION, content[cut:], mask)
        else:
            stream += client_frame(BINARY, content, mask)
        messages.append(content)
        ends.append(len(stream))
    hasty = ends_it and end is End.HASTY
    if hasty:
        stream += client_frame(CLOSE, b"\x03\xe8", b"\x01\x02\x03\x04")
    stop = dice.randrange(len(stream) + 1) if ends_it and end in (End.RESET, End.EOF) else None
    return Plan(bytes(stream), head, messages, ends, hasty, stop)


class Side(asyncio.Protocol):
    """One end of a tunnel."""

    def __init__(self, plan: Plan, dice: random.Random) -> None:
        self.plan = plan
        self.sent = 0
        self.answer: bytes | None = None  # head of the relay's answer
        self.received: list[bytes] = []
        self.close_code: int | None = None
        self.left_at: float | None = None  # when it closed or was killed
        self.told_at: float | None = None  # when it heard that the other side did
        self.wrong: str | None = None
        self.wanted: int | None = None  # messages
        self.answered, self.all_sent, self.complete, self.ended = (asyncio.Event() for _ in range(4))
        self._dice = dice
        self._chunked = dice.random() < 0.5
        self._buffer = bytearray()
        self._closing = False
        self.killed = False

    @property
    def let_in(self) -> bool:
        return self.answer is not None and self.answer.startswith(b"HTTP/1.1 101 ")

    # Sending

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._pump()

    def _pump(self) -> None:
        """The next piece; every piece goes out in a turn of the loop of its own."""
        if self.ended.is_set() or self.killed or self._closing:
            return
        limit = len(self.plan.stream) if self.plan.stop is None else self.plan.stop
        piece = self._dice.choice(_PIECES) if self._chunked and self._dice.random() < 0.9 else 4096
        upto = min(limit, self.sent + piece)
        if upto > self.sent:
            self._transport.write(self.plan.stream[self.sent : upto])
            self.sent = upto
        if self.sent < limit:
            asyncio.get_running_loop().call_soon(self._pump)
        else:
            self.all_sent.set()
            self._answer_close()

    def kill(self, end: End) -> None:
        """Go without a word."""
        if self.killed or self.ended.is_set():
            return
        self.killed = True
        self.left_at = asyncio.get_running_loop().time()
        if end is End.EOF and self._transport.can_write_eof():
            self._transport.write_eof()
            return
        connection = self._transport.get_extra_info("socket")
        if connection is not None and end is End.RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    async def close(self) -> None:
        """Send a close frame, if that is still to be said."""
        await self.answered.wait()
        await self.all_sent.wait()
        if self.let_in and self.close_code is None and not self.killed and not self._transport.is_closing():
            self._closing = True
            self.left_at = asyncio.get_running_loop().time()
            self._transport.write(client_frame(CLOSE, b"\x03\xe8", b"\x05\x06\x07\x08"))

    def abort(self) -> None:
        self._transport.abort()

    # Receiving

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self.answer is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self.answer = bytes(self._buffer[:end])
            del self._buffer[: end + 4]
            self.answered.set()
        if self.let_in:
            self._read_frames()

    def _read_frames(self) -> None:
        buffer, at = self._buffer, 0
        while len(buffer) - at >= 2:
            first, size, start = buffer[at], buffer[at + 1], at + 2
            if size == 126:
                if len(buffer) - at < 4:
                    break
                size, start = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
            if len(buffer) < start + size:
                break
            self._frame(first, bytes(buffer[start : start + size]))
            at = start + size
        del buffer[:at]

    def _frame(self, first: int, payload: bytes) -> None:
        if first == 0x80 | BINARY and self.close_code is None:
            self.received.append(payload)
            self.check_complete()
        elif first == 0x80 | CLOSE and self.close_code is None:
            self.close_code = int.from_bytes(payload[:2], "big")
            self.told_at = asyncio.get_running_loop().time()
            self._answer_close()
        elif first != 0x80 | PONG:
            self.wrong = f"an unexpected frame {first:#x} of {len(payload)} bytes"

    def _answer_close(self) -> None:
        """Answer a close frame, but not in the middle of a frame."""
        ready = self.all_sent.is_set() and self.close_code is not None
        if ready and not self._closing and not self.killed and not self.plan.hasty and not self.ended.is_set():
            self._closing = True
            self._transport.write(client_frame(CLOSE, b"\x03\xe8", b"\x09\x0a\x0b\x0c"))

    def expect(self, count: int) -> None:
        self.wanted = count
        self.check_complete()

    def check_complete(self) -> None:
        if self.wanted is not None and len(self.received) >= self.wanted:
            self.complete.set()

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        for waiting in (self.answered, self.all_sent, self.complete, self.ended):
            waiting.set()


@dataclass
class Soak:
    """A run against a relay at `port`, with everything counted."""

    port: int
    tls: ssl.SSLContext | None
    dice: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    delays: array[float] = field(default_factory=lambda: array("d"))  # s, until the other side knew

    async def run(self, transactions: int, at_once: int) -> None:
        """All transactions.

        Raises:
            Wrong: the relay lost, doubled, changed or mixed something.
        """
        numbers = iter(range(transactions))

        async def one_after_the_other() -> None:
            for number in numbers:
                if number % _LOOK == 0:
                    await let_others_end()
                await self._transaction()

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(one_after_the_other())

    async def _open(self, plan: Plan) -> Side:
        context, name = (self.tls, "localhost") if self.tls else (None, None)
        loop = asyncio.get_running_loop()
        source = (f"127.0.0.{self.dice.randrange(1, 17)}", 0)  # one address would run out of ports
        _, side = await loop.create_connection(
            lambda: Side(plan, self.dice), "127.0.0.1", self.port, ssl=context, server_hostname=name, local_addr=source
        )
        return side

    async def _transaction(self) -> None:
        dice = self.dice
        tunnel = dice.randbytes(16).hex()
        end = dice.choice([End.DONE, End.HASTY, End.RESET, End.EOF])
        killer = dice.randrange(2)
        plan = make_plan(dice, f"/cable/new/{tunnel}", tunnel, 0, end, ends_it=killer == 0)
        owner = await self._open(plan)
        sides = [owner]
        try:
            if plan.stop is not None and (plan.stop < plan.head or dice.random() < 0.3):
                await owner.all_sent.wait()
                owner.kill(end)
            await owner.answered.wait()
            routing_id = _routing_id(owner)
            if routing_id is not None:
                path = f"/cable/connect/{routing_id}/{tunnel}"
                plan = make_plan(dice, path, tunnel, 1, end, ends_it=killer == 1)
                sides.append(await self._open(plan))
                await self._meet(sides, end, killer)
            self._judge(sides, end, killer)
        finally:
            for side in sides:
                side.abort()
            for side in sides:
                await side.ended.wait()
        self.counts["transactions"] += 1
        self.counts[end.name.lower()] += 1

    async def _meet(self, sides: list[Side], end: End, killer: int) -> None:
        """Both are there, or one is about to be refused."""
        ending, other = sides[killer], sides[1 - killer]
        if end is End.DONE:
            for side, opposite in (sides, sides[::-1]):
                side.expect(len(opposite.plan.messages))
                await side.complete.wait()
            await ending.close()
        elif end in (End.RESET, End.EOF):
            await ending.all_sent.wait()
            ending.kill(end)
        await sides[1].answered.wait()
        if not sides[1].let_in:
            await sides[0].close()  # nobody will ever come
        await other.ended.wait()

    def _judge(self, sides: list[Side], end: End, killer: int) -> None:
        """Compare what arrived with what was sent."""
        for number, side in enumerate(sides):
            sent = sides[1 - number].plan.messages if len(sides) == 2 else []
            if side.wrong is not None:
                raise Wrong(side.wrong)
            if side.received != sent[: len(side.received)]:
                raise Wrong(_explain(side.received, sent))
            self.counts["messages"] += len(side.received)
        joined = len(sides) == 2 and all(side.let_in for side in sides)
        if not joined:
            self.counts["never joined"] += 1
            return
        ending, other = sides[killer], sides[1 - killer]
        must_arrive = 0
        if end in (End.DONE, End.HASTY):
            must_arrive = len(ending.plan.messages)
        elif end is End.EOF and self.tls is None:
            must_arrive = sum(at <= ending.sent for at in ending.plan.ends)
        if len(other.received) < must_arrive:
            raise Wrong(f"{end.name}: of {must_arrive} messages {len(other.received)} arrived")
        told = 1000 if end in (End.DONE, End.HASTY) else 1001
        if other.close_code != told:
            raise Wrong(f"{end.name}: the other side was told {other.close_code}, not {told}")
        self.counts["joined"] += 1
        if ending.left_at is not None and other.told_at is not None:
            self.delays.append(other.told_at - ending.left_at)


def _routing_id(owner: Side) -> str | None:
    for line in (owner.answer or b"").decode("ascii").split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "x-cable-routing-id":
            return value.strip()
    return None


def _explain(received: list[bytes], sent: list[bytes]) -> str:
    for number, (got, wanted) in enumerate(zip(received, sent, strict=False)):
        if got != wanted:
            kind = "out of order or lost" if got in sent else "changed or of another tunnel"
            return f"message {number} of {len(sent)} is {kind}: {got[:24]!r} instead of {wanted[:24]!r}"
    return f"{len(received)} messages, but {len(sent)} were sent"
