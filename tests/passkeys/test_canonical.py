"""The look over a request's bytes agrees with the encoder about what is canonical."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid import cbor
from hybrid.errors import RemoteProtocolError
from hybrid.passkeys.canonical import MAX_ITEMS, check_canonical
from hybrid.passkeys.rejected import Rejected
from hybrid.protocol.ctap import Status


def passes(data: bytes, *, lenient: bool = False) -> bool:
    try:
        check_canonical(data, lenient=lenient)
    except Rejected as rejected:
        return rejected.status is not Status.INVALID_CBOR  # any other would be a mistake, and fails the test
    return True


GOOD = {
    "zero": "00",
    "23": "17",
    "24": "1818",
    "256": "190100",
    "65536": "1a00010000",
    "2^32": "1b0000000100000000",
    "minus 1": "20",
    "minus 25": "3818",
    "false, true, null": "83f4f5f6",
    "integers, then bytes, then text": "a5 0000 2000 4100 00 6161 00 626161 00",
    "8 maps deep": "a100" * 7 + "a0",
    "8 arrays deep": "81" * 7 + "80",
}

BAD = {
    "nothing": "",
    "long 0": "1800",
    "long 23": "1817",
    "long 24": "190018",
    "long 255": "1900ff",
    "long 65535": "1a0000ffff",
    "long 2^32 - 1": "1b00000000ffffffff",
    "long length": "780161",
    "cut head": "19",
    "cut length": "1901",
    "cut text": "6261",
    "cut array": "8200",
    "cut map": "a100",
    "cut key": "a1",
    "not UTF-8": "62c328",
    "surrogate": "63eda080",
    "reserved length": "1c",
    "indefinite bytes": "5f4100ff",
    "indefinite text": "7f6161ff",
    "indefinite array": "9fff",
    "indefinite map": "bfff",
    "break": "ff",
    "tag": "c000",
    "undefined": "f7",
    "unassigned simple": "f0",
    "simple in two bytes": "f8f5",
    "half": "f93c00",
    "single": "fa3f800000",
    "double": "fb3ff0000000000000",
    "unsorted": "a201000000",
    "unsorted types": "a220000000",
    "text before bytes": "a26161004100 00",
    "longer text first": "a2626161006162 00",
    "twice": "a200000000",
    "key is an array": "a18000",
    "key is true": "a1f500",
    "after": "0000",
    "9 maps deep": "a100" * 8 + "a0",
    "9 arrays deep": "81" * 8 + "80",
    "unsorted deep inside": "8181a201000000",
    "claims 2^64 items": "9bffffffffffffffff",
    "claims 2^64 bytes": "5bffffffffffffffff",
}


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD.keys())
def test_canonical(data: str) -> None:
    assert passes(bytes.fromhex(data))


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_not_canonical(data: str) -> None:
    assert not passes(bytes.fromhex(data))


def test_lenient_takes_unsorted_keys_and_nothing_else() -> None:
    lenient = {name for name, data in BAD.items() if passes(bytes.fromhex(data), lenient=True)}
    assert lenient == {"unsorted", "unsorted types", "text before bytes", "longer text first", "unsorted deep inside"}


def test_too_many_items() -> None:
    assert passes(b"\x99" + (MAX_ITEMS - 1).to_bytes(2, "big") + bytes(MAX_ITEMS - 1))
    assert not passes(b"\x99" + MAX_ITEMS.to_bytes(2, "big") + bytes(MAX_ITEMS))


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.text(max_size=30) | st.binary(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.integers(-300, 300) | st.text(max_size=3) | st.binary(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(value=_values)
def test_what_the_encoder_makes_passes(value: object) -> None:
    data = cbor.encode(value)
    try:
        cbor.decode(data)
    except RemoteProtocolError:
        assert not passes(data)  # too deep
    else:
        assert passes(data)


@given(data=st.binary(max_size=40))
def test_what_passes_is_its_own_encoding(data: bytes) -> None:
    if passes(data):
        assert cbor.encode(cbor.decode(data)) == data


@given(value=_values, at=st.integers(0, 60), byte=st.integers(0, 255))
def test_what_passes_after_a_change_is_its_own_encoding(value: object, at: int, byte: int) -> None:
    data = bytearray(cbor.encode(value))
    data[at % len(data)] = byte
    if passes(bytes(data)):
        assert cbor.encode(cbor.decode(bytes(data))) == data
