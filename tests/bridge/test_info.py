"""getInfo as a table, and what the client reads of it."""

from __future__ import annotations

import json
from typing import Any

import cbor2
import pytest
from fido2.ctap2.base import Info
from hypothesis import given
from hypothesis import strategies as st

from hybrid.errors import RemoteProtocolError
from hybrid.fido2_bridge.info import NAMES, describe_get_info, read_get_info
from tests.bridge.bridge_phone import GET_INFO


def test_members_have_ctaps_names() -> None:
    table = describe_get_info(cbor2.dumps(GET_INFO), ("ctap", "dc"))
    assert table == {
        "versions": ["FIDO_2_0", "FIDO_2_1"],
        "extensions": ["largeBlob", "prf"],
        "aaguid": "f24a8e70-d0d3-f82c-2937-32523cc4de5a",
        "options": {"rk": True, "uv": True},
        "transports": ["internal", "cable"],
        "features": ["ctap", "dc"],
    }
    assert list(table)[:3] == ["versions", "extensions", "aaguid"]


def test_every_member_that_python_fido2_knows_has_a_name() -> None:
    known = len(Info.__dataclass_fields__)
    assert sorted(NAMES) == list(range(1, known + 1))
    named = {number: name.lower() for number, name in NAMES.items()}
    assert (named[5], named[10], named[13], named[20]) == (
        "maxmsgsize",
        "algorithms",
        "minpinlength",
        "remainingdiscoverablecredentials",
    )
    assert (NAMES[0x1F], NAMES[0x16]) == ("authenticatorConfigCommands", "attestationFormats")


def test_bytes_are_base64url_and_unknown_members_stay_under_their_number() -> None:
    members: dict[Any, Any] = {
        3: b"short",
        0x19: b"\xff\xfe",
        99: {1: b"\xff", b"\xff": [None, cbor2.undefined, cbor2.CBORSimpleValue(99)]},
        -1: float("nan"),
        "vendor": 1.5,
        "versions": "not the versions",
        1: [],
    }
    table = describe_get_info(cbor2.dumps(members), ())
    assert table["aaguid"] == "c2hvcnQ"
    assert table["encIdentifier"] == "__4"
    assert table["99"] == {"1": "_w", "_w": [None, "undefined", "99"]}
    assert (table["-1"], table["vendor"], table["versions"]) == ("nan", 1.5, [])
    json.dumps(table, allow_nan=False)


def test_the_client_reads_extensions_and_transports() -> None:
    info = read_get_info(cbor2.dumps(GET_INFO))
    assert info.extensions == {"largeBlob", "prf"}
    assert info.transports == ("hybrid", "internal")
    assert read_get_info(b"\xa0").transports == ("hybrid",)


@pytest.mark.parametrize("members", [{2: "prf"}, {2: [1]}, {9: {}}, {9: [b"internal"]}])
def test_lists_of_the_wrong_type_are_a_protocol_error(members: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        read_get_info(cbor2.dumps(members))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff", b"\xa1\x01", b"\xa0\x00"])
def test_what_is_no_map_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_get_info(data)
    with pytest.raises(RemoteProtocolError):
        describe_get_info(data, ())


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda data: b"\xa2\x01" + data))
def test_any_bytes_make_a_json_table_or_a_protocol_error(data: bytes) -> None:
    try:
        table = describe_get_info(data, ("ctap",))
    except RemoteProtocolError:
        return
    json.dumps(table, allow_nan=False)
