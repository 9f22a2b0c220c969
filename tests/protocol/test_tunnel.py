"""Tunnel service grammar: domains, paths, headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid.errors import LocalProtocolError, RemoteProtocolError
from hybrid.protocol.tunnel import (
    Connect,
    Contact,
    New,
    Target,
    TunnelRequest,
    is_status_gone,
    parse_hex,
    parse_path,
    parse_routing_id,
    path_of,
    tunnel_domain,
)
from tests.protocol.sides import ROUTING_ID, TUNNEL_ID

TARGETS = (
    st.builds(New, st.binary(min_size=16, max_size=16))
    | st.builds(Connect, st.binary(min_size=3, max_size=3), st.binary(min_size=16, max_size=16))
    | st.builds(Contact, st.binary(min_size=1, max_size=200))
)
HEX_16 = "00112233445566778899AABBCCDDEEFF"


@given(st.integers(256, 0xFFFF))
def test_every_hashed_id_has_a_name(service_id: int) -> None:
    cable, label, tld = tunnel_domain(service_id).split(".")
    assert cable == "cable"
    assert 0 < len(label) <= 13
    assert set(label) <= set("abcdefghijklmnopqrstuvwxyz234567")
    assert tld in ("com", "org", "net", "info")


@pytest.mark.parametrize("service_id", [-1, 2, 3, 255, 0x10000])
def test_unassigned_ids_have_none(service_id: int) -> None:
    with pytest.raises(RemoteProtocolError):
        tunnel_domain(service_id)


@given(TARGETS, st.booleans())
def test_what_is_written_is_read(target: Target, lower: bool) -> None:
    path = path_of(target)
    if lower and not isinstance(target, Contact):
        path = path.lower()
    assert parse_path(path) == target


@given(st.text(max_size=80) | st.from_regex(r"/cable/(new|connect|contact)/[0-9a-fA-F/=_-]*", fullmatch=True))
def test_any_path_gives_a_target_or_a_documented_error(path: str) -> None:
    try:
        target = parse_path(path)
    except RemoteProtocolError:
        return
    assert path_of(target).lower() == path.lower()


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/cable/new",
        f"/cable/new/{HEX_16}/",
        f"/cable/new/{HEX_16}?x=1",
        f"/cable/new/{HEX_16[2:]}",
        f"/cable/new/{HEX_16}00",
        f"/cable/new/ {HEX_16[1:]}",
        f"/cable/new/{HEX_16[:-1]}g",
        "/cable/new/" + "\N{FULLWIDTH DIGIT ONE}" * 32,
        f"/cable/connect/{HEX_16}",
        f"/cable/connect/A930/{HEX_16}",
        f"/cable/connect/A930D700/{HEX_16}",
        f"/cable/connect/A930D7/{HEX_16[2:]}",
        f"//cable/new/{HEX_16}",
        f"/CABLE/new/{HEX_16}",
        "/cable/contact/",
        "/cable/contact/-_-_=",
        "/cable/contact/AA==",
        "/cable/contact/A",
        "/cable/contact/AB",  # stray bits
        "/cable/contact/AA+/",
        "/cable/contact/AA\n",
    ],
)
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_path(path)


@pytest.mark.parametrize(
    "target",
    [New(b""), New(bytes(15)), New(bytes(17)), Connect(bytes(2), bytes(16)), Connect(bytes(3), b""), Contact(b"")],
)
def test_ids_of_other_sizes_are_not_written(target: Target) -> None:
    with pytest.raises(LocalProtocolError):
        path_of(target)


@pytest.mark.parametrize("text", ["0", "0g", " 0", "0x", "\N{ARABIC-INDIC DIGIT ONE}" * 2, "00\n"])
def test_hex_is_nothing_but_hex(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_hex(text)


def test_routing_id() -> None:
    assert parse_routing_id(["A930d7"]) == bytes.fromhex("a930d7")
    for headers in ([], ["A930D7", "A930D7"], ["A930"], ["A930D700"], ["A930DG"], ["A9 30 D7"], [""]):
        with pytest.raises(RemoteProtocolError):
            parse_routing_id(headers)


def test_request() -> None:
    request = TunnelRequest("cable.ua5v.com", Connect(ROUTING_ID, TUNNEL_ID))
    assert request.url == f"wss://cable.ua5v.com/cable/connect/{ROUTING_ID.hex().upper()}/{TUNNEL_ID.hex().upper()}"
    assert request.headers() == {}
    contact = TunnelRequest("cable.ua5v.com", Contact(b"\xfb\xff\xbf\xfe"), client_payload="A0", signal=True)
    assert contact.url == "wss://cable.ua5v.com/cable/contact/-_-__g"
    assert contact.headers() == {"X-caBLE-Client-Payload": "A0", "X-caBLE-Signal-Connection": "true"}


def test_only_410_on_contact_deletes_a_link() -> None:
    assert is_status_gone(410, Contact(b"x"))
    assert not is_status_gone(410, Connect(ROUTING_ID, TUNNEL_ID))
    assert not is_status_gone(410, New(TUNNEL_ID))
    assert not any(is_status_gone(status, Contact(b"x")) for status in (400, 403, 404, 409, 500, 503))
