"""An open tunnel: messages, ends, cancellation, secrets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import traceback
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from hybrid.adapters.websocket_tunnel import WebSocketTunnels
from hybrid.errors import TunnelError, TunnelProblem
from hybrid.protocol.keys import MAX_MESSAGE_SIZE
from tests.adapters.relay_doubles import (
    DOMAIN,
    answering_relay,
    http,
    raw_relay,
    read_head,
    then_silent,
    websocket_relay,
)
from tests.adapters.tunnel_steps import (
    CONTACT,
    NEW,
    TUNNEL_ID,
    nothing_runs,
    opened,
    problem_of,
    tunnels_to,
)

pytestmark = pytest.mark.slow  # together they take a tenth of the time that make fast has

# Messages


async def test_messages_go_both_ways_one_to_one(tls: ssl.SSLContext, ca_file: Path) -> None:
    messages = [b"", b"\x00", bytes(81), bytes(range(256)) * 16]

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            assert isinstance(message, bytes)
            await connection.send(message)

    async with opened(tls, ca_file, echo) as channel:
        for message in messages:
            await channel.send(message)
        assert [await channel.receive() for _ in messages] == messages


async def test_message_sent_just_before_the_close_arrives(tls: ssl.SSLContext, ca_file: Path) -> None:
    async def handler(connection: ServerConnection) -> None:
        for number in range(10):
            await connection.send(bytes([number]))
        await connection.close()

    async with opened(tls, ca_file, handler) as channel:
        assert [await channel.receive() for _ in range(11)] == [bytes([n]) for n in range(10)] + [None]


async def test_message_of_one_mebibyte_is_accepted(tls: ssl.SSLContext, ca_file: Path) -> None:
    async with opened(tls, ca_file, lambda c: c.send(bytes(MAX_MESSAGE_SIZE))) as channel:
        assert await channel.receive() == bytes(MAX_MESSAGE_SIZE)


@pytest.mark.parametrize("fragmented", [False, True])
async def test_longer_message_is_refused(tls: ssl.SSLContext, ca_file: Path, fragmented: bool) -> None:
    codes: list[int] = []

    async def handler(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            if fragmented:
                await connection.send([bytes(MAX_MESSAGE_SIZE), b"\x00"])
            else:
                await connection.send(bytes(MAX_MESSAGE_SIZE + 1))
        await connection.wait_closed()
        codes.append(connection.close_code or 0)

    async with opened(tls, ca_file, handler) as channel:
        error = await problem_of(channel.receive())
        assert error.reason is TunnelProblem.OVERSIZE
        again = await problem_of(channel.receive())
        assert again.reason is TunnelProblem.OVERSIZE
    assert codes == [1009]


async def test_text_is_refused(tls: ssl.SSLContext, ca_file: Path) -> None:
    codes: list[int] = []

    async def handler(connection: ServerConnection) -> None:
        await connection.send("hello")
        await connection.wait_closed()
        codes.append(connection.close_code or 0)

    async with opened(tls, ca_file, handler) as channel:
        error = await problem_of(channel.receive())
        assert error.reason is TunnelProblem.TEXT
        assert (await problem_of(channel.receive())).reason is TunnelProblem.TEXT
        assert (await problem_of(channel.send(b"x"))).reason is TunnelProblem.TEXT
    assert codes == [1003]


async def test_text_that_is_no_utf_8_is_refused_alike(tls: ssl.SSLContext, ca_file: Path) -> None:
    async with opened(tls, ca_file, lambda c: c.send(b"\xff\xfe", text=True)) as channel:
        assert (await problem_of(channel.receive())).reason is TunnelProblem.TEXT


# Ends


@pytest.mark.parametrize("code", [1000, 1001])
async def test_clean_ends(tls: ssl.SSLContext, ca_file: Path, code: int) -> None:
    async with opened(tls, ca_file, lambda c: c.close(code)) as channel:
        assert await channel.receive() is None
        assert await channel.receive() is None
        assert (await problem_of(channel.send(b"x"))).reason is TunnelProblem.LOST


@pytest.mark.parametrize("code", [1002, 1003, 1008, 1009, 1011, 4000])
async def test_closed_for_a_fault(tls: ssl.SSLContext, ca_file: Path, code: int) -> None:
    async with opened(tls, ca_file, lambda c: c.close(code, "private words")) as channel:
        error = await problem_of(channel.receive())
    assert error.reason is TunnelProblem.LOST
    assert str(error) == f"{DOMAIN} closed the tunnel with code {code}"


async def test_connection_lost_without_a_close_frame(tls: ssl.SSLContext, ca_file: Path) -> None:
    async def handler(connection: ServerConnection) -> None:
        connection.transport.abort()

    async with opened(tls, ca_file, handler) as channel:
        error = await problem_of(channel.receive())
        assert error.reason is TunnelProblem.LOST
        assert str(error) == f"the connection to {DOMAIN} was lost"
        assert (await problem_of(channel.send(b"x"))).reason is TunnelProblem.LOST


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (b"\x88\x00", None),  # a close frame without a code
        (b"\x88\x02\x03\xe8", None),
        (b"\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x01", TunnelProblem.OVERSIZE),  # refused from the length alone
        (b"\x81\x02hi", TunnelProblem.TEXT),
        (b"\xc2\x01x", TunnelProblem.LOST),  # a reserved bit
        (b"\x82\x81\x00\x00\x00\x00x", TunnelProblem.LOST),  # masked
        (b"\x83\x00", TunnelProblem.LOST),  # an opcode that is none
    ],
    ids=["close-without-code", "close", "oversize", "text", "reserved-bit", "masked", "opcode"],
)
async def test_relay_that_never_hangs_up(
    tls: ssl.SSLContext, ca_file: Path, frames: bytes, reason: TunnelProblem | None
) -> None:
    """The last word is said, but TCP stays open and the relay reads nothing: we end by ourselves."""
    async with raw_relay(tls, then_silent(frames)) as relay:
        channel = await tunnels_to(relay, ca_file).open(NEW)
        if reason is None:
            assert await channel.receive() is None
        else:
            assert (await problem_of(channel.receive())).reason is reason
        await channel.aclose()
        await nothing_runs(besides=1)


@pytest.mark.parametrize("reads", [True, False])
async def test_close_is_bounded_and_repeatable(tls: ssl.SSLContext, ca_file: Path, reads: bool) -> None:
    """A relay that answers no close, with our side even stuck in sending."""
    async with raw_relay(tls, then_silent(b"")) as relay:
        channel = await tunnels_to(relay, ca_file).open(NEW)
        sending = None
        if not reads:
            await channel.send(bytes(1 << 24))  # the transport takes one message of any size
            sending = asyncio.create_task(channel.send(bytes(1 << 20)))
            await asyncio.sleep(0)
            assert not sending.done()
        await channel.aclose()
        await channel.aclose()
        assert await channel.receive() is None if reads else True
        if sending is not None:
            with contextlib.suppress(TunnelError):
                await sending
        await nothing_runs(besides=1)


async def test_relay_hears_code_1000(tls: ssl.SSLContext, ca_file: Path) -> None:
    codes: list[int | None] = []

    async def handler(connection: ServerConnection) -> None:
        await connection.wait_closed()
        codes.append(connection.close_code)

    async with websocket_relay(tls, handler) as relay:
        channel = await tunnels_to(relay, ca_file).open(NEW)
        await channel.aclose()
        await relay.ended.wait()
    assert codes == [1000]


async def test_close_wakes_a_waiting_receive(tls: ssl.SSLContext, ca_file: Path) -> None:
    async with websocket_relay(tls) as relay:
        channel = await tunnels_to(relay, ca_file).open(NEW)
        receiving = asyncio.create_task(channel.receive())
        await asyncio.sleep(0)
        await channel.aclose()
        assert await receiving is None


async def test_no_pings_are_sent(tls: ssl.SSLContext, ca_file: Path) -> None:
    """A relay that ignores pings must not cost a slow person the session, and one that counts them must not either."""
    async with opened(tls, ca_file, lambda c: c.wait_closed()) as channel:
        assert channel._connection.keepalive_task is None


# Cancellation


@pytest.mark.usefixtures("no_socket_forgotten")
@pytest.mark.parametrize("stage", ["name", "tls", "answer", "body", "redirected", "proxy", "tls-in-proxy"])
async def test_cancelling_while_opening(
    tls: ssl.SSLContext, ca_file: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if stage == "tls-in-proxy":
            await read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        if stage == "redirected":
            head = await read_head(reader)
            if b"/again" not in head:
                writer.write(http(302, "Location: /again"))
                return
        if stage == "body":
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n")
        if stage not in ("redirected",):
            await reader.read(1)
        arrived.set()
        try:
            await reader.read()
        finally:
            gone.set()

    async def never_resolves(*_: object, **__: object) -> object:
        arrived.set()
        try:
            return await asyncio.Event().wait()
        finally:
            gone.set()

    async with raw_relay(tls if stage in ("answer", "body", "redirected") else None, script) as relay:
        tunnels = tunnels_to(relay, ca_file)
        if stage == "name":
            tunnels = WebSocketTunnels()
            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never_resolves)
        if "proxy" in stage:
            tunnels = WebSocketTunnels()
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{relay.port}")
        opening = asyncio.create_task(tunnels.open(NEW))
        await arrived.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await gone.wait()
    await nothing_runs()


@pytest.mark.usefixtures("no_socket_forgotten")
@pytest.mark.parametrize("steps", range(1, 40))
async def test_cancelling_after_any_number_of_steps(tls: ssl.SSLContext, ca_file: Path, steps: int) -> None:
    """Wherever the cancel falls between the TCP connection and the open channel, the relay sees the end."""
    async with websocket_relay(tls) as relay:
        opening = asyncio.create_task(tunnels_to(relay, ca_file).open(NEW))
        for _ in range(steps):
            await asyncio.sleep(0)
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await opening).aclose()
        if relay.requests:
            await relay.ended.wait()
    await nothing_runs()


@pytest.mark.usefixtures("no_socket_forgotten")
@pytest.mark.parametrize("stage", ["receive", "send", "close", "text"])
async def test_cancelling_an_open_channel(tls: ssl.SSLContext, ca_file: Path, stage: str) -> None:
    async with raw_relay(tls, then_silent(b"\x81\x02hi" if stage == "text" else b"")) as relay:
        channel = await tunnels_to(relay, ca_file).open(NEW)
        if stage == "send":
            await channel.send(bytes(1 << 24))  # the transport takes one message of any size
        steps = {
            "receive": channel.receive,
            "text": channel.receive,
            "send": lambda: channel.send(bytes(1 << 20)),
            "close": channel.aclose,
        }
        task: asyncio.Task[object] = asyncio.ensure_future(steps[stage]())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await channel.aclose()
        await nothing_runs(besides=1)


async def test_receive_can_be_cancelled_and_called_again(tls: ssl.SSLContext, ca_file: Path) -> None:
    go = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        await go.wait()
        await connection.send(b"late")

    async with opened(tls, ca_file, handler) as channel:
        receiving = asyncio.create_task(channel.receive())
        await asyncio.sleep(0)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        go.set()
        assert await channel.receive() == b"late"


# Secrets


async def test_nothing_logged_or_raised_names_a_tunnel(
    tls: ssl.SSLContext, ca_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    spoken: list[str] = []

    async def handler(connection: ServerConnection) -> None:
        await connection.send(b"hidden words")
        await connection.wait_closed()

    async with opened(tls, ca_file, handler) as channel:
        assert await channel.receive() == b"hidden words"
        await channel.send(b"more hidden words")
        spoken.append(repr(channel))
    for location in ("ws://127.0.0.1/x", "wss://127.0.0.1:99999/x"):
        async with answering_relay(tls, http(302, f"Location: {location}")) as relay:
            error = await problem_of(tunnels_to(relay, ca_file).open(CONTACT))
            spoken += traceback.format_exception(error)
    async with answering_relay(tls, http(404)) as relay:
        error = await problem_of(tunnels_to(relay, ca_file).open(NEW))
        spoken += traceback.format_exception(error)
    spoken += [
        f"{record.name} {record.getMessage()}"
        for record in caplog.records
        if not record.name.startswith("websockets.server")  # the relay of this test
    ]
    everything = "\n".join(spoken).lower()
    assert f"opening a tunnel at {DOMAIN}" in everything
    for secret in (TUNNEL_ID.hex(), "c29tzsbjb250ywn0", "a1b2", "hidden", "0a0b0c"):
        assert secret not in everything
