"""The relay's HTTP, as a stranger with raw sockets would try it: each status, and each way not to be a request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .probe_rig import ACCEPT, BINARY, HEADERS, Ended, RelayProcess, frame, new_path, request, running, tunnel_id, works
from .tls import Certificate

A = 32 * "a"
WITH_TLS = pytest.mark.parametrize("relay", ["plain", "tls"], indirect=True)


@pytest.fixture(scope="module")
def plain() -> Iterator[RelayProcess]:
    with running() as relay:
        yield relay


@pytest.fixture(scope="module")
def over_tls(certificate: Certificate) -> Iterator[RelayProcess]:
    files = ("--cert", str(certificate.cert), "--key", str(certificate.key))
    with running(*files, tls=certificate.client_context()) as relay:
        yield relay


@pytest.fixture
def relay(request: pytest.FixtureRequest) -> Iterator[RelayProcess]:
    wanted = getattr(request, "param", "plain")
    relay: RelayProcess = request.getfixturevalue("plain" if wanted == "plain" else "over_tls")
    yield relay
    relay.close_all()


@WITH_TLS
def test_the_answer_to_a_new_tunnel(relay: RelayProcess) -> None:
    peer = relay.peer()
    answer = peer.ask(new_path(tunnel_id()), Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits")
    assert answer.status == 101
    assert answer.one("sec-websocket-accept") == ACCEPT
    assert answer.one("upgrade").lower() == "websocket"
    assert answer.one("connection").lower() == "upgrade"
    assert answer.one("sec-websocket-protocol") == "fido.cable"
    assert len(bytes.fromhex(answer.one("x-cable-routing-id"))) == 3
    assert len(answer.one("x-cable-routing-id")) == 6
    assert not set(answer.headers) & {"sec-websocket-extensions", "content-length", "transfer-encoding"}


@WITH_TLS
def test_the_answer_to_a_join(relay: RelayProcess) -> None:
    tunnel = tunnel_id()
    _, routing_id = relay.owner(tunnel)
    answer = relay.peer().ask(f"/cable/connect/{routing_id}/{tunnel}")
    assert answer.status == 101
    assert answer.one("sec-websocket-accept") == ACCEPT
    assert answer.one("sec-websocket-protocol") == "fido.cable"
    assert "x-cable-routing-id" not in answer.headers


@WITH_TLS
def test_a_whole_tunnel(relay: RelayProcess) -> None:
    works(relay)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/healthz", 404),
        ("/cable", 404),
        ("/cable/", 404),
        ("/cable/old/" + A, 404),
        ("/CABLE/new/" + A, 404),
        ("//cable/new/" + A, 404),
        ("/cable/connect/ffffff/" + A, 404),
        ("/cable/new", 400),
        ("/cable/new/", 400),
        ("/cable/new/" + A[1:], 400),
        ("/cable/new/" + A + "a", 400),
        ("/cable/new/" + A + "aa", 400),
        ("/cable/new/g" + A[1:], 400),
        ("/cable/new/ " + A[1:], 400),
        ("/cable/new/+" + A[1:], 400),
        ("/cable/new/%61" + A[1:], 400),
        ("/cable/new/" + A + "/", 400),
        ("/cable/new/" + A + "?", 400),
        ("/cable/new/" + A + "#x", 400),
        ("/cable/new/../new/" + A, 400),
        ("/cable/connect/" + A, 400),
        ("/cable/connect/00000/" + A, 400),
        ("/cable/connect/0000000/" + A, 400),
        ("/cable/connect/00000g/" + A, 400),
        ("/cable/connect/000000/", 400),
        ("/cable/connect/000000/" + A[1:], 400),
        ("/cable/contact/", 400),
        ("/cable/contact/AAAA", 503),
    ],
)
def test_paths(relay: RelayProcess, path: str, status: int) -> None:
    peer = relay.peer()
    answer = peer.ask(path)
    assert answer.status == status
    assert (status == 503) == ("retry-after" in answer.headers)
    assert answer.one("connection").lower() == "close"
    body = peer.until_end()
    assert len(body) == int(answer.one("content-length"))


@pytest.mark.parametrize(
    ("changes", "statuses"),
    [
        ({"Sec_WebSocket_Protocol": None}, {400}),
        ({"Sec_WebSocket_Protocol": "other"}, {400}),
        ({"Sec_WebSocket_Protocol": ""}, {400}),
        ({"Sec_WebSocket_Protocol": "Fido.Cable"}, {400}),
        ({"Sec_WebSocket_Protocol": "fido.cable.2"}, {400}),
        ({"Sec_WebSocket_Protocol": "fido.cable other"}, {400}),
        ({"Sec_WebSocket_Protocol": "a, fido.cable"}, {101}),
        ({"Sec_WebSocket_Protocol": "fido.cable,b ,  c"}, {101}),
        ({"Sec_WebSocket_Protocol": "a\r\nSec-WebSocket-Protocol: fido.cable"}, {101}),
        ({"Sec_WebSocket_Protocol": "\t fido.cable \t"}, {101}),
        ({"Sec_WebSocket_Version": None}, {426}),
        ({"Sec_WebSocket_Version": "8"}, {426}),
        ({"Sec_WebSocket_Version": "14"}, {426}),
        ({"Upgrade": None}, {400, 426}),
        ({"Upgrade": "h2c"}, {400, 426}),
        ({"Upgrade": "WebSocket"}, {101}),
        ({"Connection": None}, {400, 426}),
        ({"Connection": "keep-alive"}, {400, 426}),
        ({"Connection": "keep-alive, Upgrade"}, {101}),
        ({"Connection": "upgrade"}, {101}),
        ({"Sec_WebSocket_Key": None}, {400}),
        ({"Sec_WebSocket_Key": ""}, {400}),
        ({"Sec_WebSocket_Key": "c2hvcnQ="}, {400}),
        ({"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZSEhISE="}, {400}),
        ({"Sec_WebSocket_Key": "!!!!IHNhbXBsZSBub25jZQ=="}, {400}),
        ({"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, {400}),
        ({"Host": None}, {400}),
        ({"Host": "one\r\nHost: two"}, {400}),
        ({"Content_Length": "3"}, {400}),
        ({"Transfer_Encoding": "chunked"}, {400}),
        ({"X": "a\x00b"}, {400}),
        ({"X": "a\rb"}, {400}),
        ({"X": "a\r\n folded"}, {400}),
        ({"X ": "space before the colon"}, {400}),
        ({"": "no name"}, {400}),
        ({"X(": "no token"}, {400}),
        ({"X": "a\r\nno colon"}, {400}),
        ({"X": "caf\xe9"}, {101, 400}),  # obsolete text: legal to take
        ({"Origin": "https://anybody.example"}, {101}),
        ({"Cookie": "a=b", "User_Agent": "x"}, {101}),
        ({"version": "HTTP/1.0"}, {400, 426, 505}),
        ({"version": "HTTP/2.0"}, {400, 505}),
        ({"version": "HTTP/1.1 "}, {400}),
        ({"version": "http/1.1"}, {400}),
        ({"method": "POST"}, {405}),
        ({"method": "HEAD"}, {405}),
        ({"method": "OPTIONS"}, {405}),
        ({"method": "G\x00T"}, {400}),
    ],
    ids=repr,
)
def test_requests(relay: RelayProcess, changes: dict[str, Any], statuses: set[int]) -> None:
    peer = relay.peer()
    answer = peer.ask(new_path(tunnel_id()), **changes)
    assert answer.status in statuses
    if answer.status != 101:
        assert answer.one("connection").lower() == "close"
        peer.until_end()  # and it does end
    if answer.status == 405:
        assert answer.one("allow") == "GET"
    if answer.status == 426:
        assert answer.one("sec-websocket-version") == "13"


@pytest.mark.parametrize(
    "junk",
    [
        b"\r\n\r\n",
        b"\n\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /cable/new/" + A.encode() + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        bytes.fromhex("1603010005010000010000") + b"\r\n\r\n",
        bytes(range(256)) + b"\r\n\r\n",
        b"\xff" * 9000,
        b"\r\n" * 5000,
        b"GET " + b"/" * 9000,
    ],
    ids=lambda junk: repr(junk[:12]),
)
def test_junk_is_answered_or_cut(relay: RelayProcess, junk: bytes) -> None:
    peer = relay.peer()
    peer.send(junk)
    try:
        assert peer.answer().status in (400, 404, 431, 505)
    except Ended:
        return
    peer.until_end()


@pytest.mark.parametrize(("size", "statuses"), [(8192, {101}), (8193, {400, 431}), (300_000, {400, 431})])
def test_size_of_a_head(relay: RelayProcess, size: int, statuses: set[int]) -> None:
    missing = size - len(request(new_path(A), X=""))
    head = request(new_path(tunnel_id()), X="x" * missing)
    assert len(head) == size
    peer = relay.peer()
    peer.send(head)
    assert peer.answer().status in statuses


def test_a_head_that_never_ends_is_cut_at_its_limit(relay: RelayProcess) -> None:
    peer = relay.peer()
    peer.send(request(new_path(A))[:-2], b"X: " + b"x" * 8192)
    assert peer.answer().status in (400, 431)
    peer.until_end()


@WITH_TLS
def test_a_head_byte_by_byte(relay: RelayProcess) -> None:
    peer = relay.peer()
    for byte in request(new_path(tunnel_id())):
        peer.send(bytes([byte]))
    assert peer.answer().status == 101


@WITH_TLS
def test_frames_right_behind_the_head(relay: RelayProcess) -> None:
    tunnel = tunnel_id()
    owner = relay.peer()
    owner.send(request(new_path(tunnel)), frame(BINARY, b"one"), frame(BINARY, b"two")[:3])
    routing_id = owner.answer().one("x-cable-routing-id")
    guest = relay.peer()
    guest.send(request(f"/cable/connect/{routing_id}/{tunnel}"), frame(BINARY, b"three"))
    assert guest.answer().status == 101
    assert guest.message() == b"one"
    assert owner.message() == b"three"
    owner.send(frame(BINARY, b"two")[3:])
    assert guest.message() == b"two"


def test_names_of_headers_have_no_case(relay: RelayProcess) -> None:
    head = request(new_path(tunnel_id()))
    for name, _ in HEADERS:
        head = head.replace(f"{name}:".encode(), f"{name.upper()}:".encode())
    peer = relay.peer()
    peer.send(head)
    assert peer.answer().status == 101


def test_a_second_request_on_a_refused_connection_gets_nothing(relay: RelayProcess) -> None:
    peer = relay.peer()
    peer.send(request("/"), request(new_path(tunnel_id())))
    assert peer.answer().status == 404
    assert b"HTTP/1.1" not in peer.until_end()


def test_origins() -> None:
    with running("--origin", "https://good.example") as relay:
        for origin, status in (
            (None, 101),
            ("https://good.example", 101),
            ("https://bad.example", 403),
            ("https://good.example.bad.example", 403),
            ("null", 403),
            ("", 403),
        ):
            assert relay.status(new_path(tunnel_id()), Origin=origin) == status, origin
