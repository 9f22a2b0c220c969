"""The client payload of a contact request."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid import cbor
from hybrid.errors import LocalProtocolError, RemoteProtocolError
from hybrid.protocol.contact import ClientPayload

GOOD: dict[Any, Any] = {1: bytes(8), 2: bytes(16), 3: "ga"}


def parsed(fields: dict[Any, Any]) -> ClientPayload:
    return ClientPayload.parse_header(cbor.encode(fields).hex())


@given(st.binary(min_size=8, max_size=8), st.binary(min_size=16, max_size=16), st.text(max_size=5), st.booleans())
def test_payloads_round_trip(link_id: bytes, nonce: bytes, hint: str, lower: bool) -> None:
    payload = ClientPayload(link_id, nonce, hint)
    header = payload.to_header()
    assert header == header.upper()
    assert ClientPayload.parse_header(header.lower() if lower else header) == payload


@pytest.mark.parametrize(
    "payload",
    [
        ClientPayload(bytes(7), bytes(16), "ga"),
        ClientPayload(bytes(9), bytes(16), "ga"),
        ClientPayload(bytes(8), bytes(15), "ga"),
        ClientPayload(bytes(8), bytes(17), "ga"),
    ],
)
def test_other_sizes_are_not_written(payload: ClientPayload) -> None:
    with pytest.raises(LocalProtocolError):
        payload.to_header()


@pytest.mark.parametrize(
    "change",
    [
        {1: bytes(7)},
        {1: bytes(9)},
        {1: "12345678"},
        {1: None},
        {2: bytes(15)},
        {2: bytes(17)},
        {2: 1},
        {3: b"ga"},
        {3: 1},
        {3: None},
    ],
)
def test_wrong_members_are_refused(change: dict[int, object]) -> None:
    assert parsed({**GOOD, 4: "new"}) == parsed(GOOD)
    with pytest.raises(RemoteProtocolError):
        parsed({**GOOD, **change})


@pytest.mark.parametrize("key", [1, 2, 3])
def test_missing_members_are_refused(key: int) -> None:
    with pytest.raises(RemoteProtocolError):
        parsed({name: value for name, value in GOOD.items() if name != key})


@given(st.text(max_size=80) | st.binary(max_size=60).map(bytes.hex))
def test_any_header_gives_a_payload_or_a_documented_error(header: str) -> None:
    try:
        ClientPayload.parse_header(header)
    except RemoteProtocolError:
        return
