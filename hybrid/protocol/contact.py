"""The client payload of a contact request (CTAP 2.3 §11.5.1, "state-assisted transactions"). Sealing is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from hybrid import cbor
from hybrid.errors import LocalProtocolError, RemoteProtocolError
from hybrid.protocol.keys import LINK_ID_SIZE, SECRET_SIZE
from hybrid.protocol.tunnel import parse_hex

CLIENT_NONCE_SIZE = SECRET_SIZE


@dataclass(frozen=True, slots=True)
class ClientPayload:
    """What a client tells the linked phone when it asks for contact.

    `link_id`: 8 bytes, names the client at the phone; `client_nonce`: 16 bytes, salts the EID key; `hint`: text,
    any value decodes (whether to serve it is the phone's decision).
    """

    link_id: bytes
    client_nonce: bytes
    hint: str

    def to_cbor(self) -> bytes:
        """Canonical CBOR map {1: link id, 2: nonce, 3: hint}. Raises `LocalProtocolError` for wrong sizes."""
        if len(self.link_id) != LINK_ID_SIZE or len(self.client_nonce) != CLIENT_NONCE_SIZE:
            raise LocalProtocolError("a client payload takes 8 bytes of link ID and 16 of nonce")
        return cbor.encode({1: self.link_id, 2: self.client_nonce, 3: self.hint})

    def to_header(self) -> str:
        """Value of the ``X-caBLE-Client-Payload`` header: upper-case hex."""
        return self.to_cbor().hex().upper()

    @classmethod
    def parse_header(cls, header: str) -> ClientPayload:
        """Read the header value, hex of either case.

        Raises:
            RemoteProtocolError: not hex, not the map, a member missing, or of the wrong type or size.
        """
        fields = cbor.decode_map(parse_hex(header))
        link_id, nonce, hint = fields.get(1), fields.get(2), fields.get(3)
        if not isinstance(link_id, bytes) or len(link_id) != LINK_ID_SIZE:
            raise RemoteProtocolError("a client payload has no link ID of 8 bytes")
        if not isinstance(nonce, bytes) or len(nonce) != CLIENT_NONCE_SIZE:
            raise RemoteProtocolError("a client payload has no nonce of 16 bytes")
        if not isinstance(hint, str):
            raise RemoteProtocolError("a client payload has no hint")
        return cls(link_id, nonce, hint)
