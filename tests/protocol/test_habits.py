"""Habits as data: which codes a phone serves, and where it leaves in place of an answer."""

from __future__ import annotations

import pytest

from hybrid import cbor
from hybrid.errors import InvalidQR, QRProblem
from hybrid.invitation import invite
from hybrid.protocol.habits import Habits
from hybrid.protocol.qr import QrInvitation, encode_digits

FOUND_NOTHING = 0x2E
NAMED = [{"id": b"id", "type": "public-key"}]


def sign_in(**allowed: object) -> bytes:
    return b"\x02" + cbor.encode({1: "example.com", 2: bytes(32), **{int(key[1:]): v for key, v in allowed.items()}})


def code(key_6: object) -> QrInvitation:
    fields = cbor.decode_map(invite().qr.to_cbor())
    return QrInvitation.parse("FIDO:/" + encode_digits(cbor.encode({**fields, 6: key_6})))


def test_a_list_of_channels_stops_a_phone_that_does_not_take_one() -> None:
    with pytest.raises(InvalidQR) as caught:
        Habits(takes_channel_list=False).check(code([0]))
    assert caught.value.reason is QRProblem.CHANNEL_LIST
    Habits().check(code([0]))


@pytest.mark.parametrize("key_6", [False, True])
def test_the_older_meaning_of_key_6_stops_nobody(key_6: bool) -> None:
    Habits(takes_channel_list=False).check(code(key_6))
    Habits(takes_channel_list=False).check(invite().qr)


def test_a_phone_leaves_in_place_of_a_status() -> None:
    strict = Habits(unanswered=frozenset({0x12, 0x14}))
    assert strict.leaves(b"\x01", 0x12)
    assert strict.leaves(sign_in(), 0x14)
    assert not strict.leaves(b"\x01", 0x11)
    assert not Habits().leaves(b"\x01", 0x12)


@pytest.mark.parametrize(
    ("request_", "status", "leaves"),
    [
        (sign_in(), FOUND_NOTHING, True),
        (sign_in(m3=[]), FOUND_NOTHING, True),
        (sign_in(m3=NAMED), FOUND_NOTHING, False),
        (sign_in(), 0x27, False),
        (sign_in(), 0, False),
        (b"\x01" + sign_in()[1:], FOUND_NOTHING, False),
        (b"\x02", FOUND_NOTHING, True),
        (b"\x02\xff", FOUND_NOTHING, True),
    ],
)
def test_a_phone_leaves_empty_handed_only_when_it_was_to_find_a_passkey_itself(
    request_: bytes, status: int, leaves: bool
) -> None:
    assert Habits(leaves_empty_handed=True).leaves(request_, status) is leaves
    assert not Habits().leaves(request_, status)
