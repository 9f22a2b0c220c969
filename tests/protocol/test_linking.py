"""Linking information, its proof, and updates whose size tells nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid import cbor
from hybrid.errors import LocalProtocolError, RemoteProtocolError
from hybrid.protocol.frames import Frame, MessageType, Sealer, pad
from hybrid.protocol.keys import compressed, uncompressed
from hybrid.protocol.linking import (
    Link,
    decode_update,
    encode_update,
    linking_map,
    proof,
    random_eid,
    verify_linking_map,
)
from tests.protocol.sides import CLIENT_IDENTITY, CLIENT_NONCE, PHONE_IDENTITY, a_link, key, link_offer, secret

HASH = secret("handshake hash", 32)
GOOD: dict[Any, Any] = cbor.decode(link_offer(HASH))


def verified(fields: dict[Any, Any], handshake_hash: bytes = HASH) -> Link:
    return verify_linking_map(fields, CLIENT_IDENTITY, handshake_hash, 1)


def test_a_good_map_becomes_a_link() -> None:
    assert verified(GOOD) == a_link(service_id=1)
    assert verified({**GOOD, 999: True}) == a_link(service_id=1)


def test_both_sides_compute_the_same_proof() -> None:
    theirs = proof(PHONE_IDENTITY, CLIENT_IDENTITY.public_key(), HASH)
    assert theirs == proof(CLIENT_IDENTITY, PHONE_IDENTITY.public_key(), HASH)
    assert len(theirs) == 32


def good_but(**change: Any) -> list[dict[Any, Any]]:
    return [{**GOOD, int(name[1:]): value} for name, values in change.items() for value in values]


@pytest.mark.parametrize(
    "fields",
    good_but(
        k1=[b"", "contact", None, 1],
        k2=[bytes(7), bytes(9), b"", "12345678", None],
        k3=[bytes(31), bytes(33), b"", None, [1]],
        k4=[
            compressed(PHONE_IDENTITY.public_key()),
            GOOD[4][:-1],
            GOOD[4] + b"\x00",
            b"\x06" + GOOD[4][1:],
            b"\x04" + bytes(64),
            uncompressed(key("somebody else").public_key()),
            None,
        ],
        k5=[b"a phone", 1, None],
        k6=[bytes(32), GOOD[6][:-1], GOOD[6] + b"\x00", GOOD[6][:31] + bytes([GOOD[6][31] ^ 1]), b"", "x" * 32, None],
    )
    + [{name: value for name, value in GOOD.items() if name != gone} for gone in GOOD],
)
def test_wrong_maps_are_refused(fields: dict[Any, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        verified(fields)


def test_a_proof_is_good_for_one_session_and_one_client() -> None:
    with pytest.raises(RemoteProtocolError):
        verified(GOOD, secret("another session", 32))
    with pytest.raises(RemoteProtocolError):
        verify_linking_map(GOOD, key("another client"), HASH, 0)


def test_a_map_signed_by_somebody_else_is_refused() -> None:
    forged = cbor.decode(linking_map(a_link(), key("thief"), CLIENT_IDENTITY.public_key(), HASH))
    assert verify_linking_map(forged, CLIENT_IDENTITY, HASH, 0).public_key != PHONE_IDENTITY.public_key()
    with pytest.raises(RemoteProtocolError):
        verified({**forged, 4: GOOD[4]})


def test_the_proof_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(
        "hybrid.protocol.linking.hmac.compare_digest", lambda ours, theirs: compared.append((ours, theirs))
    )
    with pytest.raises(RemoteProtocolError):
        verified(GOOD)
    assert compared == [(GOOD[6], GOOD[6])]


VALUES = st.none() | st.booleans() | st.integers(-5, 5) | st.binary(max_size=70) | st.text(max_size=5)


@given(st.dictionaries(st.integers(0, 7) | st.text(max_size=1), VALUES))
def test_any_map_gives_a_link_or_a_documented_error(change: dict[Any, Any]) -> None:
    try:
        verified({**GOOD, **change})
    except RemoteProtocolError:
        return
    assert all(change.get(name, GOOD[name]) == GOOD[name] for name in (4, 6))


# --- updates


def test_an_update_without_linking_has_the_size_of_one_with() -> None:
    empty, full = encode_update(None), encode_update(link_offer(HASH))
    assert b"\x02" + empty == bytes.fromhex("02a1005901f9") + bytes(505)  # accepted by Chromium
    assert decode_update(empty) is None
    assert decode_update(full) == GOOD
    for payload in (empty, full):
        message = Frame(MessageType.UPDATE, payload).encode()
        assert len(pad(message)) == 512
        assert len(Sealer(bytes(32)).seal(message)) == 528


@pytest.mark.parametrize("size", range(491))
def test_an_update_has_one_size_whatever_it_carries(size: int) -> None:
    carried = cbor.encode({1: bytes(size)})
    payload = encode_update(carried)
    assert cbor.encode(decode_update(payload)) == carried
    assert len(pad(Frame(MessageType.UPDATE, payload).encode())) == 512


def test_a_map_that_does_not_fit_is_not_sent() -> None:
    with pytest.raises(LocalProtocolError):
        encode_update(cbor.encode({1: bytes(510)}))


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x80", b"\x00", b"\xa1\x01", b"\xa0\x00", b"\xa1\x01\x80", b"\xa1\x01\x40", b"\xa2\x00\x40\x00\x40"],
)
def test_other_updates_are_refused(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_update(payload)


def test_unknown_keys_of_an_update_are_ignored() -> None:
    assert decode_update(cbor.encode({0: bytes(3), 7: "new", "x": 1})) is None


@given(st.binary(max_size=60))
def test_any_update_gives_a_map_or_a_documented_error(payload: bytes) -> None:
    try:
        decode_update(payload)
    except RemoteProtocolError:
        return


# --- linked adverts


def test_a_linked_advert_never_ends_with_zero() -> None:
    assert random_eid(bytes(14) + b"\x01") == bytes(15) + b"\x01"
    for random in (bytes(15), b"x" * 14 + b"\x00", b"x" * 14, b"x" * 16, b""):
        with pytest.raises(LocalProtocolError):
            random_eid(random)


def test_secrets_of_a_contact() -> None:
    link = a_link()
    assert len(link.eid_key(CLIENT_NONCE)) == 64
    assert link.eid_key(CLIENT_NONCE) != link.eid_key(bytes(16))
    assert link.psk(bytes(16)) != link.psk(bytes(15) + b"\x01")
    for size in (0, 15, 17):
        with pytest.raises(LocalProtocolError):
            link.eid_key(bytes(size))
    assert repr(link) == str(link) == "<Link>"
