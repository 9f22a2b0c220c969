"""Signature algorithms: new keys, COSE public keys and signatures (RFC 9053 §2, RFC 9864, WebAuthn Level 3 §5.8.5).

The COSE key carries exactly the number that was asked for: -9 says more than -7 and is not turned into it. Which are
offered is decided elsewhere.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from hybrid.errors import VaultError, VaultProblem

try:
    from cryptography.hazmat.primitives.asymmetric import mldsa
except ImportError:  # before cryptography 47
    mldsa = None  # type: ignore[assignment]  # an older cryptography has none

Random = Callable[[int], bytes]

ES256, EDDSA, ESP256, ED25519, RS256 = -7, -8, -9, -19, -257
ES384, ES512, ML_DSA_44, ML_DSA_65 = -35, -36, -48, -49

STANDARD = (ES256, EDDSA, ESP256, ED25519, RS256)
_RSA_BITS = 2048


class PrivateKey(Protocol):
    """What all private keys of `cryptography` that we use have in common."""

    @abstractmethod
    def private_bytes(self, encoding: Encoding, format: PrivateFormat, encryption_algorithm: NoEncryption) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One signature algorithm.

    `new_key` makes a key from so many random bytes; `accepts` tells whether a loaded key fits; `cose` gives the COSE
    key without its algorithm; `sign` signs a message.
    """

    new_key: Callable[[Random], Any]
    accepts: Callable[[Any], bool]
    cose: Callable[[Any], dict[int, Any]]
    sign: Callable[[Any, bytes], bytes]


def _elliptic(curve: ec.EllipticCurve, order: int, cose_curve: int, digest: hashes.HashAlgorithm) -> Algorithm:
    size = (curve.key_size + 7) // 8

    def new_key(random: Random) -> ec.EllipticCurvePrivateKey:
        # FIPS 186-5 A.2.1: 64 bits more than the order has, so that the remainder is not skewed.
        return ec.derive_private_key(int.from_bytes(random(size + 8), "big") % (order - 1) + 1, curve)

    def cose(key: ec.EllipticCurvePrivateKey) -> dict[int, Any]:
        point = key.public_key().public_numbers()
        return {1: 2, -1: cose_curve, -2: point.x.to_bytes(size, "big"), -3: point.y.to_bytes(size, "big")}

    return Algorithm(
        new_key,
        lambda key: isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == curve.name,
        cose,
        lambda key, message: key.sign(message, ec.ECDSA(digest)),
    )


def _edwards() -> Algorithm:
    def cose(key: ed25519.Ed25519PrivateKey) -> dict[int, Any]:
        return {1: 1, -1: 6, -2: key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)}

    return Algorithm(
        lambda random: ed25519.Ed25519PrivateKey.from_private_bytes(random(32)),
        lambda key: isinstance(key, ed25519.Ed25519PrivateKey),
        cose,
        lambda key, message: key.sign(message),
    )


def _rsa() -> Algorithm:
    def new_key(random: Random) -> rsa.RSAPrivateKey:
        del random  # the library takes no dice for prime numbers
        return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)

    def cose(key: rsa.RSAPrivateKey) -> dict[int, Any]:
        numbers = key.public_key().public_numbers()
        return {1: 3, -1: numbers.n.to_bytes(key.key_size // 8, "big"), -2: numbers.e.to_bytes(3, "big")}

    return Algorithm(
        new_key,
        lambda key: isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _RSA_BITS,
        cose,
        lambda key, message: key.sign(message, padding.PKCS1v15(), hashes.SHA256()),
    )


def _lattice(kind: Any) -> Algorithm:
    return Algorithm(
        lambda random: kind.from_seed_bytes(random(32)),
        lambda key: isinstance(key, kind),
        lambda key: {1: 7, -1: key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)},
        lambda key, message: key.sign(message),
    )


_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_P384_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
_P521_ORDER = (1 << 521) - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7

_P256 = _elliptic(ec.SECP256R1(), _P256_ORDER, 1, hashes.SHA256())
_ED25519 = _edwards()

ALGORITHMS: dict[int, Algorithm] = {
    ES256: _P256,
    EDDSA: _ED25519,
    ESP256: _P256,
    ED25519: _ED25519,
    RS256: _rsa(),
    ES384: _elliptic(ec.SECP384R1(), _P384_ORDER, 2, hashes.SHA384()),
    ES512: _elliptic(ec.SECP521R1(), _P521_ORDER, 3, hashes.SHA512()),
}
if mldsa is not None:
    ALGORITHMS[ML_DSA_44] = _lattice(mldsa.MLDSA44PrivateKey)
    ALGORITHMS[ML_DSA_65] = _lattice(mldsa.MLDSA65PrivateKey)

EVERY = tuple(ALGORITHMS)  # the standard ones, and those that few managers can import


def new_private_key(algorithm: int, random: Random) -> bytes:
    """Make a key; PKCS#8 DER."""
    key: PrivateKey = ALGORITHMS[algorithm].new_key(random)
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def cose_key(algorithm: int, private_key: bytes) -> dict[int, Any]:
    """The public key of a PKCS#8 DER private key. Raises `VaultError` if the key is not one of `algorithm`."""
    found = _of(algorithm)
    return {**found.cose(_loaded(found, private_key)), 3: algorithm}


def sign(algorithm: int, private_key: bytes, message: bytes) -> bytes:
    """Sign `message`. Raises as `cose_key`."""
    found = _of(algorithm)
    return found.sign(_loaded(found, private_key), message)


def _of(algorithm: int) -> Algorithm:
    found = ALGORITHMS.get(algorithm)
    if found is None:
        raise VaultError("a stored passkey has an algorithm that is not supported here", VaultProblem.CORRUPT)
    return found


def _loaded(algorithm: Algorithm, private_key: bytes) -> Any:
    try:
        key = load_der_private_key(private_key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if key is None or not algorithm.accepts(key):
        raise VaultError("a stored passkey has no usable key", VaultProblem.CORRUPT)
    return key
