"""Configurations for balancers: judged by the programs themselves, and with tunnels going through them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.packaging.programs import need
from tunnel_server.__main__ import command
from tunnel_server.proxies import Front, Node, check_nodes, envoy, parse_node

from . import cluster_rig
from .cluster_rig import Refused, eventually, load, node, opened, transaction, tunnel
from .test_nodes import free_port
from .tls import Certificate

TWO = ("--node", "a=127.0.0.1:8001,1,9001", "--node", "b=[::1]:8002,171,9002")
FULL = bool(os.environ.get("HYBRID_SOAK"))


def written(*arguments: str) -> str:
    result = CliRunner().invoke(command, ["proxy-config", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a=127.0.0.1:80,0", Node("a", "127.0.0.1", 80, 0, None)),
        ("node-1=relay.example:65535,255,9090", Node("node-1", "relay.example", 65535, 255, 9090)),
        ("a=[2001:db8::1]:80,7", Node("a", "[2001:db8::1]", 80, 7, None)),
    ],
)
def test_nodes(text: str, parsed: Node) -> None:
    assert parse_node(text) == parsed


@pytest.mark.parametrize(
    "text",
    ["", "a", "a=b", "a=b:1", "a=b:1,256", "a=b:0,1", "a=b:65536,1", "a=b:1,1,0", "a b=c:1,1", "a=b c:1,1", "a=b;c:1,1",
     "a=b:1,1\n", "1=b:1,1", "a=b:1,-1", "a=b:1,1,1,1"],
)  # fmt: skip
def test_what_is_no_node(text: str) -> None:
    with pytest.raises(ValueError, match=r".|^$"):
        parse_node(text)


@pytest.mark.parametrize("same", ["a=x:2,2", "b=h:1,2", "b=x:2,1"])
def test_nodes_that_are_mixed_up(same: str) -> None:
    with pytest.raises(ValueError, match="two nodes have the"):
        check_nodes([parse_node("a=h:1,1"), parse_node(same)])


def test_the_pattern_is_that_of_the_node() -> None:
    pattern = parse_node("a=h:1,171").path_pattern
    number = secrets.token_hex(16)
    for good in ("AB0000", "abffff", "aB12cD"):
        assert re.match(pattern, f"/cable/connect/{good}/{number}", re.IGNORECASE)
    for bad in ("BA0000", "0ab000", "ab000", "ab00000", "abzzzz"):
        assert not re.match(pattern, f"/cable/connect/{bad}/{number}", re.IGNORECASE)
    assert not re.match(pattern, f"/cable/new/ab0000/{number}", re.IGNORECASE)


def test_nodes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text('port = 1\nnodes = ["a=127.0.0.1:8001,1,9001", "b=[::1]:8002,171,9002"]\n')
    for kind in ("haproxy", "nginx", "envoy"):
        assert written(kind, "--config", str(file)) == written(kind, *TWO)


@pytest.mark.parametrize("arguments", [[], ["--node", "a"], ["--node", "a=h:1,1", "--node", "a=h:2,2"]])
def test_no_configuration_without_good_nodes(arguments: list[str]) -> None:
    result = CliRunner().invoke(command, ["proxy-config", "haproxy", *arguments])
    assert result.exit_code != 0
    assert result.stdout == ""


@pytest.fixture
def bundle(certificate: Certificate, tmp_path: Path) -> str:
    """Chain and key in one file."""
    path = tmp_path / "bundle.pem"
    path.write_bytes(certificate.cert.read_bytes() + certificate.key.read_bytes())
    return str(path)


async def judged(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *words, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output = b"".join(await process.communicate()).decode()
    assert process.returncode == 0, output
    assert not re.search("(?i)warning", output), output


def nginx_file(folder: Path, config: str) -> str:
    """A whole configuration around what goes into the http block, without a daemon and without root's folders."""
    path = folder / "nginx.conf"
    folders = "".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    path.write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr crit;\n"
        f"events {{}}\nhttp {{ {folders}\n{config}\n}}\n"
    )
    return str(path)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_haproxy_accepts_it(secure: bool, bundle: str, tmp_path: Path) -> None:
    need("haproxy")
    path = tmp_path / "haproxy.cfg"
    path.write_text(written("haproxy", *TWO, *(("--bundle", bundle) if secure else ())))
    await judged("haproxy", "-c", "-f", str(path))


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_nginx_accepts_it(secure: bool, bundle: str, tmp_path: Path) -> None:
    need("nginx")
    config = written("nginx", *TWO, *(("--bundle", bundle) if secure else ()))
    await judged("nginx", "-t", "-q", "-e", "stderr", "-c", nginx_file(tmp_path, config))


@pytest.mark.slow
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_envoy_accepts_it(secure: bool, bundle: str, tmp_path: Path) -> None:
    need("envoy")
    path = tmp_path / "envoy.json"
    path.write_text(written("envoy", *TWO, *(("--bundle", bundle) if secure else ())))
    await judged("envoy", "--mode", "validate", "--log-level", "warning", "-c", str(path))


def test_envoy_gets_json_whose_parts_fit() -> None:
    config = json.loads(written("envoy", *TWO, "--bundle", "/etc/relay.pem"))["static_resources"]
    clusters = {cluster["name"]: cluster for cluster in config["clusters"]}
    assert set(clusters) == {"ready", "node-a", "node-b"}
    manager = config["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert [route["route"]["cluster"] for route in routes] == ["node-a", "node-b", "ready"]
    number = secrets.token_hex(16)
    pattern = routes[1]["match"]["safe_regex"]["regex"]
    assert re.fullmatch(pattern, f"/cable/connect/AB0123/{number}")
    assert not re.fullmatch(pattern, f"/cable/connect/010123/{number}")
    assert routes[2]["route"]["retry_policy"]["retriable_status_codes"] == [503]
    (check,) = clusters["ready"]["health_checks"]
    assert check["http_health_check"]["path"] == "/readyz"
    assert check["no_traffic_interval"] == "1s", "or a node that comes back is found after a minute"
    assert "health_checks" not in clusters["node-a"], "a node that drains still gets its joins"
    for kind in _types(config):
        assert kind.startswith("type.googleapis.com/envoy.extensions.")


def _types(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["@type"]] if "@type" in value else []
        return own + [kind for part in value.values() for kind in _types(part)]
    return [kind for part in value for kind in _types(part)] if isinstance(value, list) else []


def test_envoy_without_admin_ports_checks_nothing() -> None:
    config = json.loads(envoy([parse_node("a=h:1,1")], Front("", 80, None)))
    assert "health_checks" not in config["static_resources"]["clusters"][0]


# --- with tunnels -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def running(*words: str, port: int) -> AsyncIterator[int]:
    """A balancer as a process that ends with the context; its port."""
    process = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.PIPE)
    try:
        await eventually(lambda: answers(port))
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        _, errors = await process.communicate()
    assert b"ALERT" not in errors, errors.decode()


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.transport.abort()
    return True


def node_options(number: int, kind: str) -> list[str]:
    trust = ["--trusted-proxy", "127.0.0.1", *(["--proxy-protocol"] if kind != "nginx" else [])]
    return ["--node", str(number), *trust, "--log-level", "info"]


def described(relay: cluster_rig.Node, number: int) -> str:
    return f"n{number}=127.0.0.1:{relay.port},{number},{relay.ports['admin']}"


@asynccontextmanager
async def front(
    kind: str, folder: Path, nodes: list[cluster_rig.Node], bundle: str | None = None
) -> AsyncIterator[int]:
    """A balancer of `kind` in front of `nodes`, which are numbered from 1."""
    need(kind)
    held, port = free_port()
    words = [word for number, relay in enumerate(nodes, 1) for word in ("--node", described(relay, number))]
    secure = ["--bundle", bundle] if bundle else []
    config = written(kind, *words, "--listen", f"127.0.0.1:{port}", *secure)
    held.close()
    if kind == "haproxy":
        path = folder / "haproxy.cfg"
        path.write_text(config)
        command_line = ["haproxy", "-db", "-f", str(path)]
    elif kind == "envoy":
        path = folder / "envoy.json"
        path.write_text(config)
        command_line = ["envoy", "--disable-hot-restart", "--concurrency", "2", "--log-level", "error", "-c", str(path)]
    else:
        command_line = ["nginx", "-e", "stderr", "-c", nginx_file(folder, config)]
    async with running(*command_line, port=port):
        yield port


@pytest.mark.slow
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kind", ["haproxy", "nginx", "envoy"])
async def test_tunnels_through(kind: str, secure: bool, bundle: str, certificate: Certificate, tmp_path: Path) -> None:
    context: ssl.SSLContext | None = certificate.client_context() if secure else None
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(node("--workers", str(number), *node_options(number, kind)))
            for number in (1, 2)
        ]
        port = await stack.enter_async_context(front(kind, tmp_path, nodes, bundle if secure else None))
        seen = set()
        for _ in range(12):
            async with tunnel(port, context=context) as (owner, guest):
                seen.add(owner.owner >> 16)
                assert await owner.alive(guest)
        for _ in range(12):
            await transaction(port, context=context)
        assert seen == {1, 2}, "new tunnels go to both"
        assert (await nodes[0].figures())["handed_over_total"] == 0, "no join came to the wrong node"
        for path, status in (("/", 404), ("/cable/new/0", 400), ("/cable/contact/AAAA", 503)):
            with pytest.raises(Refused, match=str(status)):
                await opened(port, path, context)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["haproxy", "nginx", "envoy"])
async def test_limits_count_who_stands_behind_the_balancer(kind: str, tmp_path: Path) -> None:
    """Four tunnels a client address; the balancer itself comes from one address and has no limit."""
    limits = ("--limit-loopback", "--max-per-address", "4")
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(node(*limits, *node_options(1, kind)))]
        port = await stack.enter_async_context(front(kind, tmp_path, nodes))
        held = []
        for address in ("127.0.0.2", "127.0.0.3"):
            refused = 0
            for _ in range(6):
                try:
                    held.append(await opened(port, f"/cable/new/{secrets.token_hex(16)}", None, source=address))
                except Refused as exc:
                    refused += exc.status == 429
            assert refused == 2
        assert len(held) == 8
        for side in held:
            side.abort()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["haproxy", "envoy"])
async def test_who_is_not_ready_gets_no_new_tunnel(kind: str, tmp_path: Path) -> None:
    """Two good nodes, but what answers for the second one's /readyz says no."""
    asked: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(node(*node_options(number, kind))) for number in (1, 2)]
        admin = await stack.enter_async_context(await asyncio.start_server(refuse, "127.0.0.1", 0))
        nodes[1] = replace(nodes[1], ports={**nodes[1].ports, "admin": admin.sockets[0].getsockname()[1]})
        port = await stack.enter_async_context(front(kind, tmp_path, nodes))

        async def only_the_first() -> bool:
            owners = set()
            for _ in range(4):
                async with tunnel(port) as (owner, _):
                    owners.add(owner.owner >> 16)
            return owners == {1}

        await eventually(only_the_first)
        assert {line.split()[1] for line in asked} == {b"/readyz"}


@pytest.mark.slow
async def test_more_tunnels_than_envoy_allows_by_itself(tmp_path: Path) -> None:
    many = 1100
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(node(*node_options(1, "envoy")))]
        port = await stack.enter_async_context(front("envoy", tmp_path, nodes))
        for _ in range(many):
            stack.callback((await opened(port, f"/cable/new/{secrets.token_hex(16)}")).abort)
        await nodes[0].until(pending=many)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["haproxy", "nginx", "envoy"])
async def test_a_node_drains_and_dies(kind: str, tmp_path: Path) -> None:
    """Joins still reach a node that drains, new tunnels go to the other one, which notices nothing of a death."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(node(*node_options(number, kind))) for number in (1, 2)]
        port = await stack.enter_async_context(front(kind, tmp_path, nodes))
        waiting: dict[int, tuple[str, cluster_rig.Side]] = {}
        while len(waiting) < 2:
            number = secrets.token_hex(16)
            side = await opened(port, f"/cable/new/{number}")
            if waiting.setdefault(side.owner >> 16, (number, side))[1] is not side:
                side.abort()  # each thread of Envoy goes round by itself
        nodes[0].process.terminate()
        await eventually(lambda: nodes[0].said("no new tunnels"))
        for _ in range(6):
            async with tunnel(port) as (owner, guest):
                assert owner.owner >> 16 == 2
                assert await owner.alive(guest)
        pairs = []
        for node_id in (1, 2):
            number, side = waiting[node_id]
            guest = await opened(port, f"/cable/connect/{side.routing_id}/{number}")
            assert await side.alive(guest)
            pairs.append((side, guest))
        nodes[0].process.kill()
        for side in pairs[0]:
            assert await side.ending() is None
            side.abort()
        for _ in range(6):
            await transaction(port)
        assert await pairs[1][0].alive(pairs[1][1])
        for side in pairs[1]:
            side.abort()


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(0 if FULL else 180)
@pytest.mark.parametrize("kind", ["haproxy", "envoy"])
async def test_rolling_restart_of_everything(kind: str, tmp_path: Path, record_property: Any) -> None:
    """Two nodes with two workers each, 100 transactions a second: workers replaced, then nodes ended and started."""
    rounds = 5 if FULL else 1
    async with AsyncExitStack() as stack:
        held = [free_port() for _ in range(4)]
        options = [
            [
                *("--workers", "2", "--port", str(held[index][1]), "--admin", f"127.0.0.1:{held[index + 2][1]}"),
                *node_options(index + 1, kind),
            ]
            for index in range(2)
        ]
        stacks = [AsyncExitStack(), AsyncExitStack()]
        for one in stacks:
            stack.push_async_callback(one.aclose)
        nodes = [await one.enter_async_context(node(*words)) for one, words in zip(stacks, options, strict=True)]
        for listening, _ in held:
            listening.close()
        port = await stack.enter_async_context(front(kind, tmp_path, nodes))
        async with load(100, port) as counted:
            for _ in range(rounds):
                for index in range(2):
                    relay = nodes[index]
                    relay.process.send_signal(signal.SIGUSR2)
                    await eventually(partial(relay.said, "every worker is a new one"))
                    relay.process.terminate()
                    assert await relay.ended() == 0
                    await stacks[index].aclose()
                    nodes[index] = await stacks[index].enter_async_context(node(*options[index]))
                    await nodes[index].until(workers=2, ready=1)
                    # the balancer looks once a second, and the other node must not go before it has seen this one
                    served = (await nodes[index].figures())["upgrade_seconds_count"]
                    await eventually(partial(grown, nodes[index], served))
        record_property(f"transactions across rolling restarts of two nodes with two workers, {kind}", counted.done)
        record_property("of which failed", counted.failures.total())
        assert not counted.failures, counted
        assert counted.done > 100


async def grown(relay: cluster_rig.Node, served: float) -> bool:
    return (await relay.figures())["upgrade_seconds_count"] > served + 20
