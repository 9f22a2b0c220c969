"""Linking information: what a phone hands over so that the next session needs no code (CTAP 2.3 §11.5.1, "linking").

Reads and writes the map and its proof. When a link is stored or forgotten is decided by the drivers.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybrid import cbor
from hybrid.errors import LocalProtocolError, RemoteProtocolError
from hybrid.protocol.keys import (
    EID_KEY_SIZE,
    EID_SIZE,
    LINK_ID_SIZE,
    PSK_SIZE,
    SECRET_SIZE,
    UNCOMPRESSED_SIZE,
    PrivateKey,
    PublicKey,
    Purpose,
    derive,
    diffie_hellman,
    parse_point,
    uncompressed,
)

LINK_SECRET_SIZE = 32
PROOF_SIZE = 32

_UPDATE_PADDING = 0
_UPDATE_LINK = 1
# Padded plaintext of the update that every QR session may carry, so that its size does not tell whether it links.
UPDATE_SIZE = 512


@dataclass(frozen=True, slots=True, repr=False)
class Link:
    """A remembered phone.

    `contact_id`: opaque, at least one byte, known to the relay; `link_id`: 8 bytes, names us at the phone;
    `link_secret`: 32 bytes, a bearer secret; `public_key`: the phone's identity; `name`: for display;
    `tunnel_service_id`: from the advert of the session that made the link.
    """

    contact_id: bytes
    link_id: bytes
    link_secret: bytes
    public_key: PublicKey
    name: str
    tunnel_service_id: int = 0

    def __repr__(self) -> str:
        return "<Link>"

    def eid_key(self, client_nonce: bytes) -> bytes:
        """64 bytes that seal and open the advert of one contact, salted with the client's 16-byte nonce."""
        if len(client_nonce) != SECRET_SIZE:
            raise LocalProtocolError(f"a client nonce has {SECRET_SIZE} bytes")
        return derive(self.link_secret, client_nonce, Purpose.EID_KEY, EID_KEY_SIZE)

    def psk(self, eid: bytes) -> bytes:
        """32 bytes, salted with the whole 16-byte advert plaintext."""
        return derive(self.link_secret, eid, Purpose.PSK, PSK_SIZE)


def random_eid(random: bytes) -> bytes:
    """Plaintext of a linked phone's advert: 00 and 15 random bytes.

    The last byte is kept off zero, because Chromium reads the last two as a service id and drops 2..255.

    Raises:
        LocalProtocolError: not 15 bytes, or the last one is zero: draw again.
    """
    if len(random) != EID_SIZE - 1 or random[-1] == 0:
        raise LocalProtocolError("a linked advert takes 15 random bytes of which the last is not zero")
    return b"\x00" + random


def proof(private: PrivateKey, public: PublicKey, handshake_hash: bytes) -> bytes:
    """32 bytes: HMAC-SHA-256 over the handshake hash, keyed with the ECDH value of both identity keys."""
    return hmac.digest(diffie_hellman(private, public), handshake_hash, hashlib.sha256)


def linking_map(link: Link, phone_identity: PrivateKey, client: PublicKey, handshake_hash: bytes) -> bytes:
    """Canonical CBOR of the linking map as the phone sends it."""
    return cbor.encode(
        {
            1: link.contact_id,
            2: link.link_id,
            3: link.link_secret,
            4: uncompressed(phone_identity.public_key()),
            5: link.name,
            6: proof(phone_identity, client, handshake_hash),
        }
    )


def verify_linking_map(
    fields: Mapping[Any, Any], client_identity: PrivateKey, handshake_hash: bytes, tunnel_service_id: int
) -> Link:
    """Check a linking map and its proof before anything of it is stored.

    Raises:
        RemoteProtocolError: a member is missing or wrong, or the sender does not own the public key.
    """
    public_key = parse_point(_bytes(fields, 4, UNCOMPRESSED_SIZE))
    link_id = _bytes(fields, 2, LINK_ID_SIZE)
    link_secret = _bytes(fields, 3, LINK_SECRET_SIZE)
    contact_id = _bytes(fields, 1)
    name = fields.get(5)
    if not isinstance(name, str):
        raise RemoteProtocolError("linking information has no name")
    expected = proof(client_identity, public_key, handshake_hash)
    if not hmac.compare_digest(expected, _bytes(fields, 6, PROOF_SIZE)):
        raise RemoteProtocolError("the sender of linking information does not own its key")
    return Link(contact_id, link_id, link_secret, public_key, name, tunnel_service_id)


def _bytes(fields: Mapping[Any, Any], key: int, size: int | None = None) -> bytes:
    value = fields.get(key)
    if not isinstance(value, bytes) or not value or (size is not None and len(value) != size):
        raise RemoteProtocolError(f"member {key} of linking information is missing or wrong")
    return value


def encode_update(linking: bytes | None) -> bytes:
    """Payload of an update message, padded so that its sealed size is the same with and without a linking map.

    `linking`: the map of `linking_map`, or None.

    Raises:
        LocalProtocolError: the map is too large to be hidden in 512 bytes.
    """
    fields: dict[int, Any] = {_UPDATE_PADDING: b""}
    if linking is not None:
        fields[_UPDATE_LINK] = cbor.decode_map(linking)
    # The type byte and the padding count take two bytes. A CBOR length takes one more byte from 24 and two from 256;
    # where that leaves one byte over, the frame's own padding takes it.
    room = UPDATE_SIZE - 2 - len(cbor.encode(fields))
    if room >= 24:
        room -= 1 if room <= 256 else 2
    if room < 0:
        raise LocalProtocolError("linking information does not fit an update message")
    fields[_UPDATE_PADDING] = bytes(room)
    return cbor.encode(fields)


def decode_update(payload: bytes) -> Mapping[Any, Any] | None:
    """Linking map of an update message, None if it carries none. Unknown keys are ignored.

    Raises:
        RemoteProtocolError: not a CBOR map, or its linking member is no map.
    """
    linking = cbor.decode_map(payload).get(_UPDATE_LINK)
    if linking is not None and not isinstance(linking, Mapping):
        raise RemoteProtocolError("the linking information of an update is no map")
    return linking
