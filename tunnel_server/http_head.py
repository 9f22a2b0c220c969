"""One HTTP request head: what a client that wants a tunnel sends first (RFC 9112, RFC 6455 section 4.2.1). Pure.

Strict where two readers could see two requests: one line ending, no folded lines, no space around a name, one ``Host``,
no body. A relay answers one request per connection, and one that is refused ends it, so nothing is ever read twice.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha1
from http import HTTPStatus

from hybrid.errors import RemoteProtocolError
from hybrid.protocol.tunnel import ROUTING_ID_HEADER, SUBPROTOCOL, Target, parse_path

MAX_HEAD_SIZE = 8 * 1024

Fields = list[tuple[bytes, bytes]]
"""Header lines in order: names as they came, values without spaces before them."""

Headers = dict[bytes, list[bytes]]
"""Names in lower case, and their values in order without the spaces around them."""

# RFC 9112 sections 3 and 5. Nothing is tried in two ways (`+` after a quantifier), so time grows with the length only.
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_FIRST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]++) HTTP/1\.([01])\r\n")
_FIELD = re.compile(rb"^(" + _TOKEN + rb"):[\t ]*+([\t\x20-\x7e\x80-\xff]*+)\r\n", re.MULTILINE)
_ABSOLUTE = re.compile(rb"(?:http|ws)s?://[^/?#]++(/.*)", re.IGNORECASE)
_HOST = re.compile(rb"[^ \t,]*")  # may be empty; who it names is not our business
_TUNNEL_PATH = re.compile(r"/cable/(new|connect|contact)([/?].*)?")
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # section 4.1: 16 bytes
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_SUBPROTOCOL = SUBPROTOCOL.encode()
_ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: "
    + _SUBPROTOCOL
    + b"\r\nSec-WebSocket-Accept: "
)
_ROUTING_ID = b"\r\n" + ROUTING_ID_HEADER.encode() + b": "
_UPGRADE_NEEDED = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))


@dataclass(frozen=True, slots=True)
class Refusal:
    """The request is wrong by itself: an HTTP `status` and headers that belong to it."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True, repr=False)
class Request:
    """A good request. `key` is its ``Sec-WebSocket-Key``, `fields` are its header lines in order."""

    target: Target
    key: bytes
    fields: Fields

    @property
    def headers(self) -> Headers:
        """The header lines by name."""
        headers: Headers = {}
        for name, value in self.fields:
            headers.setdefault(name.lower(), []).append(value.rstrip(b" \t"))
        return headers

    def __repr__(self) -> str:
        return f"<Request for {type(self.target).__name__}>"


def find_end(data: bytes | bytearray, start: int = 0) -> int | None:
    """Length of the head at the beginning of `data`; 0 if it is not complete; None if it is too long.

    `start`: how many bytes were looked at before.
    """
    end = data.find(b"\r\n\r\n", max(0, start - 3), MAX_HEAD_SIZE) + 4
    if end >= 4:
        return end
    return None if len(data) >= MAX_HEAD_SIZE else 0


def read_head(head: bytes, origins: Collection[bytes] = ()) -> Request | Refusal:
    """Check a whole head, from its first line to the empty one. `origins`: if any, the only welcome ones."""
    match = _FIRST_LINE.match(head)
    if match is None or not head.endswith(b"\r\n\r\n"):
        return Refusal(400)
    method, path, minor = match.groups()
    lines = head[match.end() : -2]
    fields = _FIELD.findall(lines)
    if len(fields) != lines.count(b"\n"):
        return Refusal(400)  # some line is no field
    if method != b"GET":
        return Refusal(405, (("Allow", "GET"),))
    if not path.startswith(b"/"):  # RFC 9112 section 3.2.2: a server takes this form too, whatever authority it names
        absolute = _ABSOLUTE.fullmatch(path)
        path = path if absolute is None else absolute[1]
    text = path.decode("ascii")
    try:
        target = parse_path(text)
    except RemoteProtocolError:
        return Refusal(400 if _TUNNEL_PATH.fullmatch(text) else 404)
    if minor != b"1":
        return Refusal(400)  # section 4.1: at least HTTP/1.1
    return _check_headers(target, fields, origins)


def _joined(fields: Fields) -> dict[bytes, bytes]:
    """Values by lower-case name, where lines of one name are one list (RFC 9110 section 5.3).

    What must be there once is then no good value any more.
    """
    headers: dict[bytes, bytes] = {}
    for field, line in fields:
        name, value = field.lower(), line.rstrip(b" \t")
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def members(lines: Iterable[bytes]) -> list[bytes]:
    """All members of a header that is a list (RFC 9110 section 5.6.1), in order, from all its values."""
    return [member for line in lines for part in line.split(b",") if (member := part.strip(b" \t"))]


def _check_headers(target: Target, fields: Fields, origins: Collection[bytes]) -> Request | Refusal:
    headers = {name.lower(): value.rstrip(b" \t") for name, value in fields}
    if len(headers) != len(fields):
        headers = _joined(fields)
    get = headers.get
    # RFC 9112 sections 3.2 and 6: one host; a body would be read as frames.
    if (
        not _HOST.fullmatch(get(b"host", b" "))
        or b"transfer-encoding" in headers
        or get(b"content-length", b"0") != b"0"
    ):
        return Refusal(400)
    # Clients that are no browsers may leave Origin out (libwebauthn, microG), so only a wrong one counts.
    if origins and b"origin" in headers and headers[b"origin"].lower() not in origins:
        return Refusal(403)
    if (
        not _has_token(get(b"upgrade", b""), b"websocket")
        or not _has_token(get(b"connection", b""), b"upgrade")
        or get(b"sec-websocket-version") != b"13"
    ):
        return Refusal(426, _UPGRADE_NEEDED)
    key = get(b"sec-websocket-key", b"")
    if not _KEY.fullmatch(key):
        return Refusal(400)
    # Section 4.2.2: one of a list; names of subprotocols are compared as they are.
    offered = get(b"sec-websocket-protocol", b"")
    if offered != _SUBPROTOCOL and _SUBPROTOCOL not in members([offered]):
        return Refusal(400)
    return Request(target, key, fields)


def _has_token(value: bytes, token: bytes) -> bool:
    """Tokens of any case; a browser's one line with one token is the common case."""
    value = value.lower()
    return value == token or token in members([value])


def accept(key: bytes, routing_id: bytes | None) -> bytes:
    """The answer 101 to a request with `key` (section 4.2.2); `routing_id` goes to who created a tunnel.

    No extension is ever selected: compression costs memory and shows an observer how well a message compresses.
    """
    digest = b2a_base64(sha1(key + _GUID, usedforsecurity=False).digest(), newline=False)
    if routing_id is None:
        return _ACCEPTED + digest + b"\r\n\r\n"
    return _ACCEPTED + digest + _ROUTING_ID + routing_id.hex().upper().encode() + b"\r\n\r\n"


@lru_cache
def refuse(status: int, headers: tuple[tuple[str, str], ...] = ()) -> bytes:
    """A whole answer that ends the connection, with one line of plain text."""
    reason = f"{status} {HTTPStatus(status).phrase}"
    body = "" if status == 405 else reason + "\n"  # the answer to HEAD has none (RFC 9110 section 9.3.2)
    lines = [
        f"HTTP/1.1 {reason}",
        *(f"{name}: {value}" for name, value in headers),
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("ascii")
