"""What is fuzzed of the relay: whatever it reads from anybody, and its decisions on any sequence of facts.

There is no error to document here: bytes become a request or a refusal, frames or a close code. The frame reader is
also compared with the one of `websockets`, however the bytes are cut.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from hybrid.protocol.tunnel import Connect, Contact, New, Target
from tests.relay.foreign_frames import check_agreement
from tunnel_server.client_address import BadForwardedFor, BadProxyHeader, read_forwarded_for, read_proxy_header
from tunnel_server.frames import Code, xor
from tunnel_server.http_head import MAX_HEAD_SIZE, Request, accept, find_end, members, read_head
from tunnel_server.relay import Action, Close, Drop, Forward, Limits, Open, Refuse, Relay

_LIMIT = 300
_PROXY = bytes.fromhex("0d0a0d0a000d0a515549540a")
_GOOD_HEAD = (
    b"GET /cable/new/000102030405060708090A0B0C0D0E0F HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: fido.cable\r\n"
)


def head(data: bytes) -> None:
    """A whole head, lines in a good head, and where a head ends when it comes in pieces."""
    for whole in (data, _GOOD_HEAD + data + b"\r\n", data + _GOOD_HEAD + b"\r\n"):
        result = read_head(whole, {b"https://example.com"})
        if isinstance(result, Request):
            assert whole.count(b"\n") == len(result.fields) + 2, "who reads by lines sees the same lines"
            assert len(result.headers[b"host"]) == 1
            assert b"transfer-encoding" not in result.headers
            with suppress(BadForwardedFor):
                read_forwarded_for(members(result.headers.get(b"x-forwarded-for", ())), ())
            accept(result.key, None)
        else:
            assert result.status in {400, 403, 404, 405, 426}
    end = find_end(data)
    for size in range(0, min(len(data), MAX_HEAD_SIZE), 7):
        early = find_end(data[:size])
        assert early in (0, end)
        assert find_end(data, size if early == 0 else 0) == end


def frames(data: bytes) -> None:
    """Any bytes as frames; then the same bytes as a plan for frames that are mostly good."""
    step = data[0] % 61 + 1 if data else 1
    check_agreement(data, [data[at : at + step] for at in range(0, len(data), step)], _LIMIT)
    planned, left = bytearray(), data
    while left:
        first, size, left = left[0], left[1] if len(left) > 1 else 0, left[2:]
        payload, left = left[:size], left[size:]
        length = len(payload)
        planned.append((first & 0x8F) if first & 0x40 else 0x82)
        planned += bytes([0x80 | length]) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
        mask = bytes([first, size, 0, 0xFF])
        planned += mask + xor(payload, mask)
    whole = bytes(planned)
    check_agreement(whole, [whole[at : at + step] for at in range(0, len(whole), step)], _LIMIT)


def proxy(data: bytes) -> None:
    """A header of the PROXY protocol, with a good beginning and without."""
    for whole in (data, _PROXY + data, _PROXY + b"\x21\x11\x00\x0c" + data):
        with suppress(BadProxyHeader):
            found = read_proxy_header(whole)
            assert found is None or 16 <= found[0] <= len(whole)
    with suppress(BadForwardedFor):
        read_forwarded_for(members([data]), ())


_LIMITS = Limits(
    message=200, messages=5, total=400, frames=300, early_messages=2, early_bytes=200, pending=5, idle=4, lifetime=12,
    head=3, linger=2, stall=3, connections=6, tunnels=2, buffered=300, per_address=2, new_per_minute=4, addresses=2,
)  # fmt: skip
_IDS = (bytes(16), bytes(15) + b"\x01")
_ASKED: tuple[Target, ...] = (*map(New, _IDS), *(Connect(b"abc", name) for name in _IDS), Connect(bytes(3), _IDS[0]))


def core(data: bytes) -> None:
    """Facts about a few connections in any order, two bytes each; every connection is told a possible story."""
    relay, now, arrived = Relay(b"abc", _LIMITS), 0.0, 0
    told: dict[int, list[type[Action]]] = {}

    def note(actions: list[Action]) -> None:
        for action in actions:
            told[action.connection].append(type(action))

    for fact, argument in zip(data[::2], data[1::2], strict=False):
        if fact % _FACTS == 0:
            arrived += 1
            told[arrived] = []
        now += argument / 64
        note(_facts(relay, arrived, argument, now)[fact % _FACTS]())
        assert relay.pending + relay.joined == relay.tunnels <= _LIMITS.tunnels
        assert relay.alarm <= (relay.next_deadline() or relay.alarm)
    for story in told.values():
        _check_story(story)
    for number in told:
        relay.gone(number, now)
    assert (relay.connections, relay.tunnels, relay.buffered, relay.next_deadline()) == (0, 0, 0, None)


_FACTS = 14


def _facts(relay: Relay, arrived: int, argument: int, now: float) -> tuple[Callable[[], list[Action]], ...]:
    """What may happen next: to the connection that came last, or to one of the three before."""
    number = arrived - argument % 4
    target = (*_ASKED, Contact(b"c"))[argument // 4 % 6]
    return (
        partial(relay.arrived, arrived, (None, "a", "b")[argument % 3], now),
        partial(relay.asked, number, target, now),
        partial(relay.asked, arrived, target, now),
        partial(relay.message, number, argument, bytes(argument), now),
        partial(relay.unfinished, number, argument, argument // 2, now),
        partial(relay.read, number, argument, now),
        partial(relay.stalled, number, argument, now),
        partial(relay.unstalled, number, now),
        partial(relay.identified, number, "ab"[argument % 2], now),
        partial(relay.handed_over, number, now),
        partial(relay.turned_away, number, now),
        partial(relay.left, number, now),
        partial(relay.broke_rules, number, Code.TEXT, now),
        partial(relay.gone, number, now),
        partial(relay.tick, now),
    )


def _check_story(story: list[type[Action]]) -> None:
    """One answer at most; messages between 101 and a close; a close once."""
    assert story.count(Open) + story.count(Refuse) <= 1
    assert story.count(Close) <= 1
    if Forward in story or Close in story:
        assert story[0] is Open
    if Close in story:
        assert Forward not in story[story.index(Close) :]
    if Refuse in story:
        assert set(story[story.index(Refuse) + 1 :]) <= {Drop}


TARGETS: dict[str, Callable[[bytes], None]] = {
    "relay-core": core,
    "relay-frames": frames,
    "relay-head": head,
    "relay-proxy": proxy,
}

_SEEDS = {
    "relay-core": [
        bytes([0, 1, 1, 0, 0, 2, 1, 8, 3, 9, 3, 8, 10, 0, 12, 0]),
        bytes([0, 0, 1, 0, 3, 50, 3, 50, 0, 0, 1, 8, 5, 0, 13, 255]),
        bytes([0, 0, 1, 0, 4, 80, 4, 90, 12, 0]),
        bytes([0, 0, 7, 1, 8, 0, 13, 255, 13, 255, 13, 255, 13, 255]),
        bytes([0, 0, 9, 0, 0, 0, 11, 0, 6, 0]),
        bytes([0, 1] * 10),
    ],
    "relay-frames": [
        bytes.fromhex("828537fa213d7f9f4d5158"),
        bytes.fromhex("898537fa213d7f9f4d5158"),
        bytes.fromhex("028100000000618081000000006280800000000082810000000063"),
        bytes.fromhex("88820000000003e8"),
        bytes.fromhex("82fe0100") + bytes(260),
        bytes.fromhex("c003616263c10480010203c88203e8"),
        bytes.fromhex("8180000000008280"),
    ],
    "relay-head": [
        _GOOD_HEAD + b"\r\n",
        _GOOD_HEAD.replace(b"new/", b"connect/0A0B0C/") + b"Origin: https://example.com\r\n\r\n",
        b"X-Forwarded-For: 192.0.2.1, ::1\r\n",
        b"Host: a\r\n",
        b" folded\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        b"POST / HTTP/1.0\r\n\r\n",
    ],
    "relay-proxy": [
        _PROXY + bytes.fromhex("2111000cc0000201cb007105d43101bb"),
        bytes.fromhex("2111000cc0000201cb007105d43101bb"),
        bytes.fromhex("21210024") + bytes(36),
        bytes.fromhex("20000000"),
        b"PROXY TCP4 192.0.2.1 203.0.113.5 54321 443\r\n",
        b"192.0.2.1, 2001:db8::1, unknown",
    ],
}


def seeds(name: str) -> list[bytes]:
    """Examples of the standards, and short stories."""
    return _SEEDS[name]
