"""What one worker or node says to another when it passes a join on. Pure.

The request is written anew, with nothing of the client's but what a WebSocket needs: no header of hers can be taken for
one of ours. Behind it both directions are bytes as they come, and only frame boundaries are followed, because whoever
passes bytes on must know whether it can still say a last word when the owner dies.
"""

from __future__ import annotations

import ipaddress

from hybrid.protocol.tunnel import path_of
from tunnel_server.client_address import PROXY_SIGNATURE
from tunnel_server.foreign import ForeignJoin

HOPS_HEADER = b"x-tunnel-hops"
"""A request that has it was passed on already, and is not passed on again."""

_LENGTH = 4  # bytes

_KEPT = (
    (b"host", b"Host"),
    (b"origin", b"Origin"),
    (b"upgrade", b"Upgrade"),
    (b"connection", b"Connection"),
    (b"sec-websocket-version", b"Sec-WebSocket-Version"),
    (b"sec-websocket-key", b"Sec-WebSocket-Key"),
    (b"sec-websocket-protocol", b"Sec-WebSocket-Protocol"),
)


def request(join: ForeignJoin, *, proxy_protocol: bool) -> bytes:
    """Head for the owner, who is told the client's address as it expects it of its proxies."""
    lines = [b"GET " + path_of(join.connect).encode() + b" HTTP/1.1"]
    for name, written in _KEPT:
        lines += [written + b": " + value for value in join.headers.get(name, ())]
    lines.append(b"X-Tunnel-Hops: 1")
    if join.client is not None and not proxy_protocol:
        lines.append(b"X-Forwarded-For: " + join.client.encode())
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    return proxy_header(join.client) + head if proxy_protocol else head


def proxy_header(client: str | None) -> bytes:
    """PROXY header of version 2 for a client's address; None: we speak for ourselves."""
    if client is None:
        return PROXY_SIGNATURE + b"\x20\x00\x00\x00"
    source = ipaddress.ip_address(client.partition("%")[0])
    nowhere = type(source)(0)
    addresses = source.packed + nowhere.packed + bytes(4)  # nobody reads where to, nor the ports
    family = b"\x11" if source.version == 4 else b"\x21"
    return PROXY_SIGNATURE + b"\x21" + family + len(addresses).to_bytes(2, "big") + addresses


def piece(data: bytes) -> bytes:
    """A part of a join as a link carries it: a length of 4 bytes, and `data`. No data: nothing more comes from here."""
    return len(data).to_bytes(_LENGTH, "big") + data


class PieceReader:
    """Takes apart what a link carries, in chunks of any size. Keeps nothing but the beginning of a length."""

    __slots__ = ("_length", "_rest")

    def __init__(self) -> None:
        self._length = b""
        self._rest = 0  # bytes of a piece still to come

    def feed(self, data: bytes) -> list[bytes]:
        """What came of joins, in order, as soon as it is here; an empty part where one has ended."""
        end = len(data)
        if (
            end > _LENGTH
            and int.from_bytes(data[:_LENGTH], "big") == end - _LENGTH
            and not (self._rest or self._length)
        ):
            return [data[_LENGTH:]]  # one whole piece, as nearly always
        parts: list[bytes] = []
        at = 0
        while at < end:
            if not self._rest:
                step = _LENGTH - len(self._length)
                self._length += data[at : at + step]
                at += step
                if len(self._length) < _LENGTH:
                    break
                self._rest, self._length = int.from_bytes(self._length, "big"), b""
                if not self._rest:
                    parts.append(b"")
            else:
                part = data[at : at + self._rest]
                at += len(part)
                self._rest -= len(part)
                parts.append(part)
        return parts


class Answer:
    """Follows what an owner sends: the answer to the request, then frames of a server (RFC 6455 §5.2, unmasked)."""

    __slots__ = ("_closed", "_head", "_header", "_rest", "_status")

    def __init__(self) -> None:
        self._head: bytearray | None = bytearray()
        self._status = b""
        self._header = b""  # of a frame, not complete yet
        self._rest = 0  # bytes of payload still to come
        self._closed = False

    def feed(self, data: bytes) -> None:
        """Take what was passed on."""
        at = 0
        if self._head is not None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            at = end + 4 - (len(self._head) - len(data))
            self._status = bytes(self._head[9:12])
            self._head = None
        if self._status == b"101":
            self._follow(data, at)

    def _follow(self, data: bytes, at: int) -> None:
        end = len(data)
        if (
            end > 1
            and data[1] < 126
            and end == data[1] + 2
            and data[0] == 0x82
            and not (at or self._rest or self._header)
        ):
            return  # one whole short message, as nearly always
        while at < end and not self._closed:
            if self._rest:
                step = min(self._rest, end - at)
                self._rest -= step
                at += step
                continue
            self._header += data[at : at + 1]
            at += 1
            header = self._header
            if len(header) < 2:
                continue
            length = header[1]
            if length >= 126:
                if len(header) < (4 if length == 126 else 10):
                    continue
                length = int.from_bytes(header[2:], "big")
            self._closed = header[0] & 0x0F == 0x8
            self._header = b""
            self._rest = length

    @property
    def unanswered(self) -> bool:
        """Nothing came at all, so an answer can still be given."""
        return self._head is not None and not self._head

    @property
    def open(self) -> bool:
        """The tunnel is open and between two frames, so a frame can still be sent."""
        return self._status == b"101" and not (self._closed or self._rest or self._header)
