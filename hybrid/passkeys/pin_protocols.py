"""PIN/UV auth protocols one and two: key agreement, encryption and message authentication (CTAP 2.3 §6.5.6, §6.5.7).

Only the mathematics. Who may have a token, and what for, is in `hybrid.passkeys.pin`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hybrid.passkeys.algorithms import ALGORITHMS, ES256
from hybrid.passkeys.members import optional, required
from hybrid.passkeys.rejected import Rejected
from hybrid.protocol.ctap import Status

Random = Callable[[int], bytes]

TOKEN_SIZE = 32

_ECDH_ES_HKDF_256 = -25  # what the COSE key says; the specification keeps it although neither protocol is that
_BLOCK = 16


class PinProtocol:
    """One PIN/UV auth protocol with its key pair. `version` is 1 or 2."""

    def __init__(self, version: int, random: Random) -> None:
        self.version = version
        self.mac_size = 16 if version == 1 else 32
        self._random = random
        self.regenerate()

    def __repr__(self) -> str:
        return f"<PinProtocol {self.version}>"

    def regenerate(self) -> None:
        """Take a new key pair: what was agreed before is void."""
        self._key: ec.EllipticCurvePrivateKey = ALGORITHMS[ES256].new_key(self._random)

    @property
    def public_key(self) -> dict[int, Any]:
        """COSE key for getKeyAgreement."""
        return {**ALGORITHMS[ES256].cose(self._key), 3: _ECDH_ES_HKDF_256}

    def decapsulate(self, peer: Mapping[Any, Any]) -> bytes:
        """The secret shared with the client's COSE key. Raises `Rejected`."""
        x, y = required(peer, -2, bytes), required(peer, -3, bytes)
        optional(peer, 3, int)  # the algorithm says nothing, but its type is still checked
        if optional(peer, 1, int) != 2 or optional(peer, -1, int) != 1 or len(x) != 32 or len(y) != 32:
            raise Rejected(Status.INVALID_PARAMETER)
        numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), ec.SECP256R1())
        try:
            shared = self._key.exchange(ec.ECDH(), numbers.public_key())
        except ValueError:  # not a point of the curve
            raise Rejected(Status.INVALID_PARAMETER) from None
        if self.version == 1:
            return hashlib.sha256(shared).digest()
        return _hkdf(shared, b"CTAP2 HMAC key") + _hkdf(shared, b"CTAP2 AES key")

    def sizes(self, *plain: int) -> tuple[int, ...]:
        """How long the ciphertexts of plaintexts of these sizes are."""
        return tuple(size if self.version == 1 else size + _BLOCK for size in plain)

    def encrypt(self, secret: bytes, plaintext: bytes) -> bytes:
        """Encrypt a multiple of 16 bytes."""
        iv = bytes(_BLOCK) if self.version == 1 else self._random(_BLOCK)
        encryptor = Cipher(AES(secret[-32:]), CBC(iv)).encryptor()
        ciphertext = encryptor.update(plaintext) + encryptor.finalize()
        return ciphertext if self.version == 1 else iv + ciphertext

    def decrypt(self, secret: bytes, ciphertext: bytes) -> bytes:
        """The plaintext. Raises `Rejected`."""
        iv = bytes(_BLOCK)
        if self.version == 2:
            iv, ciphertext = ciphertext[:_BLOCK], ciphertext[_BLOCK:]
        if len(iv) != _BLOCK or len(ciphertext) % _BLOCK:
            raise Rejected(Status.INVALID_LENGTH)
        decryptor = Cipher(AES(secret[-32:]), CBC(iv)).decryptor()
        return decryptor.update(ciphertext) + decryptor.finalize()

    def verify(self, key: bytes, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is the MAC of `message`; `key` is a shared secret or a token."""
        mac = hmac.digest(key[:32], message, "sha256")
        return hmac.compare_digest(mac[: self.mac_size], signature)


def _hkdf(shared: bytes, info: bytes, size: int = 32) -> bytes:
    return HKDF(hashes.SHA256(), size, bytes(32), info).derive(shared)


def sealed_for(token: bytes, info: bytes, plaintext: bytes, iv: bytes) -> bytes:
    """What getInfo shows to the holder of a persistent token only (CTAP 2.3 §6.4, encIdentifier)."""
    encryptor = Cipher(AES(_hkdf(token, info, 16)), CBC(iv)).encryptor()
    return iv + encryptor.update(plaintext) + encryptor.finalize()
