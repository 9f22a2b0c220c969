"""The way to a relay: redirects and proxies."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from hybrid.adapters.websocket_tunnel import WebSocketTunnels
from hybrid.errors import LinkGone, TunnelProblem
from hybrid.testing.throwaway_ca import ThrowawayCA
from tests.adapters.relay_doubles import (
    DOMAIN,
    Proxy,
    answering_relay,
    connect_proxy,
    http,
    resolve_everything_to,
    websocket_relay,
)
from tests.adapters.tunnel_steps import (
    CONTACT,
    NEW,
    problem_of,
    tunnels_to,
)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_to_another_host_keeps_headers(tls: ssl.SSLContext, ca_file: Path, status: int) -> None:
    async with websocket_relay(tls) as second:
        location = f"Location: wss://{second.address}/other?x=1"
        async with answering_relay(tls, http(status, location)) as first:
            channel = await tunnels_to(first, ca_file).open(CONTACT)
            await channel.aclose()
    before, after = first.requests[0].headers, second.requests[0].headers
    assert second.requests[0].path == "/other?x=1"
    assert after["Host"] == second.address
    for name in ("Origin", "Sec-WebSocket-Protocol", "X-caBLE-Client-Payload", "X-caBLE-Signal-Connection"):
        assert after.get_all(name) == before.get_all(name) != []


@pytest.mark.parametrize("location", ["/other", f"wss://{DOMAIN}/other", f"https://{DOMAIN}:443/other#part"])
async def test_redirect_to_the_same_domain_stays_at_the_override(
    tls: ssl.SSLContext, ca_file: Path, location: str
) -> None:
    async with answering_relay(tls, http(307, f"Location: {location}"), http(404)) as relay:
        error = await problem_of(tunnels_to(relay, ca_file).open(NEW))
    assert error.status == 404
    assert [request.path for request in relay.requests][1:] == ["/other"]
    assert relay.requests[1].headers["Host"] == DOMAIN


@pytest.mark.parametrize(("redirects", "reason"), [(5, TunnelProblem.STATUS), (6, TunnelProblem.REDIRECT)])
async def test_at_most_five_redirects(
    tls: ssl.SSLContext, ca_file: Path, redirects: int, reason: TunnelProblem
) -> None:
    answers = [http(302, "Location: /again")] * redirects + [http(404)]
    async with answering_relay(tls, *answers) as relay:
        error = await problem_of(tunnels_to(relay, ca_file).open(NEW))
    assert error.reason is reason
    assert len(relay.requests) == 6


async def test_certificate_is_checked_after_a_redirect(ca: ThrowawayCA, tls: ssl.SSLContext, ca_file: Path) -> None:
    async with websocket_relay(ca.server_context("elsewhere.example")) as second:
        async with answering_relay(tls, http(307, f"Location: wss://{second.address}/")) as first:
            error = await problem_of(tunnels_to(first, ca_file).open(NEW))
    assert error.reason is TunnelProblem.CERTIFICATE
    assert error.host == "127.0.0.1"
    assert second.requests == []


async def test_410_after_a_redirect_still_means_gone(tls: ssl.SSLContext, ca_file: Path) -> None:
    async with answering_relay(tls, http(307, "Location: /moved"), http(410)) as relay:
        assert isinstance(await problem_of(tunnels_to(relay, ca_file).open(CONTACT)), LinkGone)


@pytest.mark.parametrize(
    "location",
    [
        [],
        ["Location: /a", "Location: /b"],
        ["Location: ws://127.0.0.1/x"],
        ["Location: http://127.0.0.1/x"],
        ["Location: file:///etc/passwd"],
        ["Location: wss://user:secret@127.0.0.1/x"],
        ["Location: wss://127.0.0.1:0/x"],
        ["Location: wss://127.0.0.1:99999/x"],
        ["Location: wss://[::1/x"],
        ["Location: wss://a%0d%0ab/x"],
        ["Location: /a b"],
    ],
)
async def test_faulty_redirects(tls: ssl.SSLContext, ca_file: Path, location: list[str]) -> None:
    async with answering_relay(tls, http(302, *location)) as relay:
        error = await problem_of(tunnels_to(relay, ca_file).open(NEW))
    assert (error.reason, error.status) == (TunnelProblem.REDIRECT, 302)
    assert len(relay.requests) == 1


async def test_loopback_relay_does_not_lead_off_this_machine(
    tls: ssl.SSLContext, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering_relay(tls, http(307, "Location: wss://192.0.2.1/x")) as relay:
        error = await problem_of(tunnels_to(relay, ca_file).open(NEW))
    assert error.reason is TunnelProblem.REDIRECT


async def test_another_relay_may_redirect_anywhere(
    tls: ssl.SSLContext, ca: ThrowawayCA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its address override is not used for the other host."""
    context = ca.server_context(DOMAIN, "other.example")
    async with answering_relay(context, http(307, "Location: wss://other.example/x"), http(404)) as relay:
        connected = resolve_everything_to(relay, monkeypatch)
        error = await problem_of(WebSocketTunnels(relay="relay.example:8443", relay_ca=ca_file).open(NEW))
    assert (error.host, error.status) == ("other.example", 404)
    assert connected == [("relay.example", 8443), ("other.example", 443)]
    assert relay.requests[1].headers["Host"] == "other.example"


# Proxies


async def test_proxy_of_the_environment(tls: ssl.SSLContext, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with websocket_relay(tls) as relay, connect_proxy(Proxy(relay.port)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        await (await WebSocketTunnels(relay_ca=ca_file).open(NEW)).aclose()
        for address in ("relay.example:8443", "[2001:db8::1]:443"):
            await (await WebSocketTunnels(relay=address, relay_ca=ca_file).open(NEW)).aclose()
    assert proxy.requests == [
        f"CONNECT {DOMAIN}:443 HTTP/1.1",
        "CONNECT relay.example:8443 HTTP/1.1",
        "CONNECT [2001:db8::1]:443 HTTP/1.1",
    ]
    assert [request.headers["Host"] for request in relay.requests] == [DOMAIN] * 3


async def test_loopback_relay_never_goes_through_a_proxy(
    tls: ssl.SSLContext, ca_file: Path, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{unused_tcp_port}")
    async with websocket_relay(tls) as relay:
        await (await tunnels_to(relay, ca_file).open(NEW)).aclose()
        tunnels = WebSocketTunnels(relay=f"localhost:{relay.port}", relay_ca=ca_file)
        await (await tunnels.open(NEW)).aclose()
    assert len(relay.requests) == 2


async def test_no_proxy_names_hosts_to_reach_directly(
    tls: ssl.SSLContext, ca_file: Path, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{unused_tcp_port}")
    monkeypatch.setenv("NO_PROXY", "ua5v.com")
    async with websocket_relay(tls) as relay:
        resolve_everything_to(relay, monkeypatch)
        await (await WebSocketTunnels(relay_ca=ca_file).open(NEW)).aclose()
    assert len(relay.requests) == 1


async def test_certificate_is_checked_through_a_proxy(
    ca: ThrowawayCA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with websocket_relay(ca.server_context("cable.auth.com")) as relay:
        async with connect_proxy(Proxy(relay.port)) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            error = await problem_of(WebSocketTunnels(relay_ca=ca_file).open(NEW))
    assert error.reason is TunnelProblem.CERTIFICATE


async def test_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connect_proxy(Proxy(status=407)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@127.0.0.1:{proxy.port}")
        error = await problem_of(WebSocketTunnels().open(NEW))
    assert (error.reason, error.status) == (TunnelProblem.PROXY, None)
    assert str(error) == f"cannot reach {DOMAIN} through the proxy 127.0.0.1: it answers with status 407"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_proxy_that_is_absent(monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int, scheme: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://127.0.0.1:{unused_tcp_port}")
    error = await problem_of(WebSocketTunnels().open(NEW))
    assert error.reason is TunnelProblem.PROXY
    assert str(error) == f"cannot reach {DOMAIN} through the proxy 127.0.0.1: connection refused"


async def test_https_proxy_that_is_not_trusted(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering_relay(tls, b"never sent") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"https://127.0.0.1:{proxy.port}")
        error = await problem_of(WebSocketTunnels().open(NEW))
    assert error.reason is TunnelProblem.PROXY


@pytest.mark.parametrize("setting", ["gopher://127.0.0.1:1", "http://", "http://me@127.0.0.1:1", "http://[:1"])
async def test_proxy_setting_that_is_none(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", setting)
    error = await problem_of(WebSocketTunnels().open(NEW))
    assert error.reason is TunnelProblem.PROXY
    assert setting not in str(error)
