"""Tunnel service: domains, URLs, paths and headers (CTAP 2.3 §11.5.1, "tunnel service"). Grammar only, no sockets.

Client, phone and relay all use this one grammar. We write hex in upper case and read any case, because both are in
use among real peers.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from hybrid.errors import LocalProtocolError, RemoteProtocolError
from hybrid.protocol.keys import SECRET_SIZE

SUBPROTOCOL = "fido.cable"
ROUTING_ID_HEADER = "X-caBLE-Routing-ID"
CLIENT_PAYLOAD_HEADER = "X-caBLE-Client-Payload"
SIGNAL_HEADER = "X-caBLE-Signal-Connection"
SIGNAL_MESSAGE = b"\x00"  # sent once, unencrypted, by a relay that echoed SIGNAL_HEADER

ROUTING_ID_SIZE = 3
TUNNEL_ID_SIZE = SECRET_SIZE
MAX_REDIRECTS = 5

ASSIGNED_DOMAINS = ("cable.ua5v.com", "cable.auth.com")  # ids 0 (Google) and 1 (Apple)
_FIRST_HASHED_ID = 256
_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_TLDS = ("com", "org", "net", "info")

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def tunnel_domain(service_id: int) -> str:
    """Domain of a tunnel service id (0..65535).

    Assigned ids are below 256; the others are hashed into a name ("tunnel server domain" derivation).

    Raises:
        RemoteProtocolError: an id from 2 to 255, which nobody has been assigned, or one that does not fit 16 bits.
    """
    if 0 <= service_id < len(ASSIGNED_DOMAINS):
        return ASSIGNED_DOMAINS[service_id]
    if not _FIRST_HASHED_ID <= service_id <= 0xFFFF:
        raise RemoteProtocolError(f"tunnel service id {service_id} is not assigned")
    seed = b"caBLEv2 tunnel server domain" + service_id.to_bytes(2, "little") + b"\x00"
    value = int.from_bytes(hashlib.sha256(seed).digest()[:8], "little")
    tld = _TLDS[value & 3]
    value >>= 2
    label = ""
    while value:  # least significant digit first
        label += _BASE32[value & 31]
        value >>= 5
    return f"cable.{label}.{tld}"


@dataclass(frozen=True, slots=True)
class New:
    """``/cable/new``: the phone creates a tunnel (QR flow). `tunnel_id`: 16 bytes."""

    tunnel_id: bytes


@dataclass(frozen=True, slots=True)
class Connect:
    """``/cable/connect``: join the tunnel of `routing_id` (3 bytes) and `tunnel_id` (16 bytes)."""

    routing_id: bytes
    tunnel_id: bytes


@dataclass(frozen=True, slots=True)
class Contact:
    """``/cable/contact``: reach a linked phone by its `contact_id` (any length above 0)."""

    contact_id: bytes


Target = New | Connect | Contact


def path_of(target: Target) -> str:
    """URL path as we write it: upper-case hex, base64url without padding.

    Raises:
        LocalProtocolError: an id of the wrong size.
    """
    match target:
        case New(tunnel_id):
            return f"/cable/new/{_hex_id(tunnel_id, TUNNEL_ID_SIZE)}"
        case Connect(routing_id, tunnel_id):
            routing = _hex_id(routing_id, ROUTING_ID_SIZE)
            return f"/cable/connect/{routing}/{_hex_id(tunnel_id, TUNNEL_ID_SIZE)}"
        case Contact(contact_id):
            if not contact_id:
                raise LocalProtocolError("a contact ID is empty")
            return f"/cable/contact/{base64.urlsafe_b64encode(contact_id).rstrip(b'=').decode()}"


def _hex_id(data: bytes, size: int) -> str:
    if len(data) != size:
        raise LocalProtocolError(f"an id of {len(data)} bytes where {size} belong")
    return data.hex().upper()


def parse_path(path: str) -> Target:
    """Target of a request path as a relay receives it; hex of either case, nothing else around it.

    Raises:
        RemoteProtocolError: any other path, also one with a query, padding or a trailing slash.
    """
    match path.split("/"):
        case ["", "cable", "new", tunnel_id]:
            return New(parse_hex(tunnel_id, TUNNEL_ID_SIZE))
        case ["", "cable", "connect", routing_id, tunnel_id]:
            return Connect(parse_hex(routing_id, ROUTING_ID_SIZE), parse_hex(tunnel_id, TUNNEL_ID_SIZE))
        case ["", "cable", "contact", contact_id]:
            return Contact(_parse_base64url(contact_id))
        case _:
            raise RemoteProtocolError("this is no path of a tunnel service")


def parse_hex(text: str, size: int | None = None) -> bytes:
    """Bytes of a hex text of either case, `size` bytes long if given.

    Raises:
        RemoteProtocolError: other characters (also spaces), an odd number of digits or another size.
    """
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    # fromhex() reads over spaces, so what it read must account for every character.
    if 2 * len(data) != len(text) or (size is not None and len(data) != size):
        raise RemoteProtocolError("an id is not hexadecimal of the right length")
    return data


def _parse_base64url(text: str) -> bytes:
    if not _BASE64URL.fullmatch(text):
        raise RemoteProtocolError("a contact ID is not base64url without padding")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise RemoteProtocolError("a contact ID is not base64url") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != text:
        raise RemoteProtocolError("a contact ID has stray bits at its end")
    return data


def parse_routing_id(headers: list[str]) -> bytes:
    """Routing ID from all values of the ``X-caBLE-Routing-ID`` header of a response.

    Raises:
        RemoteProtocolError: the header is missing, repeated or not 3 bytes of hex.
    """
    if len(headers) != 1:
        raise RemoteProtocolError("the relay gave no single routing ID")
    return parse_hex(headers[0].strip(), ROUTING_ID_SIZE)


def is_status_gone(status: int, target: Target) -> bool:
    """HTTP 410 deletes a link, and only on the contact path."""
    return status == 410 and isinstance(target, Contact)


@dataclass(frozen=True, slots=True)
class TunnelRequest:
    """What to open, and where: `domain` of the tunnel service, `target`, extra request headers.

    `client_payload` is the header value of a contact request; `signal` asks the relay to tell when the phone joins.
    """

    domain: str
    target: Target
    client_payload: str | None = None
    signal: bool = False

    @property
    def url(self) -> str:
        """``wss://`` URL; the relay of a domain is always on port 443."""
        return f"wss://{self.domain}{path_of(self.target)}"

    def headers(self) -> dict[str, str]:
        """Request headers besides those of every WebSocket, `Origin` and the subprotocol."""
        headers = {}
        if self.client_payload is not None:
            headers[CLIENT_PAYLOAD_HEADER] = self.client_payload
        if self.signal:
            headers[SIGNAL_HEADER] = "true"
        return headers
