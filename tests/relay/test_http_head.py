"""One request head: what is a good one, and where two readers could see two requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybrid.protocol.tunnel import Connect, New
from tunnel_server.http_head import MAX_HEAD_SIZE, Refusal, Request, accept, find_end, members, read_head, refuse

TUNNEL_ID = bytes(range(16))
PATH = b"/cable/new/" + TUNNEL_ID.hex().encode()
LINES = {
    b"Host": b"cable.example.com",
    b"Upgrade": b"websocket",
    b"Connection": b"Upgrade",
    b"Sec-WebSocket-Key": b"dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version": b"13",
    b"Sec-WebSocket-Protocol": b"fido.cable",
}


def head(
    *more: bytes, first: bytes = b"GET " + PATH + b" HTTP/1.1", without: bytes = b"", end: bytes = b"\r\n"
) -> bytes:
    lines = [name + b": " + value for name, value in LINES.items() if name != without]
    return end.join([first, *lines, *more, b"", b""])


def status(data: bytes) -> int:
    """101 for a good request."""
    result = read_head(data)
    return result.status if isinstance(result, Refusal) else 101


def test_a_good_request() -> None:
    request = read_head(head(b"Accept-Language: de,\ten", b"x-empty:", b"X-Twice: a", b"x-twice:\tb \t"))
    assert isinstance(request, Request)
    assert request.target == New(TUNNEL_ID)
    assert request.key == b"dGhlIHNhbXBsZSBub25jZQ=="
    assert request.headers[b"host"] == [b"cable.example.com"]
    assert request.headers[b"accept-language"] == [b"de,\ten"]
    assert request.headers[b"x-empty"] == [b""]
    assert request.headers[b"x-twice"] == [b"a", b"b"]
    assert TUNNEL_ID.hex() not in repr(request).lower()


def test_the_answer_of_the_standard() -> None:
    """RFC 6455 section 1.3."""
    answer = accept(b"dGhlIHNhbXBsZSBub25jZQ==", None)
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert b"Routing" not in answer
    assert b"\r\nX-caBLE-Routing-ID: 0A0B0C\r\n\r\n" in accept(b"dGhlIHNhbXBsZSBub25jZQ==", b"\x0a\x0b\x0c")


def test_a_refusal_is_one_line_of_text() -> None:
    answer = refuse(429, (("Retry-After", "5"),))
    top, body = answer.split(b"\r\n\r\n")
    assert body == b"429 Too Many Requests\n"
    assert top.split(b"\r\n") == [
        b"HTTP/1.1 429 Too Many Requests",
        b"Retry-After: 5",
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: 22",
        b"Cache-Control: no-store",
        b"Connection: close",
    ]


def test_a_method_that_may_be_head_gets_no_body() -> None:
    top, body = refuse(405, (("Allow", "GET"),)).split(b"\r\n\r\n")
    assert body == b""
    assert b"\r\nContent-Length: 0\r\n" in top


@pytest.mark.parametrize("start", [b"http://a", b"https://a:443", b"WS://[::1]:80", b"wss://"])
def test_a_target_with_scheme_and_authority(start: bytes) -> None:
    """RFC 9112 section 3.2.2: "a server MUST accept the absolute-form"."""
    result = read_head(head(first=b"GET " + start + PATH + b" HTTP/1.1"))
    assert (isinstance(result, Request) and result.target == New(TUNNEL_ID)) == (start != b"wss://")
    for path in (b"ftp://a" + PATH, start, start + b"?" + PATH, b"x" + PATH):
        assert read_head(head(first=b"GET " + path + b" HTTP/1.1")) == Refusal(404)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (b"GET " + PATH + b" HTTP/1.1", 101),
        (b"GET /cable/connect/0A0b0C/" + b"aB" * 16 + b" HTTP/1.1", 101),
        (b"GET /cable/contact/AAAA HTTP/1.1", 101),
        (b"GET " + PATH + b" HTTP/1.0", 400),
        (b"GET " + PATH + b" HTTP/2.0", 400),
        (b"GET " + PATH + b" http/1.1", 400),
        (b"GET " + PATH + b" HTTP/1.1 ", 400),
        (b"GET  " + PATH + b" HTTP/1.1", 400),
        (b"GET\t" + PATH + b" HTTP/1.1", 400),
        (b" GET " + PATH + b" HTTP/1.1", 400),
        (b"GET " + PATH, 400),
        (b"G@T " + PATH + b" HTTP/1.1", 400),
        (b"GET " + PATH + b"\xff HTTP/1.1", 400),
        (b"POST " + PATH + b" HTTP/1.1", 405),
        (b"get " + PATH + b" HTTP/1.1", 405),
        (b"OPTIONS * HTTP/1.1", 405),
        (b"GET http://cable.example.com" + PATH + b" HTTP/1.1", 101),
        (b"GET /CABLE/new/" + b"0" * 32 + b" HTTP/1.1", 404),
        (b"GET " + PATH + b"? HTTP/1.1", 400),
        (b"GET " + PATH + b"# HTTP/1.1", 400),
        (b"GET /cable/../cable/new HTTP/1.1", 404),
        (b"GET //cable/new/" + b"0" * 32 + b" HTTP/1.1", 404),
    ],
)
def test_first_lines(first: bytes, expected: int) -> None:
    assert status(head(first=first)) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"X : space before the colon",
        b" X: folded",
        b"\tX: folded",
        b"no colon",
        b": no name",
        b"X\x00: zero",
        b"X: \x00",
        b"X: \x7f",
        b"X: a\rY: b",  # a bare CR
        b"X: a\nY: b",  # a bare LF
        b"X: a\n",
        b"X\xe4: name outside ASCII",
        b"Host: a.example",
        b"host: cable.example.com",
        b"bad X: a name after another",
        b"X: a\n\r\nY: b",
        b"X: a\r\r\nY: b",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: identity",
        b"Content-Length: 5",
        b"Content-Length: 00",
        b"Content-Length: +0",
        b"Content-Length: 0\r\nContent-Length: 0",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ],
)
def test_lines_that_make_no_good_head(line: bytes) -> None:
    assert status(head(line)) == 400


@pytest.mark.parametrize("line", [b"Content-Length: 0", b"Sec-WebSocket-Extensions: permessage-deflate", b"X: \xe4 \t"])
def test_lines_that_do_no_harm(line: bytes) -> None:
    assert status(head(line)) == 101


def test_bare_line_ends_and_what_is_missing() -> None:
    assert status(head(end=b"\n")) == 400
    assert status(head()[:-2]) == 400
    assert status(head() + b"x") == 400
    for name, expected in zip(LINES, (400, 426, 426, 400, 426, 400), strict=True):
        assert status(head(without=name)) == expected
        empty = head(name + b":", without=name)
        assert status(empty) == (101 if name == b"Host" else expected)  # RFC 9112 allows an empty Host


@pytest.mark.parametrize("value", [b"a.example b.example", b"a.example, b.example", b"a,b"])
def test_a_host_that_is_two(value: bytes) -> None:
    assert status(head(b"Host: " + value, without=b"Host")) == 400


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (b"Upgrade", b"WebSocket", 101),
        (b"Upgrade", b"h2c, websocket", 101),
        (b"Upgrade", b"websocket2", 426),
        (b"Upgrade", b"websocket/13", 426),
        (b"Connection", b"keep-alive, Upgrade", 101),
        (b"Connection", b"keep-alive,upgrade", 101),
        (b"Connection", b"keep-alive\r\nConnection: UPGRADE", 101),
        (b"Connection", b"keep-alive", 426),
        (b"Connection", b"upgraded", 426),
        (b"Sec-WebSocket-Version", b"8", 426),
        (b"Sec-WebSocket-Version", b"13, 8", 426),
        (b"Sec-WebSocket-Version", b"13\r\nSec-WebSocket-Version: 13", 426),
        (b"Sec-WebSocket-Version", b"013", 426),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=", 400),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQQ=", 400),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25j*Q==", 400),
        (b"Sec-WebSocket-Protocol", b"fido.cable", 101),
        (b"Sec-WebSocket-Protocol", b"chat,fido.cable ,, x", 101),
        (b"Sec-WebSocket-Protocol", b"chat\r\nSec-WebSocket-Protocol: fido.cable", 101),
        (b"Sec-WebSocket-Protocol", b"Fido.Cable", 400),
        (b"Sec-WebSocket-Protocol", b"fido.cable.v2", 400),
        (b"Sec-WebSocket-Protocol", b"fido.cable chat", 400),
    ],
)
def test_values(name: bytes, value: bytes, expected: int) -> None:
    assert status(head(name + b": " + value, without=name)) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), 101),
        ((b"Origin: https://good.example",), 101),
        ((b"Origin: https://GOOD.example",), 101),
        ((b"Origin: https://bad.example",), 403),
        ((b"Origin: null",), 403),
        ((b"Origin:",), 403),
        ((b"Origin: https://good.example", b"Origin: https://bad.example"), 403),
    ],
)
def test_origins(lines: tuple[bytes, ...], expected: int) -> None:
    result = read_head(head(*lines), {b"https://good.example", b"https://also.example"})
    assert (result.status if isinstance(result, Refusal) else 101) == expected
    assert status(head(*lines)) == 101, "nobody asked"


def test_versions_and_methods_say_what_would_do() -> None:
    assert read_head(head(without=b"Upgrade")) == Refusal(
        426, (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))
    )
    assert read_head(head(first=b"PUT / HTTP/1.1")) == Refusal(405, (("Allow", "GET"),))


def test_the_end_is_found_once_and_in_bounds() -> None:
    data = head()
    assert find_end(data) == find_end(data + b"\r\n\r\n") == len(data)
    for size in range(len(data)):
        assert find_end(data[:size]) == 0
        assert find_end(data, size) == len(data), "whatever was looked at before"
    filled = head(b"X: " + b"x" * (MAX_HEAD_SIZE - len(data) - len("X: \r\n")))
    assert find_end(filled) == len(filled) == MAX_HEAD_SIZE
    assert find_end(b"x" + filled) is None
    assert find_end(bytes(MAX_HEAD_SIZE - 1)) == 0
    assert find_end(bytes(MAX_HEAD_SIZE)) is None


def test_lists() -> None:
    assert members([b"a, b ,\t,c", b"", b",d,"]) == [b"a", b"b", b"c", b"d"]


@given(st.binary(max_size=200))
def test_any_bytes_are_answered(data: bytes) -> None:
    for whole in (data, head(data), head(first=data), head(b"X: " + data)):
        result = read_head(whole)
        assert isinstance(result, Request) or result.status in {400, 403, 404, 405, 426}


@given(st.lists(st.sampled_from([b"GET ", PATH, b" HTTP/1.1", b"\r\n", b"X", b": ", b" ", b"\n", b"Host", b"a, b"])))
def test_whoever_reads_by_lines_sees_the_same(pieces: list[bytes]) -> None:
    """A reader that goes by line feeds alone finds as many lines in a head that we take."""
    more = b"".join(pieces)
    request = read_head(head(more))
    if isinstance(request, Request):
        assert len(head(more).split(b"\n")) == len(request.fields) + 3
        assert isinstance(request.target, New | Connect)


@pytest.mark.parametrize(
    "filling",
    [b"a:" + b" " * 80000 + b"\0", b"a" * 8000, b"a:" * 4000, b"a: \t" * 2000, b"a: b\r\n" * 1300, b"," * 8000],
)
def test_nothing_is_tried_in_two_ways(filling: bytes) -> None:
    """What backtracks would not come back before the time-out of the test."""
    for data in (head(filling), head(b"X: " + filling), head(b"Connection: " + filling), filling):
        read_head(data)
