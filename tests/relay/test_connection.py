"""What stands around a tunnel: proxies, other relays' joins, observers, new certificates. On sockets, on both loops."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import unix_connect

from tunnel_server.app import serve
from tunnel_server.foreign import ForeignJoin, Stream
from tunnel_server.observing import Outcome
from tunnel_server.relay import Limits

from .test_app import (
    BINARY,
    CABLE,
    CLOSE,
    PING,
    Raw,
    Relay,
    buffered,
    closed_with,
    frame,
    refusal,
    running,
    some_waiting,
    until,
)
from .tls import Certificate, make_certificate

LOOPS = ("asyncio", "uvloop")
LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")


def new_path() -> str:
    return f"/cable/new/{secrets.token_hex(16)}"


def proxied(client: str) -> bytes:
    """A PROXY header for an IPv4 `client`."""
    return SIGNATURE + b"\x21\x11\x00\x0c" + ipaddress.ip_address(client).packed + bytes(4) + struct.pack("!HH", 9, 9)


@asynccontextmanager
async def through_proxy(relay: Relay, *words: bytes) -> AsyncIterator[Raw]:
    """A raw client that says `words` before TLS, if there is any."""
    reader, writer = await asyncio.open_connection(relay.server.host, relay.server.port)
    try:
        for word in words:
            writer.write(word)
            await writer.drain()
            await asyncio.sleep(0)
        if relay.client_tls is not None:
            await writer.start_tls(relay.client_tls, server_hostname="localhost")
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize("secure", [False, True])
async def test_proxy_protocol(certificate: Certificate, secure: bool) -> None:
    options: dict[str, Any] = {"proxies": LOOPBACK, "proxy_protocol": True, "limits": Limits(per_address=1)}
    async with running(certificate if secure else None, **options) as relay:
        header = proxied("192.0.2.1")
        async with through_proxy(relay, header[:5], header[5:20], header[20:]) as first:
            assert (await first.ask(new_path())).status == 101
            async with through_proxy(relay, header) as second:
                assert (await second.ask(new_path())).status == 429
            async with through_proxy(relay, proxied("192.0.2.2")) as other:
                assert (await other.ask(new_path())).status == 101
            for _ in range(3):
                async with through_proxy(relay, SIGNATURE + b"\x20\x00\x00\x00") as itself:
                    assert (await itself.ask("/", X_Forwarded_For="192.0.2.1")).status == 404


async def test_a_proxy_that_does_not_introduce_itself(plain_proxied: Relay) -> None:
    for words in (b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n", bytes(16)):
        async with plain_proxied.raw() as client:
            client.write(words)
            with contextlib.suppress(ConnectionResetError):
                assert await client.reader.read() == b""


@pytest.fixture
async def plain_proxied() -> AsyncIterator[Relay]:
    async with running(proxies=LOOPBACK, proxy_protocol=True) as relay:
        yield relay


async def test_nobody_else_may_say_for_whom_he_speaks() -> None:
    stranger = [ipaddress.ip_network("192.0.2.0/24")]
    for protocol in (False, True):
        async with running(proxies=stranger, proxy_protocol=protocol) as relay, relay.raw() as client:
            client.write(proxied("192.0.2.1"))
            assert (await client.answer()).status == 400
    async with running(proxies=stranger, limits=Limits(per_address=1), limit_loopback=True) as relay:
        async with relay.raw() as first, relay.raw() as second:
            assert (await first.ask(new_path(), X_Forwarded_For="1.1.1.1")).status == 101
            assert (await second.ask(new_path(), X_Forwarded_For="2.2.2.2")).status == 429


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("192.0.2.1", 429),
        ("8.8.8.8, 192.0.2.1", 429),  # what the client claims does not count
        ("8.8.8.8\r\nX-Forwarded-For: 192.0.2.1, 127.0.0.9", 429),
        ("192.0.2.2", 101),
        ("192.0.2.1, 192.0.2.2", 101),
        ("192.0.2.1, unknown", 400),
        (None, 101),
    ],
)
async def test_forwarded_for(value: str | None, status: int) -> None:
    async with running(proxies=LOOPBACK, limits=Limits(per_address=1)) as relay:
        async with relay.raw() as first, relay.raw() as second:
            assert (await first.ask(new_path(), X_Forwarded_For="192.0.2.1")).status == 101
            assert (await second.ask(new_path(), X_Forwarded_For=value)).status == status


class Owner:
    """Another relay: takes joins over and says what it is told to."""

    def __init__(self) -> None:
        self.joins: list[ForeignJoin] = []
        self.received = b""
        self.calls: list[str] = []

    @property
    def stream(self) -> Stream:
        return self.joins[-1].stream

    def __call__(self, join: ForeignJoin) -> Owner | None:
        if join.connect.tunnel_id == bytes(16):
            return None
        self.joins.append(join)
        return self

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> None:
        self.calls.append("eof")

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self) -> None:
        self.calls.append("lost")


@pytest.mark.parametrize("secure", [False, True])
async def test_a_join_of_another_relay_is_handed_over(certificate: Certificate, secure: bool) -> None:
    owner = Owner()
    async with running(certificate if secure else None, routing_id=b"us!", router=owner) as relay:
        path = f"/cable/connect/{b'you'.hex()}/{32 * 'A'}"
        async with relay.raw() as client:
            client.write(b"".join([head_of(path), frame(BINARY, b"behind")]))
            await until(lambda: owner.received != b"")
            [join] = owner.joins
            assert join.connect.routing_id == b"you"
            assert join.head == head_of(path)
            assert join.headers[b"sec-websocket-protocol"] == [b"fido.cable"]
            assert join.client == "127.0.0.1"
            assert "aaaa" not in repr(join).lower()
            assert owner.received == frame(BINARY, b"behind")
            owner.stream.write(b"HTTP/1.1 101 From Elsewhere\r\n\r\n")
            assert (await client.answer()).status == 101
            owner.stream.pause_reading()
            client.write(b"more")
            for _ in range(20):
                await asyncio.sleep(0)
            assert owner.received == frame(BINARY, b"behind")
            owner.stream.resume_reading()
            await until(lambda: owner.received.endswith(b"more"))
            owner.stream.write(bytes(20_000_000))
            await until(lambda: "pause" in owner.calls)
            assert await client.reader.readexactly(20_000_000) == bytes(20_000_000)
            await until(lambda: "resume" in owner.calls)
            assert relay.server.relay.connections == 1, "it counts"
            owner.stream.write(b"last")
            owner.stream.close()
            assert await client.reader.read() == b"last"
        await until(lambda: owner.calls[-1] == "lost")
        await relay.empty()


def head_of(path: str) -> bytes:
    lines = ["Host: h", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: fido.cable"]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


async def test_what_a_client_does_with_a_join_that_was_handed_over() -> None:
    owner = Owner()
    async with running(routing_id=b"us!", router=owner, limits=Limits(lifetime=0.2)) as relay:
        path = f"/cable/connect/{b'you'.hex()}/{32 * 'A'}"
        async with relay.raw() as client:
            client.write(head_of(path))
            await until(lambda: len(owner.joins) == 1)
            client.writer.write_eof()
            await until(lambda: owner.calls == ["eof"])
            owner.stream.write(b"still heard")
            assert await client.reader.readexactly(11) == b"still heard"
            assert await client.reader.read() == b"", "at the end of a tunnel's lifetime"
        await until(lambda: owner.calls == ["eof", "lost"])
        async with relay.raw() as client:
            client.write(head_of(path))
            await until(lambda: len(owner.joins) == 2)
            owner.stream.abort()
            with contextlib.suppress(ConnectionResetError):
                assert await client.reader.read() == b""
        async with relay.raw() as client:
            assert (await client.ask(f"/cable/connect/{b'you'.hex()}/{32 * '0'}")).status == 404, "nobody's"
        async with relay.raw() as client:
            assert (await client.ask(f"/cable/connect/{b'us!'.hex()}/{32 * 'A'}")).status == 404, "ours, and unknown"


async def test_a_join_that_there_is_no_room_for_is_not_handed_over() -> None:
    owner = Owner()
    limits = Limits(per_address=1)
    async with running(routing_id=b"us!", router=owner, limits=limits, limit_loopback=True) as relay:
        async with relay.raw() as first, relay.raw() as second:
            assert (await first.ask(new_path())).status == 101
            assert (await second.ask(f"/cable/connect/{b'you'.hex()}/{32 * 'A'}")).status == 429
    assert owner.joins == []


class Notes:
    """An observer that writes everything down."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def handshake_done(self, seconds: float) -> None:
        assert seconds >= 0
        self.seen.append("handshake done")

    def handshake_failed(self) -> None:
        self.seen.append("handshake failed")

    def upgraded(self, seconds: float) -> None:
        assert seconds >= 0
        self.seen.append("upgraded")

    def refused(self, status: int) -> None:
        self.seen.append(status)

    def dropped(self) -> None:
        self.seen.append("dropped")

    def handed_over(self) -> None:
        self.seen.append("handed over")

    def tunnel_ended(self, outcome: Outcome, seconds: float) -> None:
        assert seconds >= 0
        self.seen.append(outcome)


async def test_an_observer_is_told(certificate: Certificate) -> None:
    notes = Notes()
    async with running(certificate, observer=notes) as relay:
        async with relay.pair():
            pass
        await relay.empty()
        assert notes.seen == ["handshake done", "upgraded"] * 2 + [Outcome.JOINED]
        notes.seen.clear()
        assert await refusal(relay.open("/nowhere")) == 404
        assert await refusal(relay.open(f"/cable/connect/000000/{32 * 'A'}")) == 404
        await relay.empty()
        assert notes.seen == ["handshake done", 404] * 2
        notes.seen.clear()
        reader, writer = await asyncio.open_connection(relay.server.host, relay.server.port)
        writer.write(b"\x16\x03\x01\x00\x05hello")
        assert (await reader.read())[:1] == b"\x15", "an alert says why"
        writer.close()
        await relay.empty()
        assert notes.seen == ["handshake failed"]
    notes, owner = Notes(), Owner()
    async with running(observer=notes, router=owner) as relay, relay.raw() as client:
        client.write(head_of(f"/cable/connect/{b'you'.hex()}/{32 * 'A'}"))
        await until(lambda: len(owner.joins) == 1)
    assert notes.seen == ["handed over"]
    notes = Notes()
    async with running(observer=notes, limits=Limits(head=0.05)) as relay, relay.raw() as silent:
        assert await silent.reader.read() == b""
    assert notes.seen == ["dropped"]


async def test_a_new_certificate_without_dropping_anybody(certificate: Certificate, tmp_path: Path) -> None:
    other = make_certificate(tmp_path)
    async with running(certificate) as relay:
        tunnel_id = secrets.token_bytes(16)
        owner, routing_id = await relay.new(tunnel_id)
        relay.server.ssl_context = other.server_context()
        with pytest.raises(ssl.SSLCertVerificationError):
            await relay.open(new_path())
        relay.client_tls = other.client_context()
        async with owner, await relay.join(routing_id, tunnel_id) as guest:
            await guest.send(b"new")
            assert await owner.recv() == b"new"
            await owner.send(b"old")
            assert await guest.recv() == b"old"


async def test_sockets_in_place_of_an_address(certificate: Certificate, tmp_path: Path) -> None:
    """Ours may be TLS; a unix socket is plain, and its clients may say for whom they speak."""
    unix, path = socket.socket(socket.AF_UNIX), str(tmp_path / "relay")
    unix.bind(path)
    made = [unix, socket.create_server(("127.0.0.1", 0))]
    limits, tls = Limits(per_address=1), certificate.server_context()
    async with serve(sockets=made, ssl_context=tls, limits=limits, limit_loopback=True) as server:
        relay = Relay(server, certificate.client_context())
        tunnel_id = secrets.token_bytes(16)
        owner, routing_id = await relay.new(tunnel_id)
        joining = unix_connect(path, f"ws://localhost/cable/connect/{routing_id}/{tunnel_id.hex()}", subprotocols=CABLE)
        async with owner, joining as guest:
            await guest.send(b"hello")
            assert await owner.recv() == b"hello"
            local = {"additional_headers": {"X-Forwarded-For": "127.0.0.1"}, "subprotocols": CABLE}
            assert await refusal(unix_connect(path, f"ws://localhost{new_path()}", **local)) == 429
    assert unix.fileno() == made[1].fileno() == -1


@pytest.mark.parametrize("secure", [False, True])
async def test_a_length_is_refused_before_the_message(certificate: Certificate, secure: bool) -> None:
    """What the message would break when it is complete is told at its first bytes."""
    async with running(certificate if secure else None, limits=Limits(total=200, early_bytes=100)) as relay:
        async with relay.raw() as owner:
            assert (await owner.ask(new_path())).status == 101
            owner.write(frame(BINARY, bytes(101))[:6])
            assert await owner.close_code() == 1008
        async with relay.raw_pair() as (owner, guest):
            owner.write(frame(BINARY, bytes(200)))
            assert await guest.recv() == bytes(200)
            owner.write(frame(BINARY, bytes(1), fin=False)[:6])
            assert await owner.close_code() == await closed_with(guest) == 1008
        await relay.empty()
        assert relay.server.relay.buffered == 0


async def test_a_side_that_was_closed_may_finish_its_sentence() -> None:
    """What comes between our close frame and its answer is read over."""
    async with running() as relay, relay.raw_pair() as (owner, guest):
        closing = asyncio.create_task(guest.close())
        assert await owner.close_code() == 1000
        owner.write(frame(BINARY, bytes(1000)) + frame(BINARY, b"frag", fin=False) + frame(PING, b"x"))
        owner.write(frame(CLOSE, struct.pack("!H", 1000)))
        assert (await owner.frame())[0] == 10
        assert await owner.reader.read() == b"", "the relay ends TCP, as servers do"
        await closing
        assert relay.server.relay.forwarded_messages == 0


@pytest.mark.parametrize("secure", [False, True])
async def test_a_tls_end_without_a_close_frame_is_vanishing(certificate: Certificate, secure: bool) -> None:
    async with running(certificate if secure else None) as relay, relay.raw_pair() as (owner, guest):
        owner.write(frame(BINARY, b"last words"))
        owner.writer.close()
        assert await guest.recv() == b"last words"
        assert await closed_with(guest) == 1001


class _Answering:
    """TLS that has an answer to whatever comes, as OpenSSL has to a request for new keys (RFC 8446 section 4.6.3)."""

    ready, ended = True, False

    def receive(self, data: bytes) -> bytes:
        self._answer = bytes(len(data))
        return b""

    def outgoing(self) -> bytes:
        return self._answer

    def send(self, data: bytes) -> bytes:
        return data

    finish = outgoing


async def test_who_asks_for_new_keys_and_never_reads_has_to_wait() -> None:
    async with running() as relay, relay.raw() as client:
        assert (await client.ask(new_path())).status == 101
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a whole transport
        (connection,) = relay.server.connections.values()
        connection._tls = _Answering()  # type: ignore[assignment]  # Python's ssl cannot ask for new keys
        client.write(bytes(30_000_000))
        await until(partial(some_waiting, relay))
        assert buffered(relay) < 1 << 20
