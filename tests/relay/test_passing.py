"""What workers and nodes say to each other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from hybrid.protocol.tunnel import Connect
from tunnel_server.client_address import read_proxy_header
from tunnel_server.foreign import ForeignJoin
from tunnel_server.http_head import Request, read_head
from tunnel_server.passing import Answer, PieceReader, piece, proxy_header, request

JOIN = Connect(b"\x01\x02\x03", bytes(range(16)))
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


class NoStream:
    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


def join(client: str | None, *lines: str) -> ForeignJoin:
    head = "\r\n".join(
        [
            f"GET /cable/connect/010203/{JOIN.tunnel_id.hex()} HTTP/1.1",
            "Host: relay.example",
            "Upgrade: websocket",
            "Connection: keep-alive, Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Protocol: other, fido.cable",
            *lines,
            "",
            "",
        ]
    ).encode()
    read = read_head(head)
    assert isinstance(read, Request)
    return ForeignJoin(JOIN, head, read.headers, client, NoStream())


def reread(data: bytes) -> Request:
    read = read_head(data)
    assert isinstance(read, Request)
    return read


def test_the_owner_reads_the_same_request() -> None:
    read = reread(request(join("192.0.2.7", "Origin: wss://relay.example"), proxy_protocol=False))
    assert read.target == JOIN
    assert read.key == b"AAAAAAAAAAAAAAAAAAAAAA=="
    assert read.headers[b"origin"] == [b"wss://relay.example"]
    assert read.headers[b"host"] == [b"relay.example"]
    assert read.headers[b"x-forwarded-for"] == [b"192.0.2.7"]
    assert read.headers[b"x-tunnel-hops"] == [b"1"]


def test_no_header_of_the_client_is_taken_for_ours() -> None:
    forged = join(None, "X-Forwarded-For: 127.0.0.1", "X-Tunnel-Hops: 0", "Cookie: a=b", "Content-Length: 0")
    read = reread(request(forged, proxy_protocol=False))
    assert read.headers[b"x-tunnel-hops"] == [b"1"]
    assert not {b"x-forwarded-for", b"cookie", b"content-length"} & set(read.headers)


@pytest.mark.parametrize("client", ["192.0.2.7", "2001:db8::7", None])
def test_the_owner_may_expect_a_proxy_header(client: str | None) -> None:
    data = request(join(client), proxy_protocol=True)
    found = read_proxy_header(data)
    assert found is not None
    size, host = found
    assert host == client
    assert b"x-forwarded-for" not in reread(data[size:]).headers
    assert data[:size] == proxy_header(client)


def test_a_proxy_header_as_the_specification_has_it() -> None:
    signature = "0d0a0d0a000d0a515549540a"
    assert proxy_header(None).hex() == signature + "20000000"
    assert proxy_header("192.0.2.7").hex() == signature + "2111000c" + "c0000207" + "00000000" + "00000000"
    assert proxy_header("fe80::1%eth0").hex() == signature + "21210024" + "fe80" + 13 * "00" + "01" + 20 * "00"


def frame(opcode: Opcode, size: int) -> bytes:
    """A server's frame as a foreign library writes it."""
    return Frame(opcode, bytes(size)).serialize(mask=False)


def test_a_last_word_is_possible_between_frames_only() -> None:
    answer = Answer()
    assert (answer.unanswered, answer.open) == (True, False)
    for data, can_speak in [
        (ACCEPTED[:20], False),
        (ACCEPTED[20:-1], False),
        (ACCEPTED[-1:], True),
        (frame(Opcode.BINARY, 5), True),
        (frame(Opcode.BINARY, 5)[:-1], False),
        (b"\x00", True),
        (frame(Opcode.BINARY, 0), True),
        (frame(Opcode.BINARY, 0)[:1], False),
        (frame(Opcode.BINARY, 0)[1:] + frame(Opcode.BINARY, 70000)[:9], False),
        (frame(Opcode.BINARY, 70000)[9:] + frame(Opcode.PONG, 125), True),
        (frame(Opcode.BINARY, 126) + frame(Opcode.CLOSE, 2), False),
        (b"anything", False),
    ]:
        answer.feed(data)
        assert (answer.unanswered, answer.open) == (False, can_speak)


def test_no_word_after_a_refusal() -> None:
    answer = Answer()
    answer.feed(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    assert (answer.unanswered, answer.open) == (False, False)


@given(st.lists(st.sampled_from([0, 1, 125, 126, 127, 300, 65535, 65536]), max_size=8), st.data())
def test_any_chunks(sizes: list[int], data: st.DataObject) -> None:
    frames = [frame(Opcode.BINARY, size) for size in sizes]
    whole = ACCEPTED + b"".join(frames)
    ends = {len(ACCEPTED)}
    for made in frames:
        ends.add(max(ends) + len(made))
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=20))
    answer, at = Answer(), 0
    for cut in sorted({*cuts, len(whole)}):
        answer.feed(whole[at:cut])
        at = cut
        assert answer.open == (at in ends)


def test_pieces_of_a_link_as_they_are_documented() -> None:
    reader = PieceReader()
    assert piece(b"abc").hex() == "00000003616263"
    assert reader.feed(bytes.fromhex("00000003616263")) == [b"abc"]
    assert reader.feed(bytes.fromhex("0000000361")) == [b"a"], "at once, not when all of it is here"
    assert reader.feed(bytes.fromhex("6263 00000000 000000")) == [b"bc", b""]
    assert reader.feed(bytes.fromhex("00 00000001 64 00000000")) == [b"", b"d", b""]


@given(st.lists(st.lists(st.binary(min_size=1, max_size=300), max_size=4), max_size=4), st.data())
def test_pieces_in_any_chunks(joins: list[list[bytes]], data: st.DataObject) -> None:
    whole = b"".join(piece(part) for parts in joins for part in (*parts, b""))
    cuts = sorted({*data.draw(st.lists(st.integers(0, len(whole)), max_size=20)), len(whole)})
    reader, found, at = PieceReader(), [b""], 0
    for cut in cuts:
        for part in reader.feed(whole[at:cut]):
            if part:
                found[-1] += part
            else:
                found.append(b"")
        at = cut
    assert found == [*(b"".join(parts) for parts in joins), b""]


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_a_link_may_carry_anything(chunks: list[bytes]) -> None:
    reader = PieceReader()
    for chunk in chunks:
        assert sum(map(len, reader.feed(chunk))) <= len(chunk)
