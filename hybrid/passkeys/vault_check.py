"""Whether a passkey in the vault can do what it is for: its key loads, fits its algorithm, and makes good signatures.

Proves that the record is whole, not that a site knows it.
"""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key

from hybrid.passkeys.algorithms import ALGORITHMS
from hybrid.passkeys.store import Credential

_MESSAGE = b"does this passkey work?"
_CURVE_DIGESTS = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
_SECRET_SIZE = 32


def problem_of(credential: Credential) -> str | None:
    """What is wrong with this passkey, in some words for people; None if nothing is."""
    algorithm = ALGORITHMS.get(credential.algorithm)
    if algorithm is None:
        return f"its algorithm ({credential.algorithm}) is not known here"
    try:
        key: Any = load_der_private_key(credential.private_key, None)
    except Exception:  # the parser's exceptions are of many types, and all mean the same here
        return "its key cannot be read"
    if not algorithm.accepts(key):
        return "its key is not one of its algorithm"
    try:
        _check_signature(key.public_key(), algorithm.sign(key, _MESSAGE))
    except InvalidSignature:
        return "its signatures are wrong"
    return _problem_beside_the_key(credential)


def _check_signature(public_key: Any, signature: bytes) -> None:
    match public_key:
        case ec.EllipticCurvePublicKey():
            public_key.verify(signature, _MESSAGE, ec.ECDSA(_CURVE_DIGESTS[public_key.curve.name]))
        case rsa.RSAPublicKey():
            public_key.verify(signature, _MESSAGE, padding.PKCS1v15(), hashes.SHA256())
        case _:
            public_key.verify(signature, _MESSAGE)


def _problem_beside_the_key(credential: Credential) -> str | None:
    if not credential.credential_id or not credential.rp_id or not credential.user_id:
        return "its id, site or account is empty"
    if credential.backed_up and not credential.backup_eligible:
        return "it is marked as synced, and as one that must not be"
    if any(secret and len(secret) != _SECRET_SIZE for secret in (credential.secret_uv, credential.secret_no_uv)):
        return "its secret for the prf extension has a wrong length"
    return None
