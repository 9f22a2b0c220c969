"""For whom a proxy speaks."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_server.client_address import (
    BadForwardedFor,
    BadProxyHeader,
    Network,
    is_in,
    read_forwarded_for,
    read_proxy_header,
)

# A header of HAProxy's documentation (proxy-protocol.txt, section 2.2): signature, PROXY, TCP over IPv4, 12 bytes.
SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
IPV4 = SIGNATURE + bytes.fromhex("2111000c c0000201 cb007105 d431 01bb")
IPV6 = SIGNATURE + b"\x21\x21" + struct.pack("!H", 36) + ipaddress.ip_address("2001:db8::7").packed + bytes(20)
PROXIES: list[Network] = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (IPV4, (28, "192.0.2.1")),
        (IPV4 + b"GET", (28, "192.0.2.1")),
        (IPV6, (52, "2001:db8::7")),
        (IPV4[:14] + b"\x00\x0f" + IPV4[16:] + b"\x04\x00\x00", (31, "192.0.2.1")),  # with an extension
        (SIGNATURE + b"\x20\x00\x00\x00", (16, None)),  # for itself
        (SIGNATURE + b"\x20\x11\x00\x0c" + bytes(12), (28, None)),
        (SIGNATURE + b"\x21\x00\x00\x00", (16, None)),  # for something that has no address
        (SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216), (232, None)),
    ],
)
def test_good_headers(data: bytes, expected: tuple[int, str | None]) -> None:
    assert read_proxy_header(data) == expected
    for size in range(expected[0]):
        assert read_proxy_header(data[:size]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 192.0.2.1 203.0.113.5 54321 443\r\n",  # version 1
        SIGNATURE[:11] + b"\x0b",
        SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\x00\x0b" + bytes(12),
        SIGNATURE + b"\x21\x21\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_bad_headers(data: bytes) -> None:
    with pytest.raises(BadProxyHeader):
        read_proxy_header(data)


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    for whole in (data, SIGNATURE + data):
        try:
            found = read_proxy_header(whole)
        except BadProxyHeader:
            continue
        assert found is None or found[0] <= len(whole)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([], None),
        ([b"203.0.113.9"], "203.0.113.9"),
        ([b"1.1.1.1", b"203.0.113.9"], "203.0.113.9"),  # what the client wrote itself does not count
        ([b"203.0.113.9", b"10.1.2.3", b"fd00::1"], "203.0.113.9"),
        ([b"10.1.2.3"], None),
        ([b"nonsense", b"2001:db8::1"], "2001:db8::1"),
        ([b"203.0.113.9:49152"], "203.0.113.9"),
        ([b"[2001:db8::1]:49152"], "2001:db8::1"),
        ([b"[2001:db8::1]", b"10.0.0.1:80"], "2001:db8::1"),
    ],
)
def test_forwarded_for(members: list[bytes], expected: str | None) -> None:
    assert read_forwarded_for(members, PROXIES) == expected


@pytest.mark.parametrize(
    "member",
    [
        b"unknown",
        b"",
        b"203.0.113.9:",
        b"203.0.113.9:1:2",
        b"[2001:db8::1",
        b"[]:1",
        b"[x]",
        b"2001:db8::1]:1",
        b"\xff",
        b"1.2.3",
    ],
)
def test_forwarded_for_nobody(member: bytes) -> None:
    with pytest.raises(BadForwardedFor):
        read_forwarded_for([member], PROXIES)


def test_networks() -> None:
    assert is_in("10.200.0.1", PROXIES)
    assert is_in("::ffff:10.200.0.1", PROXIES)
    assert is_in("fd12::1%eth0", PROXIES)
    assert not is_in("11.0.0.1", PROXIES)
    assert not is_in("fe80::1", PROXIES)
