"""A passkey's public key: COSE and SubjectPublicKeyInfo, and its signatures (WebAuthn Level 3, "Cryptographic
Algorithm Identifiers"; RFC 9053).

Algorithms outside the table are carried, not checked: `parse_cose` gives no key for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from hybrid import cbor
from hybrid.errors import RefusalReason, RemoteProtocolError, RequestRefused
from hybrid.fido2_bridge import base64url

Key = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

_KTY, _ALG, _CRV, _X, _Y = 1, 3, -1, -2, -3
_OKP, _EC2, _RSA = 1, 2, 3
_ED25519 = 6
_RSA_MIN_BITS = 2048
_RSA_MAX_BITS = 8192  # checking a signature of a hostile, huge key would take minutes

# alg: COSE curve, curve, hash; ES* and the fully specified ESP* of the same curve
_ECDSA: dict[int, tuple[int, ec.EllipticCurve, hashes.HashAlgorithm]] = {
    -7: (1, ec.SECP256R1(), hashes.SHA256()),
    -9: (1, ec.SECP256R1(), hashes.SHA256()),
    -35: (2, ec.SECP384R1(), hashes.SHA384()),
    -51: (2, ec.SECP384R1(), hashes.SHA384()),
    -36: (3, ec.SECP521R1(), hashes.SHA512()),
    -52: (3, ec.SECP521R1(), hashes.SHA512()),
}
_EDDSA = (-8, -19)
_RS256 = -257


@dataclass(frozen=True, slots=True)
class CredentialKey:
    """A public key and the COSE number of the algorithm it signs with."""

    algorithm: int
    key: Key

    def spki(self) -> bytes:
        """DER SubjectPublicKeyInfo, as WebAuthn's ``publicKey`` member has it."""
        return self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` over `message` is of this key."""
        try:
            if isinstance(self.key, ec.EllipticCurvePublicKey):
                self.key.verify(signature, message, ec.ECDSA(_ECDSA[self.algorithm][2]))
            elif isinstance(self.key, rsa.RSAPublicKey):
                self.key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
            else:
                self.key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def cose_algorithm(cose: Mapping[Any, Any]) -> int:
    """Algorithm number of a COSE key.

    Raises:
        RemoteProtocolError: it has none.
    """
    algorithm = cose.get(_ALG)
    if type(algorithm) is not int:
        raise RemoteProtocolError("a COSE key has no algorithm number")
    return algorithm


def parse_cose(cose: Mapping[Any, Any]) -> CredentialKey | None:
    """Key of a decoded COSE map; None for an algorithm that is not in the table.

    Raises:
        RemoteProtocolError: parameters that do not fit the algorithm, or no valid point or modulus.
    """
    algorithm = cose_algorithm(cose)
    kind, first, second = cose.get(_KTY), cose.get(_CRV), cose.get(_X)
    try:
        if algorithm in _ECDSA:
            curve_number, curve, _ = _ECDSA[algorithm]
            size = (curve.key_size + 7) // 8
            x, y = _sized(second, size), _sized(cose.get(_Y), size)
            if (kind, first) != (_EC2, curve_number):
                raise ValueError
            return CredentialKey(algorithm, _point(x, y, curve))
        if algorithm in _EDDSA:
            if (kind, first) != (_OKP, _ED25519):
                raise ValueError
            return CredentialKey(algorithm, ed25519.Ed25519PublicKey.from_public_bytes(_sized(second, 32)))
        if algorithm == _RS256:
            if kind != _RSA or not isinstance(first, bytes) or not isinstance(second, bytes):
                raise ValueError
            return CredentialKey(algorithm, _rsa(int.from_bytes(first, "big"), second))
    except (ValueError, UnsupportedAlgorithm):
        raise RemoteProtocolError("a COSE key does not fit its algorithm") from None
    return None


def _sized(value: Any, size: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != size:
        raise ValueError
    return value


def _point(x: bytes, y: bytes, curve: ec.EllipticCurve) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)


def _rsa(modulus: int, exponent: bytes) -> rsa.RSAPublicKey:
    if not _RSA_MIN_BITS <= modulus.bit_length() <= _RSA_MAX_BITS or len(exponent) > 4:
        raise ValueError
    return rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), modulus).public_key()


def load_public_key(data: bytes) -> CredentialKey:
    """Public key from a file: PEM, DER SubjectPublicKeyInfo or a COSE key, the last two in base64url as well.

    SubjectPublicKeyInfo does not name the algorithm; RSA is taken for RS256 and curves for ES256, ES384, ES512.

    Raises:
        RequestRefused: none of these, or an algorithm that cannot be checked here. `OPTIONS`.
    """
    candidates = [data]
    try:
        candidates.append(base64url.decode(data.decode("ascii").strip()))
    except ValueError:
        pass
    for candidate in candidates:
        key = _load_one(candidate)
        if key is not None:
            return key
    raise RequestRefused("the public key is neither PEM, DER nor COSE of a known algorithm", RefusalReason.OPTIONS)


def _load_one(data: bytes) -> CredentialKey | None:
    load = load_pem_public_key if data.lstrip().startswith(b"-----BEGIN") else load_der_public_key
    try:
        return _from_key(load(data.strip() if load is load_pem_public_key else data))
    except (ValueError, UnsupportedAlgorithm):
        pass
    try:
        return parse_cose(cbor.decode_map(data))
    except RemoteProtocolError:
        return None


def _from_key(key: Any) -> CredentialKey | None:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return CredentialKey(-8, key)
    if isinstance(key, rsa.RSAPublicKey):
        return CredentialKey(_RS256, key)
    if isinstance(key, ec.EllipticCurvePublicKey):
        for algorithm, (_, curve, _) in _ECDSA.items():
            if curve.name == key.curve.name:
                return CredentialKey(algorithm, key)
    return None
