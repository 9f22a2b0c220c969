"""The ``tunnel-server`` process: ready line, signals, exit codes, silent logs."""

from __future__ import annotations

import asyncio
import re
import resource
import secrets
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tunnel_server.__main__ import command, parse
from tunnel_server.complaints import CommandError, say_no_more
from tunnel_server.relay import Limits

from .cluster_rig import eventually
from .tls import Certificate

READY = re.compile(r"listening on (127\.0\.0\.1|\[::1\]|0\.0\.0\.0):(\d+)\n")


@dataclass
class Process:
    """A running ``tunnel-server``."""

    process: asyncio.subprocess.Process
    host: str
    port: int

    def open(self, path: str, context: ssl.SSLContext | None = None) -> connect:
        scheme = "wss" if context else "ws"
        return connect(
            f"{scheme}://{self.host}:{self.port}{path}",
            ssl=context,
            proxy=None,
            subprotocols=[Subprotocol("fido.cable")],
        )

    async def end(self) -> tuple[int, str]:
        """Exit code, and all of stderr after the ready line."""
        _, stderr = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, stderr.decode()


async def start(*options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tunnel_server",
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def running(*options: str) -> AsyncIterator[Process]:
    process = await start("--port", "0", *options)
    try:
        assert process.stderr is not None
        match = READY.fullmatch((await process.stderr.readline()).decode())
        assert match is not None
        yield Process(process, match[1], int(match[2]))
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def failing(*options: str) -> tuple[int, str, str]:
    process = await start(*options)
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, stdout.decode(), stderr.decode()


async def closed_with(client: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as caught:
        await client.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


def test_every_limit_is_an_option_with_its_default() -> None:
    defaults = {parameter.name: parameter.default for parameter in command.params}
    for limit in fields(Limits):
        assert defaults[limit.name] == limit.default
    assert (defaults["host"], defaults["port"], defaults["drain"]) == ("127.0.0.1", 8080, 30)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--host", "0.0.0.0"], "plain connections are for this machine only"),
        (["--host", "example.com"], "plain connections are for this machine only"),
        (["--host", ""], "plain connections are for this machine only"),
        (["--cert", "cert.pem"], "--cert and --key belong together"),
        (["--key", "key.pem"], "--cert and --key belong together"),
        (["--cert", "c", "--key", "k", "--plain"], "--plain and --cert exclude each other"),
        (
            ["--cert", "absent", "--key", "x"],
            "the certificate and its key cannot be used (absent: no such file or directory)",
        ),
    ],
)
def test_usage(options: list[str], error: str) -> None:
    result = CliRunner().invoke(command, options)
    assert str(result.exception) == error
    assert getattr(result.exception, "exit_code", None) == 2


def test_files_that_are_no_good_are_told_apart(certificate: Certificate, tmp_path: Path) -> None:
    def said(cert: Path, key: Path) -> str:
        with pytest.raises(CommandError, match="its key cannot be used") as caught:
            parse(["--cert", str(cert), "--key", str(key)])
        return str(caught.value).partition("(")[2][:-1]

    cert, key, other, junk = certificate.cert, certificate.key, tmp_path / "other", tmp_path / "junk"
    private = ec.generate_private_key(ec.SECP256R1())
    locked = serialization.BestAvailableEncryption(b"x")
    for path, lock in ((other, serialization.NoEncryption()), (tmp_path / "locked", locked)):
        path.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock))
    junk.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert said(cert, other) == "they do not belong together"
    assert said(cert, tmp_path / "locked") == f"{tmp_path / 'locked'} is encrypted"
    assert said(key, cert) == f"{key} holds no certificate"
    assert said(cert, cert) == f"{cert} holds no private key"
    assert said(tmp_path, key) == f"{tmp_path}: is a directory"
    assert said(junk, key) == "broken PEM"


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        (-2, -1, "the certificate expired on {last}; renew it, then send SIGHUP"),
        (1, 2, "the certificate is valid from {first} on; look at the clock"),
        (-1, 1, None),
    ],
)
def test_a_certificate_of_another_day(
    first: int,
    last: int,
    words: str | None,
    certificate: Certificate,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key = serialization.load_pem_private_key(certificate.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    today = datetime.now(UTC)
    begins, ends = today + timedelta(first), today + timedelta(last)
    name = x509.Name([])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, begins, ends).sign(key, hashes.SHA256())
    cert = tmp_path / "cert.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    parse(["--cert", str(cert), "--key", str(certificate.key)])
    expected = words and f"tunnel-server: WARNING: {words.format(first=begins.date(), last=ends.date())}\n"
    assert capsys.readouterr().err == (expected or "")


@pytest.mark.parametrize(
    ("options", "allowed", "connections", "warned"),
    [
        ([], 64, 32, True),
        ([], 256, 128, True),
        ([], 8000, 7872, True),
        ([], 9000, 8872, False),
        (["--max-connections", "9000"], 9000, 8872, True),
    ],
)
def test_few_descriptors_are_enough_for_some_tunnels(
    options: list[str],
    allowed: int,
    connections: int,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (allowed, allowed))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    assert parse(options).with_file_limit().limits.connections == connections
    assert (f"only {connections} connections at once" in capsys.readouterr().err) == warned


@pytest.mark.parametrize("limit", ["--max-tunnels", "--new-per-minute", "--addresses"])
def test_a_number_that_no_machine_has(limit: str) -> None:
    result = CliRunner().invoke(command, [limit, "1" + 400 * "0"])
    assert result.exit_code == 2
    assert "is no limit" in result.output


@pytest.mark.slow
async def test_usage_is_one_sentence_and_a_hint() -> None:
    assert await failing("--port", "70000") == (
        2,
        "",
        "tunnel-server: error: invalid value for '--port': 70000 is not in the range 0<=x<=65535\n"
        "tunnel-server: hint: see tunnel-server --help\n",
    )


@pytest.mark.parametrize("origin", ["a.example", "https://a.example/", "https://", "https://a b", ""])
def test_an_origin_that_nobody_could_have(origin: str) -> None:
    result = CliRunner().invoke(command, ["--origin", origin])
    assert result.exit_code == 2
    assert f"{origin} is not SCHEME://HOST" in result.output


def test_an_origin_of_any_case() -> None:
    assert parse(["--origin", "HTTPS://Good.Example:444", "--origin", "null"]).origins == (
        "https://good.example:444",
        "null",
    )


async def is_ready(port: int) -> bool:
    """What the admin listener there says, if there is one."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.write(b"GET /readyz HTTP/1.1\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", ">&-", "<&- >&- 2>&-"])
async def test_it_serves_though_nobody_can_be_told(redirection: str, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        port, admin = one.getsockname()[1], two.getsockname()[1]
    options = f"--port {port} --admin 127.0.0.1:{admin} --workers {workers} --log-level debug"
    process = await asyncio.create_subprocess_shell(f"exec {sys.executable} -m tunnel_server {options} {redirection}")
    try:
        await eventually(lambda: is_ready(admin))
        path = f"ws://127.0.0.1:{port}/cable/new/{32 * 'A'}"
        async with connect(path, proxy=None, subprotocols=[Subprotocol("fido.cable")]):
            pass
    finally:
        if process.returncode is None:
            process.terminate()
    assert await process.wait() == 0


def test_what_cannot_be_said_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stderr", full)
        full.write("nobody will read this")
        say_no_more()
        full.flush()
    monkeypatch.setattr("sys.stderr", None)
    say_no_more()


@pytest.mark.slow
async def test_an_address_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert await failing("--port", str(port)) == (
            7,
            "",
            f"tunnel-server: error: cannot listen on 127.0.0.1:{port}: address already in use\n"
            "tunnel-server: hint: choose another --host or --port, or end what uses it\n",
        )


@pytest.mark.slow
async def test_plain_on_another_address() -> None:
    async with running("--plain", "--host", "0.0.0.0") as relay:
        async with connect(
            f"ws://127.0.0.1:{relay.port}/cable/new/{32 * 'A'}",
            proxy=None,
            subprotocols=[Subprotocol("fido.cable")],
        ):
            pass


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_ends_at_once_without_tunnels(number: signal.Signals, code: int) -> None:
    async with running() as relay:
        relay.process.send_signal(number)
        assert await relay.end() == (code, "")


@pytest.mark.slow
async def test_drain_waits_for_the_last_tunnel(certificate: Certificate) -> None:
    options = ("--cert", str(certificate.cert), "--key", str(certificate.key), "--log-level", "info")
    async with running(*options) as relay:
        context = certificate.client_context()
        owner = await relay.open("/cable/new/" + 32 * "A", context)
        assert owner.response is not None
        routing_id = owner.response.headers["X-caBLE-Routing-ID"]
        relay.process.send_signal(signal.SIGTERM)
        assert relay.process.stderr is not None
        assert b"no new tunnels" in await relay.process.stderr.readline()
        with pytest.raises(InvalidStatus) as caught:
            await relay.open("/cable/new/" + 32 * "B", context)
        assert caught.value.response.status_code == 503
        async with owner, await relay.open(f"/cable/connect/{routing_id}/{32 * 'A'}", context) as guest:
            await owner.send(b"still here")
            assert await guest.recv() == b"still here"
        assert await relay.end() == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["second signal", "time"])
async def test_drain_ends(how: str) -> None:
    async with running("--drain", "0.1" if how == "time" else "1000", "--log-level", "info") as relay:
        async with relay.open("/cable/new/" + 32 * "A") as owner:
            relay.process.send_signal(signal.SIGTERM)
            assert relay.process.stderr is not None
            assert b"no new tunnels" in await relay.process.stderr.readline()
            if how == "second signal":
                relay.process.send_signal(signal.SIGTERM)
            assert await closed_with(owner) == 1001
        assert await relay.end() == (0, "")


@pytest.mark.slow
async def test_logs_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    tunnel_id, payload = secrets.token_hex(16), b"payload-that-nobody-sees"
    async with running("--log-level", "debug") as relay:
        owner = await relay.open(f"/cable/new/{tunnel_id}")
        assert owner.response is not None
        routing_id = owner.response.headers["X-caBLE-Routing-ID"]
        guest = await relay.open(f"/cable/connect/{routing_id}/{tunnel_id}")
        await owner.send(payload)
        assert await guest.recv() == payload
        with pytest.raises(InvalidStatus):
            await relay.open(f"/cable/new/{tunnel_id}")
        await owner.send("text is not forwarded")
        assert await closed_with(guest) == await closed_with(owner) == 1003
        relay.process.send_signal(signal.SIGTERM)
        code, log = await relay.end()
    assert code == 0
    assert "409" in log
    assert "1003" in log, "the relay does log"
    hidden = [tunnel_id, routing_id, payload.decode(), payload.hex(), "127.0.0.1", "text is not"]
    for secret in hidden:
        assert secret.lower() not in log.lower()


@pytest.mark.slow
async def test_limits_reach_the_relay() -> None:
    async with running("--max-message", "5", "--max-messages", "2") as relay:
        owner = await relay.open("/cable/new/" + 32 * "A")
        await owner.send(b"12345")
        await owner.send(b"123456")
        assert await closed_with(owner) == 1009
