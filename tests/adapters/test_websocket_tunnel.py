"""Opening a tunnel: what is asked, of whom, and what each answer means."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from hybrid.adapters import websocket_tunnel
from hybrid.adapters.relay_address import parse_address
from hybrid.adapters.websocket_tunnel import WebSocketTunnels
from hybrid.errors import LinkGone, LocalProtocolError, TunnelError, TunnelProblem
from hybrid.ports import Channel, TunnelService
from hybrid.protocol.tunnel import Contact, TunnelRequest
from hybrid.testing.throwaway_ca import ThrowawayCA
from tests.adapters.relay_doubles import (
    DOMAIN,
    answering_relay,
    http,
    parse_head,
    raw_relay,
    read_head,
    resolve_everything_to,
    switching,
    websocket_relay,
)
from tests.adapters.tunnel_steps import (
    CONNECT,
    CONTACT,
    NEW,
    TUNNEL_ID,
    problem_of,
    tunnels_to,
)

# What is sent


async def test_it_fits_the_ports(tls: ssl.SSLContext, ca_file: Path) -> None:
    async with websocket_relay(tls) as relay:
        service: TunnelService = tunnels_to(relay, ca_file)
        channel: Channel = await service.open(NEW)
        assert channel.bounded
        await channel.aclose()


async def test_request_headers_are_those_of_a_browser_without_its_extras(tls: ssl.SSLContext, ca_file: Path) -> None:
    async with websocket_relay(tls) as relay:
        channel = await tunnels_to(relay, ca_file).open(NEW)
        await channel.aclose()
    (request,) = relay.requests
    assert request.path == f"/cable/new/{TUNNEL_ID.hex().upper()}"
    headers = {name.lower(): value for name, value in request.headers.raw_items()}
    assert len(headers) == len(list(request.headers.raw_items()))
    headers.pop("sec-websocket-key")
    assert headers == {
        "host": DOMAIN,
        "origin": f"wss://{DOMAIN}",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-protocol": "fido.cable",
    }


async def test_contact_sends_its_own_headers(tls: ssl.SSLContext, ca_file: Path) -> None:
    async with websocket_relay(tls) as relay:
        channel = await tunnels_to(relay, ca_file).open(CONTACT)
        await channel.aclose()
    (request,) = relay.requests
    assert request.path == "/cable/contact/c29tZSBjb250YWN0"
    assert request.headers["X-caBLE-Client-Payload"] == "A1B2"
    assert request.headers["X-caBLE-Signal-Connection"] == "true"


async def test_tls_asks_for_the_domain_of_the_service(ca: ThrowawayCA, ca_file: Path) -> None:
    asked: list[str | None] = []
    context = ca.server_context(DOMAIN)
    context.sni_callback = lambda _, name, __: asked.append(name)
    async with websocket_relay(context) as relay:
        await (await tunnels_to(relay, ca_file).open(NEW)).aclose()
    assert asked == [DOMAIN]


# Overrides


async def test_relay_name_replaces_tls_name_host_and_origin(ca: ThrowawayCA, ca_file: Path) -> None:
    asked: list[str | None] = []
    context = ca.server_context("relay.test")
    context.sni_callback = lambda _, name, __: asked.append(name)
    async with websocket_relay(context) as relay:
        tunnels = WebSocketTunnels(relay=relay.address, relay_name="relay.test", relay_ca=ca_file)
        await (await tunnels.open(NEW)).aclose()
    (request,) = relay.requests
    assert asked == ["relay.test"]
    assert request.headers["Host"] == "relay.test"
    assert request.headers["Origin"] == "wss://relay.test"


async def test_relay_name_works_alone(ca: ThrowawayCA, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address the domain itself is connected to, on port 443, and the name is still the one expected."""
    async with websocket_relay(ca.server_context("relay.test")) as relay:
        connected = resolve_everything_to(relay, monkeypatch)
        await (await WebSocketTunnels(relay_name="relay.test", relay_ca=ca_file).open(NEW)).aclose()
    assert connected == [(DOMAIN, 443)]
    assert relay.requests[0].headers["Host"] == "relay.test"


async def test_without_overrides_the_domain_is_connected_to(
    tls: ssl.SSLContext, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with websocket_relay(tls) as relay:
        connected = resolve_everything_to(relay, monkeypatch)
        await (await WebSocketTunnels(relay_ca=ca_file).open(NEW)).aclose()
    assert connected == [(DOMAIN, 443)]


async def test_an_ip_address_can_be_the_relay_name(ca: ThrowawayCA, ca_file: Path) -> None:
    async with websocket_relay(ca.server_context("::1")) as relay:
        tunnels = WebSocketTunnels(relay=relay.address, relay_name="::1", relay_ca=ca_file)
        await (await tunnels.open(NEW)).aclose()
    assert relay.requests[0].headers["Host"] == "[::1]"
    assert relay.requests[0].headers["Origin"] == "wss://[::1]"


async def test_an_ipv6_relay(tls: ssl.SSLContext, ca_file: Path) -> None:
    try:
        context = websocket_relay(tls, host="::1")
        async with context as relay:
            tunnels = WebSocketTunnels(relay=f"[::1]:{relay.port}", relay_ca=ca_file)
            await (await tunnels.open(NEW)).aclose()
    except OSError as error:
        if not isinstance(error, TunnelError):
            pytest.skip(f"no IPv6 loopback here: {error}")
        raise


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("relay.example:443", ("relay.example", 443)),
        ("localhost:8443", ("localhost", 8443)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
        ("[2001:db8::1]:65535", ("2001:db8::1", 65535)),
    ],
)
def test_relay_address(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "relay.example", "relay.example:", ":443", "relay.example:0", "relay.example:65536", "::1:443"),
        *("[::1]", "[127.0.0.1]:443", "[relay.example]:443", "wss://relay.example:443", "a b:443", "a..b:443"),
        *("relay.example:443/", "user@relay.example:443", "relay.example:\u06643", "a" * 64 + ":443"),
    ],
)
def test_relay_address_refused(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        WebSocketTunnels(relay=text)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "relay.example:443", "a\r\nX: y", "[::1]", "@"])
def test_relay_name_refused(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        WebSocketTunnels(relay_name=name)


@pytest.mark.parametrize(
    ("relay", "loopback"),
    [
        (None, False),
        ("localhost:1", True),
        ("LOCALHOST:1", True),
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("192.168.0.1:1", False),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("localhost.example:1", False),
        ("127.0.0.1.example:1", False),
    ],
)
def test_loopback_is_said_of_literal_addresses_only(relay: str | None, loopback: bool) -> None:
    assert WebSocketTunnels(relay=relay, relay_name="localhost").loopback is loopback


# Trust


async def test_unknown_authority(tls: ssl.SSLContext) -> None:
    async with websocket_relay(tls) as relay:
        error = await problem_of(WebSocketTunnels(relay=relay.address).open(NEW))
    assert error.reason is TunnelProblem.CERTIFICATE
    assert relay.requests == []


async def test_certificate_for_another_name(ca: ThrowawayCA, ca_file: Path) -> None:
    async with websocket_relay(ca.server_context("cable.auth.com", "127.0.0.1")) as relay:
        error = await problem_of(tunnels_to(relay, ca_file).open(NEW))
    assert error.reason is TunnelProblem.CERTIFICATE
    assert error.host == DOMAIN
    assert relay.requests == []


async def test_missing_ca_file(tmp_path: Path) -> None:
    error = await problem_of(WebSocketTunnels(relay="127.0.0.1:1", relay_ca=tmp_path / "no.pem").open(NEW))
    assert error.reason is TunnelProblem.CERTIFICATE
    assert str(error) == f"the CA file {tmp_path}/no.pem cannot be used: no such file or directory"


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
async def test_garbled_ca_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pem"
    path.write_bytes(content)
    error = await problem_of(WebSocketTunnels(relay="127.0.0.1:1", relay_ca=path).open(NEW))
    assert error.reason is TunnelProblem.CERTIFICATE
    assert str(error) == f"the CA file {path} cannot be used: it holds no certificate"


# Nobody there


async def test_refused_connection(unused_tcp_port: int) -> None:
    error = await problem_of(WebSocketTunnels(relay=f"127.0.0.1:{unused_tcp_port}").open(NEW))
    assert error.reason is TunnelProblem.UNREACHABLE
    assert str(error) == f"cannot reach {DOMAIN} at 127.0.0.1:{unused_tcp_port}: connection refused"


async def test_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    error = await problem_of(WebSocketTunnels().open(NEW))
    assert error.reason is TunnelProblem.UNREACHABLE
    assert str(error) == f"cannot reach {DOMAIN}: its name cannot be resolved"


@pytest.mark.parametrize("first", ["refuses", "silent"])
async def test_a_dead_address_is_not_the_end(
    tls: ssl.SSLContext,
    ca_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    unused_tcp_port: int,
    first: str,
) -> None:
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect

    async def sock_connect(sock: socket.socket, address: tuple[str, int]) -> None:
        if first == "silent" and address[1] == unused_tcp_port:
            await asyncio.Event().wait()
        await connect(sock, address)

    async with websocket_relay(tls) as relay:

        async def getaddrinfo(*_: object, **__: object) -> object:
            ports = (unused_tcp_port, relay.port)
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for port in ports]

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        monkeypatch.setattr(loop, "sock_connect", sock_connect)
        monkeypatch.setattr(websocket_tunnel, "_NEXT_ADDRESS_SECONDS", 0.01)
        await (await WebSocketTunnels(relay_ca=ca_file).open(NEW)).aclose()
    assert len(relay.requests) == 1


async def test_no_tls(ca_file: Path) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 this is plain HTTP\r\n\r\n")
        await reader.read()

    async with raw_relay(None, script) as relay:
        error = await problem_of(tunnels_to(relay, ca_file).open(NEW))
    assert error.reason is TunnelProblem.UNREACHABLE
    assert str(error).endswith("it does not speak TLS as it should")


async def test_hang_up_during_tls(ca_file: Path) -> None:
    async def script(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with raw_relay(None, script) as relay:
        error = await problem_of(tunnels_to(relay, ca_file).open(NEW))
    assert error.reason is TunnelProblem.UNREACHABLE


async def test_hang_up_instead_of_an_answer(tls: ssl.SSLContext, ca_file: Path) -> None:
    async def script(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_head(reader)

    async with raw_relay(tls, script) as relay:
        error = await problem_of(tunnels_to(relay, ca_file).open(NEW))
    assert error.reason is TunnelProblem.LOST
    assert str(error) == f"{DOMAIN} hung up without an answer"


# Statuses and headers of the answer


@pytest.mark.parametrize("status", [200, 300, 304, 400, 403, 404, 405, 409, 426, 429, 500, 503])
async def test_other_statuses(tls: ssl.SSLContext, ca_file: Path, status: int) -> None:
    async with answering_relay(tls, http(status)) as relay:
        error = await problem_of(tunnels_to(relay, ca_file).open(CONTACT))
    assert type(error) is TunnelError
    assert (error.reason, error.status) == (TunnelProblem.STATUS, status)
    assert str(error) == f"{DOMAIN} answers with status {status}"


async def test_410_on_contact_means_the_link_is_gone(tls: ssl.SSLContext, ca_file: Path) -> None:
    async with answering_relay(tls, http(410)) as relay:
        error = await problem_of(tunnels_to(relay, ca_file).open(CONTACT))
    assert type(error) is LinkGone
    assert error.host == DOMAIN


@pytest.mark.parametrize("request_", [NEW, CONNECT], ids=["new", "connect"])
async def test_410_elsewhere_is_only_a_status(tls: ssl.SSLContext, ca_file: Path, request_: TunnelRequest) -> None:
    async with answering_relay(tls, http(410)) as relay:
        error = await problem_of(tunnels_to(relay, ca_file).open(request_))
    assert type(error) is TunnelError
    assert (error.reason, error.status) == (TunnelProblem.STATUS, 410)


async def test_no_http(tls: ssl.SSLContext, ca_file: Path) -> None:
    async with answering_relay(tls, b"220 mail.example ESMTP\r\n") as relay:
        error = await problem_of(tunnels_to(relay, ca_file).open(NEW))
    assert (error.reason, error.status) == (TunnelProblem.STATUS, None)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (["Sec-WebSocket-Protocol: chat"], TunnelProblem.SUBPROTOCOL),
        (["Sec-WebSocket-Protocol: FIDO.CABLE"], TunnelProblem.SUBPROTOCOL),
        (["Sec-WebSocket-Protocol: fido.cable, chat"], TunnelProblem.SUBPROTOCOL),
        (
            ["Sec-WebSocket-Protocol: fido.cable", "Sec-WebSocket-Extensions: permessage-deflate"],
            TunnelProblem.STATUS,
        ),
        (["Sec-WebSocket-Protocol: fido.cable", "Upgrade: h2c"], TunnelProblem.STATUS),
    ],
)
async def test_faulty_handshakes(tls: ssl.SSLContext, ca_file: Path, extra: list[str], reason: TunnelProblem) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = parse_head(await read_head(reader))
        writer.write(switching(request.headers["Sec-WebSocket-Key"], *extra))
        await reader.read()

    async with raw_relay(tls, script) as relay:
        error = await problem_of(tunnels_to(relay, ca_file).open(NEW))
        assert (error.reason, error.status) == (reason, 101)
        await relay.ended.wait()


async def test_relay_that_selects_no_subprotocol(tls: ssl.SSLContext, ca_file: Path) -> None:
    async with websocket_relay(tls, subprotocols=()) as relay:
        error = await problem_of(tunnels_to(relay, ca_file).open(NEW))
        assert error.reason is TunnelProblem.SUBPROTOCOL
        await relay.ended.wait()


@pytest.mark.parametrize("text", ["0A0B0C", "0a0b0c", " 0A0b0C "])
async def test_routing_id(tls: ssl.SSLContext, ca_file: Path, text: str) -> None:
    async with websocket_relay(tls, headers=[("x-cable-routing-id", text)]) as relay:
        channel = await tunnels_to(relay, ca_file).open(NEW)
        assert channel.routing_id == b"\x0a\x0b\x0c"
        await channel.aclose()


@pytest.mark.parametrize("values", [[], ["0A0B0C", "0A0B0C"], ["0A0B"], ["0A0B0C0D"], ["0A0B0G"], [""]])
async def test_faulty_routing_id(tls: ssl.SSLContext, ca_file: Path, values: list[str]) -> None:
    headers = [("X-caBLE-Routing-ID", value) for value in values]
    async with websocket_relay(tls, headers=headers) as relay:
        error = await problem_of(tunnels_to(relay, ca_file).open(NEW))
        assert error.reason is TunnelProblem.ROUTING_ID
        await relay.ended.wait()


@pytest.mark.parametrize("values", [[], ["odd"]])
async def test_routing_id_matters_for_new_only(tls: ssl.SSLContext, ca_file: Path, values: list[str]) -> None:
    headers = [("X-caBLE-Routing-ID", value) for value in values]
    async with websocket_relay(tls, headers=headers) as relay:
        channel = await tunnels_to(relay, ca_file).open(CONNECT)
        assert channel.routing_id is None
        await channel.aclose()


@pytest.mark.parametrize(
    ("request_", "headers", "signals"),
    [
        (CONTACT, [("X-caBLE-Signal-Connection", "anything")], True),
        (CONTACT, [], False),
        (TunnelRequest(DOMAIN, Contact(b"c")), [("X-caBLE-Signal-Connection", "true")], False),
    ],
    ids=["asked-and-echoed", "not-echoed", "not-asked"],
)
async def test_signals(
    tls: ssl.SSLContext,
    ca_file: Path,
    request_: TunnelRequest,
    headers: list[tuple[str, str]],
    signals: bool,
) -> None:
    async with websocket_relay(tls, headers=headers) as relay:
        channel = await tunnels_to(relay, ca_file).open(request_)
        assert channel.signals is signals
        await channel.aclose()
