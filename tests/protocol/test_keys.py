"""Derivations and points, against published values."""

from __future__ import annotations

import pytest

from hybrid.errors import LocalProtocolError, RemoteProtocolError
from hybrid.protocol import keys
from tests.protocol.sides import CLIENT_IDENTITY, PHONE_IDENTITY

GROUP_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
PRIME = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF


@pytest.mark.parametrize(
    ("ikm", "salt", "info", "okm"),
    [
        # RFC 5869, A.1 and A.3
        (
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            "0b" * 22,
            "",
            "",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)
def test_hkdf(ikm: str, salt: str, info: str, okm: str) -> None:
    assert keys.hkdf(bytes.fromhex(salt), bytes.fromhex(ikm), bytes.fromhex(info), 42).hex() == okm


def test_hkdf_is_a_stream_with_an_end() -> None:
    longest = keys.hkdf(b"salt", b"ikm", b"", 8160)
    assert len(longest) == 8160
    assert keys.hkdf(b"salt", b"ikm", b"", 32) == longest[:32]
    for length in (-1, 8161):
        with pytest.raises(LocalProtocolError):
            keys.hkdf(b"salt", b"ikm", b"", length)


def test_the_purpose_is_four_bytes_little_endian() -> None:
    assert keys.derive(b"ikm", b"salt", 0x0102, 16) == keys.hkdf(b"salt", b"ikm", b"\x02\x01\x00\x00", 16)
    assert keys.derive(b"ikm", b"", 3, 16) == keys.derive(b"ikm", bytes(32), 3, 16)


def test_diffie_hellman() -> None:
    # RFC 5903 §8.1
    private = keys.private_key(bytes.fromhex("c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433"))
    public = keys.parse_point(
        bytes.fromhex(
            "04d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63"
            "56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab"
        )
    )
    shared = "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de"
    assert keys.diffie_hellman(private, public).hex() == shared


def test_private_keys_are_scalars_of_the_group() -> None:
    for scalar in (1, GROUP_ORDER - 1):
        keys.private_key(scalar.to_bytes(32, "big"))
    for scalar in (0, GROUP_ORDER, 2**256 - 1):
        with pytest.raises(LocalProtocolError):
            keys.private_key(scalar.to_bytes(32, "big"))
    for size in (0, 31, 33):
        with pytest.raises(LocalProtocolError):
            keys.private_key(b"\x01" * size)


@pytest.mark.parametrize("key", [CLIENT_IDENTITY.public_key(), PHONE_IDENTITY.public_key()])
def test_points_round_trip(key: keys.PublicKey) -> None:
    assert keys.parse_point(keys.uncompressed(key)) == key
    assert keys.parse_compressed_point(keys.compressed(key)) == key


def bad_points() -> list[bytes]:
    good = keys.uncompressed(CLIENT_IDENTITY.public_key())
    x, y = good[1:33], good[33:]
    return [
        b"",
        b"\x00",  # the point at infinity
        good[:-1],
        good + b"\x00",
        b"\x00" + good[1:],
        bytes([6 + y[-1] % 2]) + good[1:],  # hybrid form
        keys.compressed(CLIENT_IDENTITY.public_key()),
        good[:-1] + bytes([good[-1] ^ 1]),  # off the curve
        b"\x04" + bytes(64),
        b"\x04" + PRIME.to_bytes(32, "big") + y,
        b"\x04" + y + x,
    ]


@pytest.mark.parametrize("data", bad_points())
def test_other_points_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        keys.parse_point(data)


def bad_compressed_points() -> list[bytes]:
    good = keys.compressed(CLIENT_IDENTITY.public_key())
    return [
        b"",
        b"\x00",
        good[:-1],
        good + b"\x00",
        b"\x00" + good[1:],
        b"\x04" + good[1:],
        b"\x02" + (1).to_bytes(32, "big"),  # no y for this x
        b"\x02" + PRIME.to_bytes(32, "big"),
        b"\x02" + b"\xff" * 32,
        keys.uncompressed(CLIENT_IDENTITY.public_key()),
    ]


@pytest.mark.parametrize("data", bad_compressed_points())
def test_other_compressed_points_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        keys.parse_compressed_point(data)
