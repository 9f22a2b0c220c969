"""The two Noise patterns of hybrid: KNpsk0 and NKpsk0 over P-256, AES-256-GCM and SHA-256.

Object names follow the Noise Protocol Framework (revision 34, §5). Which pattern, prologue and keys a session takes is
decided in `handshake`. This is no general Noise library: two patterns, one curve, empty payloads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hybrid.errors import HandshakeFailed, LocalProtocolError, RemoteProtocolError
from hybrid.protocol.keys import (
    GCM_NONCE_SIZE,
    HANDSHAKE_MESSAGE_SIZE,
    UNCOMPRESSED_SIZE,
    PrivateKey,
    PublicKey,
    diffie_hellman,
    hkdf,
    parse_point,
    uncompressed,
)

KEY_SIZE = 32
HASH_SIZE = 32

Observer = Callable[[str, bytes, bytes, bytes | None], None]
"""Told (step, h, ck, k) after every step of a handshake. For known-answer tests only: it sees secrets."""


class Pattern(Enum):
    """Handshake pattern. The value is the protocol name: 31 ASCII bytes, padded with one zero byte, never hashed."""

    KN_PSK0 = b"Noise_KNpsk0_P256_AESGCM_SHA256"
    NK_PSK0 = b"Noise_NKpsk0_P256_AESGCM_SHA256"


@dataclass(frozen=True, slots=True, repr=False)
class TrafficKeys:
    """What a handshake leaves behind: a 32-byte key per direction and the 32-byte handshake hash."""

    client_to_phone: bytes
    phone_to_client: bytes
    handshake_hash: bytes

    def __repr__(self) -> str:
        return "<TrafficKeys>"


class CipherState:
    """An AES-256-GCM key and the counter of its next nonce (handshake messages only)."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self._counter = 0

    def __repr__(self) -> str:
        return f"<CipherState counter {self._counter}>"

    def _nonce(self) -> bytes:
        # Noise for AESGCM: 4 zero bytes, then the counter big-endian. Always 0 in these patterns.
        return self._counter.to_bytes(GCM_NONCE_SIZE, "big")

    def encrypt(self, plaintext: bytes, associated: bytes) -> bytes:
        """Seal with the next nonce; the result is 16 bytes longer."""
        ciphertext = self._aead.encrypt(self._nonce(), plaintext, associated)
        self._counter += 1
        return ciphertext

    def decrypt(self, ciphertext: bytes, associated: bytes) -> bytes:
        """Open with the next nonce. Raises `HandshakeFailed`; the counter then stays."""
        try:
            plaintext = self._aead.decrypt(self._nonce(), ciphertext, associated)
        except InvalidTag:
            raise HandshakeFailed("a handshake message does not authenticate") from None
        self._counter += 1
        return plaintext


class SymmetricState:
    """The chaining key `ck`, the running hash `h` and the current cipher."""

    def __init__(self, protocol_name: bytes, observer: Observer | None = None) -> None:
        self.h = protocol_name.ljust(HASH_SIZE, b"\x00")
        self.ck = self.h
        self._key: bytes | None = None
        self._cipher: CipherState | None = None
        self._observer = observer
        self._observe("init")

    def __repr__(self) -> str:
        return "<SymmetricState>"

    def _observe(self, step: str) -> None:
        if self._observer is not None:
            self._observer(step, self.h, self.ck, self._key)

    def _set_key(self, key: bytes) -> None:
        self._key = key
        self._cipher = CipherState(key)

    def mix_hash(self, data: bytes, step: str) -> None:
        self.h = hashlib.sha256(self.h + data).digest()
        self._observe(f"mixHash({step})")

    def mix_key(self, data: bytes, step: str) -> None:
        okm = hkdf(self.ck, data, b"", 2 * HASH_SIZE)
        self.ck = okm[:HASH_SIZE]
        self._set_key(okm[HASH_SIZE:])
        self._observe(f"mixKey({step})")

    def mix_key_and_hash(self, data: bytes, step: str) -> None:
        okm = hkdf(self.ck, data, b"", 3 * HASH_SIZE)
        self.ck = okm[:HASH_SIZE]
        self.h = hashlib.sha256(self.h + okm[HASH_SIZE : 2 * HASH_SIZE]).digest()
        self._set_key(okm[2 * HASH_SIZE :])
        self._observe(f"mixKeyAndHash({step})")

    def encrypt_and_hash(self, step: str) -> bytes:
        """Seal the empty payload: a 16-byte tag."""
        tag = self._current_cipher().encrypt(b"", self.h)
        self.h = hashlib.sha256(self.h + tag).digest()
        self._observe(step)
        return tag

    def decrypt_and_hash(self, tag: bytes, step: str) -> None:
        """Open the tag of an empty payload. Raises `HandshakeFailed`; `h` then stays."""
        self._current_cipher().decrypt(tag, self.h)
        self.h = hashlib.sha256(self.h + tag).digest()
        self._observe(step)

    def _current_cipher(self) -> CipherState:
        if self._cipher is None:
            raise LocalProtocolError("no key has been mixed yet")
        return self._cipher

    def split(self) -> TrafficKeys:
        okm = hkdf(self.ck, b"", b"", 2 * KEY_SIZE)
        return TrafficKeys(okm[:KEY_SIZE], okm[KEY_SIZE:], self.h)


def _start(
    pattern: Pattern, prologue: bytes, psk: bytes, static: PublicKey, observer: Observer | None
) -> SymmetricState:
    symmetric = SymmetricState(pattern.value, observer)
    symmetric.mix_hash(prologue, "prologue")
    symmetric.mix_hash(uncompressed(static), "static public")
    symmetric.mix_key_and_hash(psk, "psk")
    return symmetric


def _mix_ephemeral(symmetric: SymmetricState, point: bytes, name: str) -> None:
    symmetric.mix_hash(point, name)
    symmetric.mix_key(point, name)


class _Steps:
    """The steps of one side, each taken once and in order: what failed cannot be tried again on the same state."""

    def __init__(self, *names: str) -> None:
        self._left = list(names)

    def take(self, name: str) -> None:
        if self._left[:1] != [name]:
            raise LocalProtocolError(f"{name} is not the next step of this handshake")
        del self._left[0]


def _split_message(message: bytes) -> tuple[PublicKey, bytes]:
    if len(message) != HANDSHAKE_MESSAGE_SIZE:
        raise HandshakeFailed(f"a handshake message of {len(message)} bytes where {HANDSHAKE_MESSAGE_SIZE} belong")
    try:
        point = parse_point(message[:UNCOMPRESSED_SIZE])
    except RemoteProtocolError:
        raise HandshakeFailed("a handshake message does not start with a P-256 point") from None
    return point, message[UNCOMPRESSED_SIZE:]


class Initiator:
    """The client's side: `write_message_1`, then `read_message_2`. Each works once.

    `static`: KNpsk0 our own static private key, NKpsk0 the responder's static public key. `ephemeral`: fresh.
    """

    def __init__(
        self,
        pattern: Pattern,
        *,
        prologue: bytes,
        psk: bytes,
        static: PrivateKey | PublicKey,
        ephemeral: PrivateKey,
        observer: Observer | None = None,
    ) -> None:
        self._ephemeral = ephemeral
        self._own_static: PrivateKey | None = None
        self._peer_static: PublicKey | None = None
        match pattern, static:
            case Pattern.KN_PSK0, PrivateKey():
                self._own_static = static
                known = static.public_key()
            case Pattern.NK_PSK0, PublicKey():
                self._peer_static = known = static
            case _:
                raise LocalProtocolError("KNpsk0 takes our private key, NKpsk0 the peer's public key")
        self._steps = _Steps("write_message_1", "read_message_2")
        self._symmetric = _start(pattern, prologue, psk, known, observer)

    def __repr__(self) -> str:
        return "<Initiator>"

    def write_message_1(self) -> bytes:
        """Give message 1, 81 bytes: ``-> psk, e`` and for NKpsk0 ``es``."""
        self._steps.take("write_message_1")
        point = uncompressed(self._ephemeral.public_key())
        _mix_ephemeral(self._symmetric, point, "e_i")
        if self._peer_static is not None:
            self._symmetric.mix_key(diffie_hellman(self._ephemeral, self._peer_static), "es")
        return point + self._symmetric.encrypt_and_hash("encryptAndHash(empty)")

    def read_message_2(self, message: bytes) -> TrafficKeys:
        """Take message 2, 81 bytes: ``<- e, ee`` and for KNpsk0 ``se``. Raises `HandshakeFailed`; no second try."""
        self._steps.take("read_message_2")
        peer, tag = _split_message(message)
        _mix_ephemeral(self._symmetric, uncompressed(peer), "e_r")
        self._symmetric.mix_key(diffie_hellman(self._ephemeral, peer), "ee")
        if self._own_static is not None:
            self._symmetric.mix_key(diffie_hellman(self._own_static, peer), "se")
        self._symmetric.decrypt_and_hash(tag, "encryptAndHash(empty) #2")
        return self._symmetric.split()


class Responder:
    """The phone's side: `answer` takes message 1 and gives message 2 and the keys. It works once.

    `static`: KNpsk0 the client's static public key (from the QR code), NKpsk0 our own static private key.
    """

    def __init__(
        self,
        pattern: Pattern,
        *,
        prologue: bytes,
        psk: bytes,
        static: PrivateKey | PublicKey,
        ephemeral: PrivateKey,
        observer: Observer | None = None,
    ) -> None:
        self._ephemeral = ephemeral
        self._own_static: PrivateKey | None = None
        self._peer_static: PublicKey | None = None
        match pattern, static:
            case Pattern.KN_PSK0, PublicKey():
                self._peer_static = known = static
            case Pattern.NK_PSK0, PrivateKey():
                self._own_static = static
                known = static.public_key()
            case _:
                raise LocalProtocolError("KNpsk0 takes the peer's public key, NKpsk0 our private key")
        self._steps = _Steps("answer")
        self._symmetric = _start(pattern, prologue, psk, known, observer)

    def __repr__(self) -> str:
        return "<Responder>"

    def answer(self, message: bytes) -> tuple[bytes, TrafficKeys]:
        """Check message 1 (81 bytes); give message 2 (81 bytes) and the traffic keys. Raises `HandshakeFailed`."""
        self._steps.take("answer")
        peer, tag = _split_message(message)
        symmetric = self._symmetric
        _mix_ephemeral(symmetric, uncompressed(peer), "e_i")
        if self._own_static is not None:
            symmetric.mix_key(diffie_hellman(self._own_static, peer), "es")
        symmetric.decrypt_and_hash(tag, "encryptAndHash(empty)")
        point = uncompressed(self._ephemeral.public_key())
        _mix_ephemeral(symmetric, point, "e_r")
        symmetric.mix_key(diffie_hellman(self._ephemeral, peer), "ee")
        if self._peer_static is not None:
            symmetric.mix_key(diffie_hellman(self._ephemeral, self._peer_static), "se")
        return point + symmetric.encrypt_and_hash("encryptAndHash(empty) #2"), symmetric.split()
