"""The relay on a loopback port: foreign WebSocket clients, and raw sockets for hostile bytes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tunnel_server.app import Server, serve
from tunnel_server.relay import Limits

from .tls import Certificate

LOOPS = ("asyncio", "uvloop")  # every test of this file runs on both
CABLE = [Subprotocol("fido.cable")]
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HEADERS = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": "fido.cable",
}
TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


@dataclass
class Relay:
    """A running relay, and how to reach it."""

    server: Server
    client_tls: ssl.SSLContext | None

    def open(self, path: str, **options: Any) -> connect:
        options = {"subprotocols": CABLE, "proxy": None, "max_size": None, **options}
        scheme = "ws" if self.client_tls is None else "wss"
        return connect(f"{scheme}://{self.server.host}:{self.server.port}{path}", ssl=self.client_tls, **options)

    async def new(self, tunnel_id: bytes, **options: Any) -> tuple[ClientConnection, str]:
        owner = await self.open(f"/cable/new/{tunnel_id.hex().upper()}", **options)
        assert owner.response is not None
        return owner, owner.response.headers["X-caBLE-Routing-ID"]

    async def join(self, routing_id: str, tunnel_id: bytes, **options: Any) -> ClientConnection:
        return await self.open(f"/cable/connect/{routing_id}/{tunnel_id.hex().upper()}", **options)

    @asynccontextmanager
    async def pair(self) -> AsyncIterator[tuple[ClientConnection, ClientConnection]]:
        tunnel_id = secrets.token_bytes(16)
        owner, routing_id = await self.new(tunnel_id)
        guest = await self.join(routing_id, tunnel_id)
        async with owner, guest:
            yield owner, guest

    @asynccontextmanager
    async def raw(self) -> AsyncIterator[Raw]:
        reader, writer = await asyncio.open_connection(self.server.host, self.server.port, ssl=self.client_tls)
        try:
            yield Raw(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    @asynccontextmanager
    async def raw_pair(self) -> AsyncIterator[tuple[Raw, ClientConnection]]:
        """A raw owner, and a well-behaved guest."""
        tunnel_id = secrets.token_bytes(16)
        async with self.raw() as owner:
            answer = await owner.ask(f"/cable/new/{tunnel_id.hex()}")
            guest = await self.join(answer.headers["x-cable-routing-id"], tunnel_id)
            async with guest:
                yield owner, guest

    async def empty(self) -> None:
        """Wait until no connection is left."""
        await until(lambda: self.server.relay.connections == 0)
        assert self.server.relay.tunnels == 0


@dataclass
class Answer:
    status: int
    headers: dict[str, str]


@dataclass
class Raw:
    """A client that sends what it is told."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def ask(self, path: str, method: str = "GET", **changes: str | None) -> Answer:
        headers: dict[str, str | None] = {**HEADERS, **{k.replace("_", "-"): v for k, v in changes.items()}}
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items() if v is not None)]
        self.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        return await self.answer()

    async def answer(self) -> Answer:
        status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        return Answer(int(status.split(" ")[1]), headers)

    async def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame."""
        first, length = await self.reader.readexactly(2)
        assert length < 126, "short, and not masked"
        return first & 15, await self.reader.readexactly(length)

    async def close_code(self) -> int:
        opcode, payload = await self.frame()
        assert opcode == CLOSE
        return int(struct.unpack("!H", payload[:2])[0])


def frame(opcode: int, payload: bytes, *, fin: bool = True, bits: int = 0, mask: bool = True) -> bytes:
    """Bytes of a client frame, legal or not."""
    size = len(payload)
    head = bytes([(fin << 7) | bits | opcode])
    if size < 126:
        head += bytes([(mask << 7) | size])
    elif size < 65536:
        head += bytes([(mask << 7) | 126]) + struct.pack("!H", size)
    else:
        head += bytes([(mask << 7) | 127]) + struct.pack("!Q", size)
    return head + (bytes(4) if mask else b"") + payload


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until `condition` holds; the time-out of the test is the limit."""
    while not condition():  # noqa: ASYNC110  (the facts waited for have no event of their own)
        await asyncio.sleep(0.001)  # lets them run


async def closed_with(client: ClientConnection) -> int:
    """Close code that the relay sends to `client`, after whatever comes before."""

    async def read_all() -> None:
        while True:
            await client.recv()

    with pytest.raises(ConnectionClosed) as caught:
        await read_all()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


async def refusal(opening: connect) -> int:
    with pytest.raises(InvalidStatus) as caught:
        await opening
    return caught.value.response.status_code


@asynccontextmanager
async def running(certificate: Certificate | None = None, **options: Any) -> AsyncIterator[Relay]:
    context = certificate.server_context() if certificate else None
    async with serve(ssl_context=context, **options) as server:
        yield Relay(server, certificate.client_context() if certificate else None)
    assert server.relay.connections == 0, "nothing is left behind"


@pytest.fixture(params=["plain", "tls"])
async def relay(request: pytest.FixtureRequest, certificate: Certificate) -> AsyncIterator[Relay]:
    async with running(certificate if request.param == "tls" else None) as relay:
        yield relay


@pytest.fixture
async def plain() -> AsyncIterator[Relay]:
    async with running() as relay:
        yield relay


async def test_a_tunnel_from_start_to_end(relay: Relay) -> None:
    tunnel_id = secrets.token_bytes(16)
    owner, routing_id = await relay.new(tunnel_id)
    assert owner.response is not None
    assert owner.response.headers.get_all("X-caBLE-Routing-ID") == [routing_id]
    assert len(bytes.fromhex(routing_id)) == 3
    assert routing_id == routing_id.upper()
    assert owner.response.headers["Sec-WebSocket-Protocol"] == "fido.cable"
    early = [b"early", b"", os.urandom(60000)]
    for message in early:
        await owner.send(message)
    guest = await relay.join(routing_id, tunnel_id)
    assert guest.response is not None
    assert "X-caBLE-Routing-ID" not in guest.response.headers
    assert guest.subprotocol == "fido.cable"
    assert [await guest.recv() for _ in early] == early
    big = os.urandom(131072)
    await guest.send(big)
    assert await owner.recv() == big
    await guest.close()
    assert await closed_with(owner) == 1000
    await relay.empty()


async def test_no_extension_is_negotiated(relay: Relay) -> None:
    owner, _ = await relay.new(bytes(16))  # this client offers permessage-deflate by default
    async with owner:
        assert owner.request is not None
        assert owner.response is not None
        assert "permessage-deflate" in owner.request.headers["Sec-WebSocket-Extensions"]
        assert "Sec-WebSocket-Extensions" not in owner.response.headers
        assert owner.protocol.extensions == []


async def test_hex_of_either_case_is_one_tunnel(plain: Relay) -> None:
    tunnel_id = bytes.fromhex("ABCDEF" + 26 * "a")
    owner = await plain.open(f"/cable/new/{tunnel_id.hex()}")
    assert owner.response is not None
    routing_id = owner.response.headers["X-caBLE-Routing-ID"].lower()
    async with owner, await plain.join(routing_id, tunnel_id):
        pass


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/cable", 404),
        ("/cable/other/" + 32 * "A", 404),
        ("/cable/newer/" + 32 * "A", 404),
        ("/cable/connect/000000/" + 32 * "A", 404),
        ("/cable/new", 400),
        ("/cable/new/", 400),
        ("/cable/new/" + 31 * "A", 400),
        ("/cable/new/" + 34 * "A", 400),
        ("/cable/new/" + 32 * "G", 400),
        ("/cable/new/" + 32 * "A" + "/", 400),
        ("/cable/new/" + 32 * "A" + "?a=b", 400),
        ("/cable/new?a=b", 400),
        ("/cable/new/%41" + 31 * "A", 400),
        ("/cable/connect/" + 32 * "A", 400),
        ("/cable/connect/0000/" + 32 * "A", 400),
        ("/cable/contact/AAA=", 400),
        ("/cable/contact/AAAA", 503),
    ],
)
async def test_paths(plain: Relay, path: str, status: int) -> None:
    async with plain.raw() as client:
        answer = await client.ask(path)
    assert answer.status == status
    assert ("retry-after" in answer.headers) == (status == 503)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 101),
        ({"Sec_WebSocket_Protocol": None}, 400),
        ({"Sec_WebSocket_Protocol": "chat"}, 400),
        ({"Sec_WebSocket_Protocol": "FIDO.CABLE"}, 400),
        ({"Sec_WebSocket_Protocol": "fido.cable2, chat"}, 400),
        ({"Sec_WebSocket_Protocol": "chat, fido.cable"}, 101),
        ({"Sec_WebSocket_Protocol": "chat\r\nSec-WebSocket-Protocol: fido.cable"}, 101),
        ({"Sec_WebSocket_Protocol": '"'}, 400),
        ({"Sec_WebSocket_Version": "12"}, 426),
        ({"Sec_WebSocket_Version": None}, 426),
        ({"Upgrade": None}, 426),
        ({"Connection": "close"}, 426),
        ({"Sec_WebSocket_Key": None}, 400),
        ({"Sec_WebSocket_Key": "short"}, 400),
        ({"Content_Length": "5"}, 400),
        ({"Bad Name": "x"}, 400),
        ({"Origin": "https://anything.example"}, 101),
        ({"method": "POST"}, 405),
        ({"method": "HEAD", "Content_Length": "5"}, 405),
        ({"method": "get"}, 405),
    ],
)
async def test_requests(plain: Relay, changes: dict[str, Any], status: int) -> None:
    async with plain.raw() as client:
        answer = await client.ask("/cable/new/" + 32 * "A", **changes)
        assert answer.status == status
        if status == 101:
            assert answer.headers["sec-websocket-protocol"] == "fido.cable"
            return
        assert answer.headers["connection"] == "close"
        assert answer.headers.get("allow") == ("get" if status == 405 else None)
        assert answer.headers.get("sec-websocket-version") == ("13" if status == 426 else None)
        await client.reader.read()  # the body, and the end
    assert plain.server.relay.tunnels == 0


@pytest.mark.parametrize(
    ("origin", "status"),
    [(None, 101), ("https://good.example", 101), ("https://bad.example", 403), ("null", 403)],
)
async def test_origins(origin: str | None, status: int) -> None:
    async with running(origins=["https://good.example", "https://also.example"]) as relay:
        async with relay.raw() as client:
            assert (await client.ask("/cable/new/" + 32 * "A", Origin=origin)).status == status


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET /\r\n\r\n", b"\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n"]
)
async def test_no_http(plain: Relay, junk: bytes) -> None:
    async with plain.raw() as client:
        client.write(junk)
        assert (await client.answer()).status == 400


async def test_head_in_small_pieces(plain: Relay) -> None:
    async with plain.raw() as client:
        head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        for character in f"GET /cable/new/{32 * 'A'} HTTP/1.1\r\n{head}\r\n":
            client.write(character.encode())
            await client.writer.drain()
        assert (await client.answer()).status == 101


@pytest.mark.parametrize(("size", "status"), [(8192, 101), (8193, 431), (200000, 431)])
async def test_head_size(plain: Relay, size: int, status: int) -> None:
    head = f"GET /cable/new/{32 * 'A'} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in HEADERS.items())
    filling = size - len(head) - len("\r\n\r\n")
    pieces = "".join(f"X: {'x' * 995}\r\n" for _ in range(filling // 1000))
    pieces += "Y: " + "y" * (filling % 1000 - 3) + "\r\n\r\n"
    data = (head + pieces).encode()
    assert len(data) == size
    async with plain.raw() as client:
        client.write(data)
        assert (await client.answer()).status == status


async def test_frames_right_behind_the_head(plain: Relay) -> None:
    tunnel_id = bytes(16)
    async with plain.raw() as owner:
        head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        owner.write(f"GET /cable/new/{tunnel_id.hex()} HTTP/1.1\r\n{head}\r\n".encode() + frame(BINARY, b"hi"))
        routing_id = (await owner.answer()).headers["x-cable-routing-id"]
        async with await plain.join(routing_id, tunnel_id) as guest:
            assert await guest.recv() == b"hi"


async def test_what_was_read_of_an_adopted_connection_comes_first(plain: Relay) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    request = f"GET /cable/new/{32 * 'A'} HTTP/1.1\r\n{head}\r\n".encode()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    client.sendall(request[40:])  # which is there before the connection is adopted
    await plain.server.adopt(accepted, request[:40])
    reader, writer = await asyncio.open_connection(sock=client)
    assert (await Raw(reader, writer).answer()).status == 101
    writer.transport.abort()


async def test_taken_unknown_and_wrong(relay: Relay) -> None:
    tunnel_id = secrets.token_bytes(16)
    owner, routing_id = await relay.new(tunnel_id)
    wrong = f"{int(routing_id, 16) ^ 1:06X}"
    assert await refusal(relay.open(f"/cable/new/{tunnel_id.hex()}")) == 409
    assert await refusal(relay.open(f"/cable/connect/{wrong}/{tunnel_id.hex()}")) == 404
    assert await refusal(relay.open(f"/cable/connect/{routing_id}/{bytes(16).hex()}")) == 404
    guest = await relay.join(routing_id, tunnel_id)
    assert await refusal(relay.open(f"/cable/connect/{routing_id}/{tunnel_id.hex()}")) == 404
    async with owner, guest:
        await owner.send(b"still here")
        assert await guest.recv() == b"still here"


async def test_closing_is_told_before_tcp_ends(plain: Relay) -> None:
    async with plain.raw_pair() as (owner, guest):
        owner.write(frame(CLOSE, struct.pack("!H", 1000)))
        assert await closed_with(guest) == 1000
        assert await owner.close_code() == 1000  # and only now does the raw side close its socket


async def test_frames_before_a_close_arrive(relay: Relay) -> None:
    async with relay.raw_pair() as (owner, guest):
        messages = [bytes([number]) * 20000 for number in range(50)]
        owner.write(b"".join(frame(BINARY, m) for m in messages) + frame(CLOSE, struct.pack("!H", 1000)))
        owner.writer.close()
        assert [await guest.recv() for _ in messages] == messages
        assert await closed_with(guest) == 1000


@pytest.mark.parametrize("kind", ["end", "reset"])
async def test_vanishing(plain: Relay, kind: str) -> None:
    async with plain.raw_pair() as (owner, guest):
        owner.write(frame(BINARY, b"last words") + frame(BINARY, b"half", fin=False))
        assert await guest.recv() == b"last words"
        if kind == "end":
            owner.writer.close()
        else:
            owner.writer.transport.abort()
        assert await closed_with(guest) == 1001
    await plain.empty()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(BINARY, b"x", mask=False), 1002),
        (frame(BINARY, b"x", bits=0x40), 1002),
        (frame(BINARY, b"x", bits=0x10), 1002),
        (frame(3, b"x"), 1002),
        (frame(CONTINUATION, b"x"), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(PING, bytes(126)), 1002),
        (frame(CLOSE, b"x"), 1002),
        (frame(BINARY, b"x", fin=False) + frame(BINARY, b"x"), 1002),
        (frame(TEXT, b"text"), 1003),
        (frame(TEXT, b"te", fin=False), 1003),
        (frame(BINARY, b"x" * 65000, fin=False) + frame(CONTINUATION, b"x" * 67000), 1009),
        (frame(BINARY, bytes(131073)), 1009),
        (frame(BINARY, bytes(131073))[:10], 1009),  # the length is enough
        (b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff", 1009),
        (frame(BINARY, b"x") * 65, 1008),
        (frame(BINARY, bytes(131072)) * 8 + frame(BINARY, b"x"), 1008),
    ],
)
async def test_broken_rules_are_told_to_both(relay: Relay, data: bytes, code: int) -> None:
    async with relay.raw_pair() as (owner, guest):
        owner.write(data)
        assert await closed_with(guest) == code
        assert await owner.close_code() == code
    await relay.empty()


async def test_fragments_are_put_together(plain: Relay) -> None:
    async with plain.raw_pair() as (owner, guest):
        owner.write(frame(BINARY, b"", fin=False) + frame(CONTINUATION, b"a", fin=False))
        owner.write(frame(PING, b"between") + frame(CONTINUATION, b"b"))
        owner.write(frame(BINARY, b"c", fin=False) + frame(CONTINUATION, b""))
        assert [await guest.recv(), await guest.recv()] == [b"ab", b"c"]
        assert await owner.frame() == (PONG, b"between")


async def test_pings_are_answered_and_not_counted(plain: Relay) -> None:
    async with plain.pair() as (owner, guest):
        for _ in range(200):
            await (await owner.ping())
        await owner.send(b"x")
        assert await guest.recv() == b"x"


async def test_too_many_early_messages(plain: Relay) -> None:
    owner, routing_id = await plain.new(bytes(16))
    for _ in range(9):
        await owner.send(b"x")
    assert await closed_with(owner) == 1008
    assert await refusal(plain.open(f"/cable/connect/{routing_id}/{bytes(16).hex()}")) == 404


@pytest.mark.parametrize("limit", ["pending", "idle", "lifetime"])
async def test_time_is_up(limit: str) -> None:
    limits: dict[str, Any] = {limit: 0.05}
    async with running(limits=Limits(**limits)) as relay:
        owner, routing_id = await relay.new(bytes(16))
        if limit != "pending":
            guest = await relay.join(routing_id, bytes(16))
            assert await closed_with(guest) == 1008
        assert await closed_with(owner) == 1008


async def test_silence_in_place_of_a_head(certificate: Certificate) -> None:
    for tls in (None, certificate):
        async with running(tls, limits=Limits(head=0.05)) as relay:
            reader, writer = await asyncio.open_connection(relay.server.host, relay.server.port)
            writer.write(b"GET")
            with contextlib.suppress(ConnectionResetError):
                await reader.read()
            writer.close()
            await relay.empty()


async def test_a_side_that_does_not_go_is_dropped() -> None:
    async with running(limits=Limits(linger=0.05)) as relay:
        async with relay.raw_pair() as (owner, guest):
            await guest.close()
            await relay.empty()
            assert await owner.close_code() == 1000


async def test_a_slow_reader_makes_the_sender_wait(certificate: Certificate) -> None:
    size, count = 1 << 18, 128
    limits = Limits(message=size, messages=count, total=size * count)
    for tls in (None, certificate):
        async with running(tls, limits=limits) as relay, relay.raw_pair() as (owner, guest):
            guest.transport.pause_reading()
            message = frame(BINARY, bytes(size))
            for _ in range(count):
                owner.write(message)
            await until(partial(some_waiting, relay))
            assert buffered(relay) < 4 * size
            guest.transport.resume_reading()
            for _ in range(count):
                assert await guest.recv() == bytes(size)
            assert not some_waiting(relay)


async def test_pings_of_a_side_that_never_reads_do_not_pile_up(plain: Relay) -> None:
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that little is lost in the kernel
    narrow.setblocking(False)
    await asyncio.get_running_loop().sock_connect(narrow, (plain.server.host, plain.server.port))
    reader, writer = await asyncio.open_connection(sock=narrow)
    owner = Raw(reader, writer)
    assert (await owner.ask("/cable/new/" + 32 * "A")).status == 101
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a whole transport
    for _ in range(50):
        owner.write(frame(PING, bytes(125)) * 1000)
    await until(partial(some_waiting, plain))
    assert buffered(plain) < 1 << 20
    writer.transport.abort()
    await plain.empty()


async def test_what_stalled_readers_leave_counts_for_the_limit_of_all() -> None:
    limits = Limits(buffered=50_000, messages=1 << 20, total=1 << 30, stall=1000)
    async with running(limits=limits) as relay, relay.raw_pair() as (owner, guest):
        owner.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a whole transport

        async def send_for_ever() -> None:
            while True:
                await guest.send(bytes(20_000))

        with pytest.raises(ConnectionClosed) as caught:
            await send_for_ever()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1008
        await relay.empty()
        assert relay.server.relay.buffered == 0


def some_waiting(relay: Relay) -> bool:
    return not all(connection._transport.is_reading() for connection in relay.server.connections.values())


def buffered(relay: Relay) -> int:
    """Bytes that wait in the relay to be written."""
    return sum(c._transport.get_write_buffer_size() for c in relay.server.connections.values())


async def test_per_address_limit() -> None:
    limits = Limits(per_address=2)
    async with running(limits=limits, limit_loopback=True) as relay:
        async with relay.pair():
            async with relay.raw() as third:
                answer = await third.ask("/cable/new/" + 32 * "A")
                assert answer.status == 429
                assert int(answer.headers["retry-after"]) > 0
    async with running(limits=limits) as relay:
        async with relay.pair(), relay.pair():
            pass


async def test_connection_limit(plain: Relay) -> None:
    async with running(limits=Limits(connections=2)) as relay, relay.pair(), relay.raw() as third:
        answer = await third.ask("/cable/new/" + 32 * "A")
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0


async def test_connections_count_before_their_tls_handshake(certificate: Certificate) -> None:
    async with running(certificate) as relay:
        reader, writer = await asyncio.open_connection(relay.server.host, relay.server.port)
        await until(lambda: relay.server.relay.connections == 1)
        writer.write(b"this is no TLS\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        writer.close()
        await relay.empty()


async def test_draining(relay: Relay) -> None:
    owner, routing_id = await relay.new(bytes(16))
    drain = asyncio.create_task(relay.server.drain())
    await asyncio.sleep(0)
    assert await refusal(relay.open("/cable/new/" + 32 * "A")) == 503
    async with owner, await relay.join(routing_id, bytes(16)):
        assert not drain.done()
    await drain


async def test_draining_waits_for_what_was_let_in_to_ask(relay: Relay) -> None:
    async with relay.raw() as late:
        await until(lambda: relay.server.relay.asking == 1)
        drain = asyncio.create_task(relay.server.drain())
        for _ in range(9):  # more than it takes if nobody is waited for
            await asyncio.sleep(0)
        assert not drain.done()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(relay.server.host, relay.server.port)
        assert (await late.ask("/cable/new/" + 32 * "A")).status == 503
        await drain


async def test_draining_does_not_wait_long_for_who_says_nothing(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnel_server.app._STOP_GRACE", 0.01)
    async with relay.raw():
        await until(lambda: relay.server.relay.asking == 1)
        await relay.server.drain()
        assert relay.server.relay.asking == 1


async def test_stopping_tells_everybody(certificate: Certificate) -> None:
    for tls in (None, certificate):
        async with running(tls) as relay:
            owner, routing_id = await relay.new(bytes(16))
            guest = await relay.join(routing_id, bytes(16))
        assert await closed_with(owner) == await closed_with(guest) == 1001


async def test_cancelling_leaves_nothing() -> None:
    started = asyncio.Event()
    servers = []

    async def serve_for_ever() -> None:
        async with running() as relay:
            servers.append(relay)
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(serve_for_ever())
    await started.wait()
    async with servers[0].raw() as silent:
        await until(lambda: servers[0].server.relay.connections == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await silent.reader.read() == b""
    assert asyncio.all_tasks() == {asyncio.current_task()}
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(servers[0].server.host, servers[0].server.port)


async def test_an_address_in_use(plain: Relay) -> None:
    with pytest.raises(OSError, match="in use"):
        async with serve(plain.server.host, plain.server.port):
            pass


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    # The client's own log lines would show what we look for.
    logging.getLogger("websockets.client").setLevel(logging.CRITICAL)
    caplog.set_level(logging.DEBUG)
    yield lambda: "\n".join(f"{record.name} {record.getMessage()} {record.args}" for record in caplog.records)
    logging.getLogger("websockets.client").setLevel(logging.NOTSET)


async def test_logs_are_silent(relay: Relay, everything_logged: Callable[[], str]) -> None:
    tunnel_id, payload = secrets.token_bytes(16), b"payload-that-nobody-sees"
    owner, routing_id = await relay.new(tunnel_id)
    guest = await relay.join(routing_id, tunnel_id)
    await owner.send(payload)
    assert await guest.recv() == payload
    assert await refusal(relay.open(f"/cable/new/{tunnel_id.hex()}")) == 409
    assert await refusal(relay.open(f"/cable/contact/{tunnel_id.hex()}")) == 503
    await owner.close()
    await guest.wait_closed()
    async with relay.raw_pair() as (raw, other):
        raw.write(frame(TEXT, payload))
        assert await closed_with(other) == 1003
    text = everything_logged()
    assert "1003" in text, "the relay does log"
    for secret in (tunnel_id.hex(), routing_id, payload.decode(), repr(tunnel_id), payload.hex(), "127.0.0.1"):
        assert secret.lower() not in text.lower()
