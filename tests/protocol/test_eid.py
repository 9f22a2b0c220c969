"""Adverts: what opens, and what is dropped in silence."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from hybrid import cbor
from hybrid.errors import LocalProtocolError, RemoteProtocolError
from hybrid.protocol.eid import Eid, parse_suffix, seal, suffix_of, trial_open
from tests.protocol.sides import NONCE, ROUTING_ID, secret

KEY = secret("eid key", 64)
PLACE = Eid(NONCE, ROUTING_ID, 1)
ADVERT = seal(PLACE.pack(), KEY)
PLACES = st.builds(
    Eid,
    st.binary(min_size=10, max_size=10),
    st.binary(min_size=3, max_size=3),
    st.integers(0, 1) | st.integers(256, 0xFFFF),
)


def sealed_raw(plaintext: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES256(KEY[:32]), modes.ECB()).encryptor()
    block = encryptor.update(plaintext)
    return block + hmac.digest(KEY[32:], block, hashlib.sha256)[:4]


@given(PLACES, st.binary(max_size=10))
def test_adverts_round_trip(place: Eid, suffix: bytes) -> None:
    service_data = seal(place.pack(), KEY) + suffix
    plaintext = trial_open(service_data, KEY)
    assert plaintext == place.pack()
    assert Eid.unpack(plaintext) == place
    assert suffix_of(service_data) == suffix


def test_layout() -> None:
    packed = Eid(b"n" * 10, b"rid", 0x1234).pack()
    assert packed == b"\x00" + b"n" * 10 + b"rid" + b"\x34\x12"
    assert len(ADVERT) == 20
    assert ADVERT == sealed_raw(PLACE.pack())


@pytest.mark.parametrize("bit", range(160))
def test_any_flipped_bit_opens_to_nothing(bit: int) -> None:
    tampered = bytearray(ADVERT)
    tampered[bit // 8] ^= 1 << bit % 8
    assert trial_open(bytes(tampered), KEY) is None


@given(st.binary(max_size=40))
def test_any_bytes_open_to_nothing(service_data: bytes) -> None:
    assert trial_open(service_data, KEY) is None


@pytest.mark.parametrize("size", range(20))
def test_short_adverts_are_dropped(size: int) -> None:
    assert trial_open(ADVERT[:size], KEY) is None


@pytest.mark.parametrize("flags", [1, 2, 0x80, 0xFF])
def test_reserved_flags_are_dropped(flags: int) -> None:
    # "advertisement", flags byte: must be zero
    assert trial_open(sealed_raw(bytes([flags]) + PLACE.pack()[1:]), KEY) is None


def test_another_key_opens_nothing() -> None:
    assert trial_open(ADVERT, secret("another key", 64)) is None
    assert trial_open(ADVERT, KEY[:32] + secret("another mac key", 32)) is None


def test_the_tag_is_compared_in_constant_time_and_before_decryption(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def refuse(ours: bytes, theirs: bytes) -> bool:
        compared.append((ours, theirs))
        return False

    def never(*_: object) -> None:
        raise AssertionError("decrypted before the tag was checked")

    monkeypatch.setattr("hybrid.protocol.eid.hmac.compare_digest", refuse)
    monkeypatch.setattr("hybrid.protocol.eid.Cipher", never)
    assert trial_open(ADVERT, KEY) is None
    assert compared == [(ADVERT[16:], ADVERT[16:])]


@pytest.mark.parametrize("service_id", [2, 3, 254, 255])
def test_unassigned_service_ids_are_refused(service_id: int) -> None:
    plaintext = Eid(NONCE, ROUTING_ID, service_id).pack()
    with pytest.raises(RemoteProtocolError):
        Eid.unpack(plaintext)
    assert trial_open(seal(plaintext, KEY), KEY) == plaintext  # a linked advert does not carry one


@given(st.binary(max_size=40))
def test_any_plaintext_gives_a_place_or_a_documented_error(plaintext: bytes) -> None:
    try:
        place = Eid.unpack(plaintext)
    except RemoteProtocolError:
        return
    assert len(plaintext) == 16
    assert place.pack()[1:] == plaintext[1:]


@pytest.mark.parametrize(
    "place",
    [
        Eid(bytes(9), bytes(3), 0),
        Eid(bytes(11), bytes(3), 0),
        Eid(bytes(10), bytes(2), 0),
        Eid(bytes(10), bytes(4), 0),
        Eid(bytes(10), bytes(3), -1),
        Eid(bytes(10), bytes(3), 0x10000),
    ],
)
def test_fields_of_other_sizes_are_not_packed(place: Eid) -> None:
    with pytest.raises(LocalProtocolError):
        place.pack()


@pytest.mark.parametrize(
    ("plaintext", "key"),
    [(bytes(15), KEY), (bytes(17), KEY), (b"\x01" + bytes(15), KEY), (bytes(16), KEY[:63]), (bytes(16), KEY + b"\x00")],
)
def test_other_plaintexts_are_not_sealed(plaintext: bytes, key: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        seal(plaintext, key)


@given(st.integers(-5, 2**17) | st.text(max_size=3) | st.booleans() | st.none())
def test_the_suffix_names_a_psm_or_none(value: object) -> None:
    expected = value if type(value) is int and 1 <= value <= 0xFFFF else None
    assert parse_suffix(cbor.encode({1: value})) == expected
    assert parse_suffix(cbor.encode({0: value})) is None


@given(st.binary(max_size=12))
def test_any_suffix_gives_a_psm_or_a_documented_error(suffix: bytes) -> None:
    try:
        psm = parse_suffix(suffix)
    except RemoteProtocolError:
        return
    assert psm is None or 1 <= psm <= 0xFFFF
