"""Two machines, here two processes with workers: joins that arrive at the wrong one, over mutual TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import secrets
import shutil
import signal
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509

from tunnel_server.passing import piece

from .cluster_rig import PATIENCE, Node, Refused, eventually, load, node, opened, transaction, tunnel
from .tls import Certificate, make_certificate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def free_port() -> tuple[socket.socket, int]:
    """A port that stays ours as long as the socket is open, and that a relay may bind too."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held, held.getsockname()[1]


def peer_options(number: int, port: int, others: dict[int, int], files: Certificate) -> list[str]:
    return [
        *("--node", str(number), "--peer-listen", f"127.0.0.1:{port}"),
        *(word for other, there in others.items() for word in ("--peer", f"{other}=127.0.0.1:{there}")),
        *("--peer-cert", str(files.cert), "--peer-key", str(files.key), "--peer-ca", str(files.ca)),
    ]


@asynccontextmanager
async def two_nodes(files: Certificate, *options: str, workers: int = 2) -> AsyncIterator[tuple[Node, Node]]:
    held, ports = zip(*(free_port() for _ in range(2)), strict=True)
    several = ("--workers", str(workers), *options)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(node(*several, *peer_options(1, ports[0], {2: ports[1]}, files)))
        second = await stack.enter_async_context(node(*several, *peer_options(2, ports[1], {1: ports[0]}, files)))
        for one in held:
            one.close()
        yield first, second


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_join_at_the_wrong_node_finds_its_owner(loop: str, certificate: Certificate) -> None:
    async with two_nodes(certificate, "--loop", loop) as (first, second):
        for there, here in ((first, second), (second, first)):
            for _ in range(6):
                async with tunnel(there.port, here.port) as (owner, guest):
                    assert owner.owner >> 16 == (1 if there is first else 2)
                    assert await owner.alive(guest)
                    payload = secrets.token_bytes(60000)
                    owner.send(payload)
                    owner.send(struct.pack("!H", 1000), opcode=8)
                    assert await guest.receive() == payload
                    assert await guest.ending() == await owner.ending() == 1000
        assert (await first.figures())["handed_over_total"] >= 6


async def test_no_tunnel_no_worker_no_node(certificate: Certificate) -> None:
    async with two_nodes(certificate, workers=1) as (first, second):
        number = secrets.token_hex(16)
        owner = await opened(first.port, f"/cable/new/{number}")
        for routing_id in (owner.owner, owner.owner ^ 1, owner.owner ^ 1 << 10, 3 << 16):
            with pytest.raises(Refused, match="404"):
                await opened(second.port, f"/cable/connect/{routing_id:06x}/{secrets.token_hex(16)}")
        owner.abort()


async def test_a_dead_node_takes_nobody_along(certificate: Certificate) -> None:
    async with two_nodes(certificate) as (first, second), AsyncExitStack() as stack:
        across = [await stack.enter_async_context(tunnel(first.port, second.port)) for _ in range(6)]
        back = [await stack.enter_async_context(tunnel(second.port, first.port)) for _ in range(6)]
        inside = [await stack.enter_async_context(tunnel(second.port)) for _ in range(6)]
        workers = first.workers().values()
        first.process.kill()
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            for owner, guest in across:
                assert (await owner.ending(), await guest.ending()) == (None, 1001)
            for owner, guest in back:
                assert (await owner.ending(), await guest.ending()) == (1001, None)
            for owner, guest in inside:
                assert await owner.alive(guest)
            await transaction(second.port)
            with pytest.raises(Refused, match="404"):
                await opened(second.port, f"/cable/connect/{across[0][0].routing_id}/{secrets.token_hex(16)}")


async def called(
    port: int, owner: int, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection as another node makes it to a worker.

    Raises:
        OSError
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(owner.to_bytes(3, "big"))
    if context is not None:
        try:
            await writer.start_tls(context, server_hostname="localhost")
        except BaseException:  # also when the test is over
            writer.transport.abort()
            raise
    return reader, writer


async def answer(port: int, owner: int, context: ssl.SSLContext | None, path: str, *lines: str) -> bytes:
    """First line that a worker answers to another node; nothing if it hangs up."""
    head = (f"GET {path} HTTP/1.1", "Host: a", "Upgrade: websocket", "Connection: Upgrade", *lines)
    words = ("Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {22 * 'A'}==", "Sec-WebSocket-Protocol: fido.cable")
    async with asyncio.timeout(PATIENCE):
        try:
            reader, writer = await called(port, owner, context)
        except OSError:
            return b""
        try:
            writer.write(piece("\r\n".join((*head, *words, "", "")).encode()))
            await reader.readexactly(4)
            return await reader.readline()
        except (OSError, asyncio.IncompleteReadError):
            return b""
        finally:
            writer.transport.abort()


async def test_only_nodes_are_let_in(certificate: Certificate, tmp_path: Path) -> None:
    for name in ("strangers", "late"):
        (tmp_path / name).mkdir()
    strangers = make_certificate(tmp_path / "strangers")
    late = make_certificate(tmp_path / "late", expired=True)
    files = files_of(tmp_path / "files", [certificate, late], certificate)
    async with two_nodes(files, workers=1) as (first, _):
        port = first.ports["peers"]
        number = secrets.token_hex(16)
        owner = await opened(first.port, f"/cable/new/{number}")
        path = f"/cable/connect/{owner.routing_id}/{number}"
        hop = "X-Tunnel-Hops: 1"
        stranger = certificate.client_context()
        here = owner.owner
        assert await answer(port, here, None, path, hop) == b"", "plain"
        assert await answer(port, here, stranger, path, hop) == b"", "no certificate"
        stranger.load_cert_chain(strangers.cert, strangers.key)
        assert await answer(port, here, stranger, path, hop) == b"", "another authority's certificate"
        stranger.load_cert_chain(late.cert, late.key)
        assert await answer(port, here, stranger, path, hop) == b"", "a certificate that has expired"
        known = certificate.client_context()
        known.load_cert_chain(certificate.cert, certificate.key)
        for wrong in (
            answer(port, here, known, path),
            answer(port, here, known, f"/cable/new/{number}", hop),
            answer(port, here, known, f"/cable/connect/{2 << 16:06x}/{number}", hop),
            answer(port, here, known, f"/cable/connect/{here ^ 1:06x}/{number}", hop),
            answer(port, here, known, "/", hop),
        ):
            assert (await wrong).startswith(b"HTTP/1.1 404 ")
        assert await answer(port, here ^ 1, known, path, hop) == b"", "no such worker"
        assert (await answer(port, here, known, path, hop)).startswith(b"HTTP/1.1 101 ")
        owner.abort()


async def test_callers_are_counted_before_they_prove_themselves(certificate: Certificate) -> None:
    async with two_nodes(certificate, "--max-connections", "2", workers=1) as (first, _):
        port = first.ports["peers"]
        number = secrets.token_hex(16)
        owner = await opened(first.port, f"/cable/new/{number}")
        known = certificate.client_context()
        known.load_cert_chain(certificate.cert, certificate.key)

        async def join() -> bytes:
            return await answer(
                port, owner.owner, known, f"/cable/connect/{owner.routing_id}/{number}", "X-Tunnel-Hops: 1"
            )

        async def let_in() -> bool:
            return (await join()).startswith(b"HTTP/1.1 101 ")

        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        assert await join() == b""
        for _, writer in silent:
            writer.transport.abort()
        await eventually(let_in)
        owner.abort()


async def test_new_certificates_for_nodes(certificate: Certificate, tmp_path: Path) -> None:
    """Both nodes trust two authorities; one node goes over to a certificate of the second one."""
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other")
    files = Certificate(tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem")
    files.ca.write_bytes(certificate.ca.read_bytes() + other.ca.read_bytes())

    def install(made: Certificate) -> None:
        shutil.copy(made.cert, files.cert)
        shutil.copy(made.key, files.key)

    async def shown(relay: Node) -> str:
        context = files.client_context()
        context.load_cert_chain(certificate.cert, certificate.key)
        _, writer = await called(relay.ports["peers"], next(iter(relay.workers())), context)
        number: str = writer.get_extra_info("peercert")["serialNumber"]
        writer.transport.abort()
        return number

    install(certificate)
    async with two_nodes(files, "--log-level", "info", workers=1) as (first, second):
        async with tunnel(second.port, first.port) as (owner, guest):
            before = await shown(second)
            files.key.write_text("no key at all")
            second.process.send_signal(signal.SIGHUP)
            await eventually(partial(second.said, "certificates for peers cannot be used; the old one stays in use"))
            assert await shown(second) == before
            install(other)
            second.process.send_signal(signal.SIGHUP)
            await eventually(partial(second.said, "new certificates are in use"))
            assert await shown(second) != before
            await transaction(first.port, second.port)
            await transaction(second.port, first.port)
            assert await owner.alive(guest)


def files_of(folder: Path, authorities: Sequence[Certificate], shown: Certificate) -> Certificate:
    """Files of a node that shows one certificate and believes some authorities."""
    folder.mkdir(exist_ok=True)
    made = Certificate(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    made.ca.write_bytes(b"".join(one.ca.read_bytes() for one in authorities))
    shutil.copy(shown.cert, made.cert)
    shutil.copy(shown.key, made.key)
    return made


async def test_another_authority_for_nodes(certificate: Certificate, tmp_path: Path) -> None:
    """A node goes over to another authority; the other one does not believe it, either way, until it is told."""
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other")
    files = [files_of(tmp_path / name, [certificate], certificate) for name in ("first", "second")]
    held, ports = zip(*(free_port() for _ in range(2)), strict=True)
    options = ("--workers", "2", "--log-level", "info")
    async with (
        node(*options, *peer_options(1, ports[0], {2: ports[1]}, files[0])) as first,
        node(*options, *peer_options(2, ports[1], {1: ports[0]}, files[1])) as second,
    ):
        for one in held:
            one.close()

        async def told(relay: Node, words: str) -> None:
            relay.log.clear()
            relay.process.send_signal(signal.SIGHUP)
            await eventually(partial(relay.said, words))

        async def passes(there: Node, here: Node) -> bool:
            with contextlib.suppress(Refused):
                await transaction(there.port, here.port)
                return True
            return False

        async def both(believed: bool) -> bool:
            """Whatever worker is asked."""
            ways = ((first, second), (second, first))
            return {await passes(*way) for way in ways for _ in range(6)} == {believed}

        assert await both(True)
        async with tunnel(first.port, second.port) as (owner, guest):
            for nonsense in ("", "no authority at all"):
                files[0].ca.write_text(nonsense)
                await told(first, "certificates for peers cannot be used; the old one stays in use")
                assert await both(True)
                assert not first.said("new certificates are in use")
            files_of(tmp_path / "second", [certificate, other], other)
            await told(second, "new certificates are in use")
            await eventually(partial(both, False))
            files_of(tmp_path / "first", [certificate, other], certificate)
            await told(first, "new certificates are in use")
            await eventually(partial(both, True))
            files_of(tmp_path / "first", [certificate], certificate)
            await told(first, "new certificates are in use")
            await eventually(partial(both, False))
            assert await owner.alive(guest), "what was open goes on"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("wrong", ["nothing", "another authority", "another name", "another address", "expired"])
async def test_a_node_that_is_not_who_it_should_be(
    certificate: Certificate, tmp_path: Path, wrong: str, loop: str
) -> None:
    """Who answers with a wrong certificate gets no join, and the client 404."""
    (tmp_path / "impostor").mkdir()
    names: dict[str, list[x509.GeneralName]] = {
        "another name": [x509.DNSName("relay.example")],
        "another address": [x509.IPAddress(ipaddress.ip_address("127.0.0.2"))],
    }
    impostors = make_certificate(tmp_path / "impostor", *names.get(wrong, ()), expired=wrong == "expired")
    believed = certificate if wrong == "another authority" else impostors
    with socket.create_server(("127.0.0.1", 0)) as server:

        def impostor() -> bool:
            """Whether the request for a tunnel came."""
            server.settimeout(PATIENCE)
            with server.accept()[0] as connection:
                connection.settimeout(PATIENCE)
                assert connection.recv(3, socket.MSG_WAITALL) == b"\x02\0\0"
                with contextlib.suppress(OSError):
                    with impostors.server_context().wrap_socket(connection, server_side=True) as secure:
                        return secure.recv(30)[4:] == b"GET /cable/connect/020000/"
                return False

        files = files_of(tmp_path / "files", [believed], certificate)
        peer = {2: server.getsockname()[1]}
        async with node(*peer_options(1, 0, peer, files), "--loop", loop) as relay:
            asked = asyncio.ensure_future(asyncio.to_thread(impostor))
            with pytest.raises(Refused, match="404"):
                await opened(relay.port, f"/cable/connect/{2 << 16:06x}/{secrets.token_hex(16)}")
            assert await asked == (wrong == "nothing")
            if wrong == "nothing":
                assert not relay.said("no TLS with another node")
            else:
                await eventually(lambda: relay.said("no TLS with another node"))


async def test_a_node_that_does_not_answer(certificate: Certificate) -> None:
    """The client gets 503 in time, and nothing is left of the call; nor when it goes before."""
    silent: list[asyncio.StreamReader] = []

    async def keeps_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent.append(reader)
        with contextlib.suppress(OSError):
            await reader.read()
        silent.remove(reader)
        writer.transport.abort()

    server = await asyncio.start_server(keeps_silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    path = f"/cable/connect/{2 << 16:06x}/{secrets.token_hex(16)}"
    async with server, node(*peer_options(1, 0, {2: port}, certificate)) as relay:
        hasty = asyncio.ensure_future(opened(relay.port, path))
        await eventually(lambda: len(silent) == 1)
        hasty.cancel()
        await eventually(lambda: not silent)
        with pytest.raises(Refused, match="503"):
            await opened(relay.port, path)
        await eventually(lambda: not silent)
        await relay.until(connections=0)


async def test_joins_in_a_circle_end(certificate: Certificate) -> None:
    """A peer address that leads back to a public port does not go round and round."""
    held, port = free_port()
    public = ["--cert", str(certificate.cert), "--key", str(certificate.key), "--port", str(port)]
    async with node(*public, *peer_options(1, 0, {2: port}, certificate)) as relay:
        held.close()
        with pytest.raises(Refused, match="404"):
            await opened(
                relay.port, f"/cable/connect/{2 << 16:06x}/{secrets.token_hex(16)}", certificate.client_context()
            )
        await relay.until(handed_over_total=1, connections=0)


async def test_rolling_restart_of_two_nodes_workers(certificate: Certificate) -> None:
    async with two_nodes(certificate, "--log-level", "info") as (first, second):
        async with load(50, first.port, second.port) as there, load(50, second.port, first.port) as back:
            for relay in (first, second):
                relay.process.send_signal(signal.SIGUSR2)
                await eventually(partial(relay.said, "every worker is a new one"))
        for counted in (there, back):
            assert not counted.failures, (counted, first.log, second.log)
            assert counted.done > 50
