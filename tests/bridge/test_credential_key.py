"""Public keys in the forms that a file can have, and their signatures."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fido2 import cbor
from fido2.cose import CoseKey

from hybrid.errors import RefusalReason, RequestRefused
from hybrid.fido2_bridge import base64url
from hybrid.fido2_bridge.credential_key import load_public_key, parse_cose
from tests.bridge.bridge_phone import key_pair, sign

SPKI = PublicFormat.SubjectPublicKeyInfo


@pytest.mark.parametrize("algorithm", [-7, -8, -257])
def test_a_public_key_is_read_in_every_form(algorithm: int) -> None:
    private, cose = key_pair(algorithm)
    public = private.public_key()
    der, encoded = public.public_bytes(Encoding.DER, SPKI), cbor.encode(cose)
    forms = [public.public_bytes(Encoding.PEM, SPKI), der, encoded]
    forms += [b"\n" + forms[0] + b"\n", base64url.encode(der).encode() + b"\n", base64url.encode(encoded).encode()]
    for form in forms:
        key = load_public_key(form)
        assert (key.algorithm, key.spki()) == (algorithm, der)
        signature = sign(private, b"message")
        assert key.verifies(signature, b"message")
        assert not key.verifies(signature, b"massage")
        assert not key.verifies(b"", b"message")


@pytest.mark.parametrize(
    ("algorithm", "curve", "digest"),
    [
        (-9, ec.SECP256R1(), hashes.SHA256()),
        (-35, ec.SECP384R1(), hashes.SHA384()),
        (-51, ec.SECP384R1(), hashes.SHA384()),
        (-36, ec.SECP521R1(), hashes.SHA512()),
        (-52, ec.SECP521R1(), hashes.SHA512()),
    ],
)
def test_other_curves(algorithm: int, curve: Any, digest: Any) -> None:
    private = ec.generate_private_key(curve)
    kind: Any = CoseKey.for_alg(algorithm)
    key = parse_cose(dict(kind.from_cryptography_key(private.public_key())))
    assert key is not None
    assert key.algorithm == algorithm
    assert key.verifies(private.sign(b"m", ec.ECDSA(digest)), b"m")
    assert load_public_key(key.spki()).verifies(private.sign(b"m", ec.ECDSA(digest)), b"m")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        b"\xa0",
        cbor.encode({1: 7, 3: -48, -1: bytes(1312)}),
        cbor.encode({1: 2, 3: -7, -1: 1, -2: bytes(32), -3: bytes(32)}),
        x25519.X25519PrivateKey.generate().public_key().public_bytes(Encoding.DER, SPKI),
        ec.generate_private_key(ec.SECP256K1()).public_key().public_bytes(Encoding.PEM, SPKI),
        dsa.generate_parameters,
    ],
    ids=["nothing", "text", "empty PEM", "empty map", "ML-DSA", "no point", "x25519", "secp256k1", "no bytes"],
)
def test_refuses_what_is_no_key_it_can_check(data: Any) -> None:
    if callable(data):
        data = data(1024).generate_private_key().public_key().public_bytes(Encoding.DER, SPKI)
    with pytest.raises(RequestRefused) as caught:
        load_public_key(data)
    assert caught.value.reason is RefusalReason.OPTIONS
