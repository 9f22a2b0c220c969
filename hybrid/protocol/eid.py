"""EID adverts (CTAP 2.3 §11.5.1, "advertisement"): seals and trial-opens service data. Does not scan."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hybrid import cbor
from hybrid.errors import LocalProtocolError, RemoteProtocolError
from hybrid.protocol.keys import EID_KEY_SIZE, EID_SIZE
from hybrid.protocol.tunnel import ROUTING_ID_SIZE, tunnel_domain

FIDO_UUID = "0000fff9-0000-1000-8000-00805f9b34fb"
GOOGLE_UUID = "0000fde2-0000-1000-8000-00805f9b34fb"  # iOS 16 and old Android; deprecated, still heard

ADVERT_SIZE = 20
NONCE_SIZE = 10
_AES_KEY_SIZE = 32
_TAG_SIZE = ADVERT_SIZE - EID_SIZE
_MAX_PSM = 0xFFFF
_L2CAP = 1


@dataclass(frozen=True, slots=True)
class Eid:
    """Plaintext of a QR-initiated advert: a 10-byte nonce, the 3-byte routing ID, the tunnel service id."""

    nonce: bytes
    routing_id: bytes
    tunnel_service_id: int

    def pack(self) -> bytes:
        """16 bytes: flags 00, nonce, routing ID, service id little-endian. Raises `LocalProtocolError` for sizes."""
        if len(self.nonce) != NONCE_SIZE or len(self.routing_id) != ROUTING_ID_SIZE:
            raise LocalProtocolError("an advert takes a nonce of 10 bytes and a routing ID of 3")
        if not 0 <= self.tunnel_service_id <= 0xFFFF:
            raise LocalProtocolError("a tunnel service id has 16 bits")
        return b"\x00" + self.nonce + self.routing_id + self.tunnel_service_id.to_bytes(2, "little")

    @classmethod
    def unpack(cls, plaintext: bytes) -> Eid:
        """Read an opened advert.

        Raises:
            RemoteProtocolError: not 16 bytes, or a tunnel service id that nobody has been assigned.
        """
        if len(plaintext) != EID_SIZE:
            raise RemoteProtocolError(f"an advert's plaintext has {len(plaintext)} bytes where {EID_SIZE} belong")
        service_id = int.from_bytes(plaintext[14:16], "little")
        tunnel_domain(service_id)
        return cls(plaintext[1:11], plaintext[11:14], service_id)


def seal(plaintext: bytes, eid_key: bytes) -> bytes:
    """Service data, 20 bytes: one AES-256 block and the first 4 bytes of its HMAC-SHA-256.

    Raises:
        LocalProtocolError: the plaintext is not 16 bytes with a first byte of 00, or the key not 64 bytes.
    """
    if len(plaintext) != EID_SIZE or plaintext[0] != 0:
        raise LocalProtocolError("an advert seals 16 bytes of which the first is zero")
    if len(eid_key) != EID_KEY_SIZE:
        raise LocalProtocolError("an EID key has 64 bytes")
    encryptor = Cipher(algorithms.AES256(eid_key[:_AES_KEY_SIZE]), modes.ECB()).encryptor()  # noqa: S305 one block
    block = encryptor.update(plaintext) + encryptor.finalize()
    return block + _tag(block, eid_key)


def trial_open(service_data: bytes, eid_key: bytes) -> bytes | None:
    """16-byte plaintext if this advert was sealed with `eid_key`, else None: a stranger's advert is no error.

    The tag is checked in constant time before anything is decrypted. Bytes after the twentieth are the suffix.
    """
    if len(service_data) < ADVERT_SIZE:
        return None
    block = service_data[:EID_SIZE]
    if not hmac.compare_digest(_tag(block, eid_key), service_data[EID_SIZE:ADVERT_SIZE]):
        return None
    decryptor = Cipher(algorithms.AES256(eid_key[:_AES_KEY_SIZE]), modes.ECB()).decryptor()  # noqa: S305 one block
    plaintext = decryptor.update(block) + decryptor.finalize()
    # Flags byte, "advertisement": must be zero; new bits are used only after the code announces support.
    return plaintext if plaintext[0] == 0 else None


def _tag(block: bytes, eid_key: bytes) -> bytes:
    return hmac.digest(eid_key[_AES_KEY_SIZE:], block, hashlib.sha256)[:_TAG_SIZE]


def suffix_of(service_data: bytes) -> bytes:
    """Bytes after the advert proper. Neither sealed nor authenticated."""
    return service_data[ADVERT_SIZE:]


def parse_suffix(suffix: bytes) -> int | None:
    """L2CAP PSM of a suffix map {1: PSM}, None if it names none from 1 to 65535.

    Raises:
        RemoteProtocolError: not one CBOR map. That only means that the suffix is to be ignored.
    """
    if not suffix:
        return None
    psm = cbor.decode_map(suffix).get(_L2CAP)
    return psm if type(psm) is int and 1 <= psm <= _MAX_PSM else None
