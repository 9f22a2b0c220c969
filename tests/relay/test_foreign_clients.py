"""Clients that are not ours against our relay: `websockets`, aiohttp, picows, curl and a page in Chromium."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from tunnel_server.app import Server, serve

from .foreign_clients import CLIENTS, SUBPROTOCOL, Client
from .probe_rig import HEADERS, RelayProcess, new_path, running
from .tls import Certificate

pytestmark = pytest.mark.slow  # most of it starts processes, or takes many examples

MESSAGE, TOTAL = 128 * 1024, 1024 * 1024
TUNNEL = 2 * "0123456789abcdef"


class Clients:
    """Two clients by their names, and the relay between them."""

    def __init__(self, owner: str, guest: str, server: Server, tls: ssl.SSLContext | None) -> None:
        self._owner, self._guest, self._tls = CLIENTS[owner], CLIENTS[guest], tls
        self._address = f"{'wss' if tls else 'ws'}://{'localhost' if tls else server.host}:{server.port}"

    @asynccontextmanager
    async def pair(self, *early: bytes) -> AsyncIterator[tuple[Client, Client]]:
        tunnel = secrets.token_hex(16)
        async with self._owner.open(f"{self._address}/cable/new/{tunnel}", self._tls) as owner:
            for message in early:
                await owner.send(message)
            url = f"{self._address}/cable/connect/{owner.routing_id}/{tunnel}"
            async with self._guest.open(url, self._tls) as guest:
                yield owner, guest


@pytest.fixture(params=["plain", "tls"])
async def clients(
    request: pytest.FixtureRequest, owner: str, guest: str, certificate: Certificate
) -> AsyncIterator[Clients]:
    tls = request.param == "tls"
    async with serve(ssl_context=certificate.server_context() if tls else None) as server:
        yield Clients(owner, guest, server, certificate.client_context() if tls else None)


EVERY = pytest.mark.parametrize(
    ("owner", "guest"), [("websockets", "aiohttp"), ("aiohttp", "picows"), ("picows", "websockets")]
)


@EVERY
async def test_opening(clients: Clients) -> None:
    async with clients.pair() as (owner, guest):
        assert len(bytes.fromhex(owner.routing_id or "")) == 3
        assert guest.routing_id is None
        assert owner.subprotocol == guest.subprotocol == SUBPROTOCOL
        assert owner.extensions is guest.extensions is None


@EVERY
async def test_messages_pings_and_a_close(clients: Clients) -> None:
    async with clients.pair(b"early", b"", bytes(60000)) as (owner, guest):
        assert [await guest.receive() for _ in range(3)] == [b"early", b"", bytes(60000)]
        for one, other in ((owner, guest), (guest, owner)):
            for size in (1, 125, 126, 65535, 65536, MESSAGE):
                message = secrets.token_bytes(size)
                await one.send(message)
                assert await other.receive() == message
            await one.ping()
            await one.send_fragments(b"in", b"", b" three ", b"parts")
            assert await other.receive() == b"in three parts"
        await guest.close(1000)
        assert await owner.receive() == 1000


@EVERY
async def test_text(clients: Clients) -> None:
    async with clients.pair() as (owner, guest):
        await owner.send_text("text")
        assert await guest.receive() == 1003
        assert await owner.receive() == 1003


@EVERY
async def test_a_message_that_is_too_long(clients: Clients) -> None:
    async with clients.pair() as (owner, guest):
        await owner.send(bytes(MESSAGE + 1))
        assert await guest.receive() == 1009
        assert await owner.receive() == 1009


@EVERY
async def test_a_mebibyte_and_a_byte(clients: Clients) -> None:
    async with clients.pair() as (owner, guest):
        for _ in range(TOTAL // MESSAGE):
            await guest.send(bytes(MESSAGE))
            assert await owner.receive() == bytes(MESSAGE)
        await owner.send(b"the other side has a mebibyte of its own")
        await guest.receive()
        await guest.send(b"x")
        assert await owner.receive() == 1008
        assert await guest.receive() == 1008


# ---- curl

CURL = shutil.which("curl")
needs_curl = pytest.mark.skipif(CURL is None, reason="curl is not installed")


def curl(url: str, *options: str, **changes: str | None) -> str:
    """Head of the answer to a request for a WebSocket. curl ends by itself when the relay ends the connection."""
    assert CURL is not None
    headers = {name: value for name, value in HEADERS if name != "Host"}
    headers |= {name.replace("_", "-"): value for name, value in changes.items() if value is not None}
    given = [f"-H{name}: {value}" for name, value in headers.items() if changes.get(name.replace("-", "_"), value)]
    command = [CURL, "--silent", "--show-error", "--include", "--http1.1", "--noproxy", "*", "--max-time", "30"]
    done = subprocess.run([*command, *given, *options, url], capture_output=True, timeout=60)
    return done.stdout.partition(b"\r\n\r\n")[0].decode("ascii")


@pytest.fixture(scope="module")
def impatient(certificate: Certificate) -> Iterator[RelayProcess]:
    """A relay that soon ends a tunnel that nobody joins, because curl never does."""
    files = ("--cert", str(certificate.cert), "--key", str(certificate.key))
    with running(*files, "--pending", "0.3", "--linger", "0.3") as relay:
        yield relay


@needs_curl
@pytest.mark.parametrize(
    ("path", "options", "changes", "status"),
    [
        (new_path(TUNNEL), (), {}, "101"),
        (new_path("x"), (), {}, "400"),
        ("/", (), {}, "404"),
        ("/cable/connect/000000/" + TUNNEL, (), {}, "404"),
        (new_path(TUNNEL), ("-XPOST",), {}, "405"),
        (new_path(TUNNEL), ("-dbody",), {}, "405"),
        (new_path(TUNNEL), (), {"Sec_WebSocket_Protocol": None}, "400"),
        (new_path(TUNNEL), (), {"Sec_WebSocket_Version": "8"}, "426"),
        ("/cable/contact/AAAA", (), {}, "503"),
    ],
)
def test_curl_over_tls(
    impatient: RelayProcess,
    certificate: Certificate,
    path: str,
    options: tuple[str, ...],
    changes: dict[str, str | None],
    status: str,
) -> None:
    url = f"https://localhost:{impatient.port}{path}"
    head = curl(url, "--cacert", str(certificate.ca), *options, **changes)
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert ("X-caBLE-Routing-ID: " in head) == (status == "101")
    assert ("Retry-After: " in head) == (status == "503")


# ---- Chromium

CHROMIUM = shutil.which("chromium")

_PAGE = """<!doctype html><title>tunnels</title><script>
const log = [], relay = "RELAY", id = () => crypto.randomUUID().replaceAll("-", "");
const open = (path) => new Promise((done, failed) => {
  const socket = new WebSocket(relay + path, "fido.cable");
  socket.binaryType = "arraybuffer";
  socket.got = []; socket.waiting = [];
  const add = (what) => socket.waiting.length ? socket.waiting.shift()(what) : socket.got.push(what);
  socket.next = () => new Promise(d => socket.got.length ? d(socket.got.shift()) : socket.waiting.push(d));
  socket.onmessage = (event) => add(new Uint8Array(event.data).length);
  socket.onclose = (event) => { add("closed " + event.code + (event.wasClean ? "" : " unclean")); failed("refused"); };
  socket.onopen = () => done(socket);
});
const pair = async () => {
  // A page sees no headers of the answer, so the relay's routing id comes with the page.
  const tunnel = id(), owner = await open("/cable/new/" + tunnel);
  return [owner, await open("/cable/connect/ROUTING/" + tunnel)];
};
const run = async () => {
  let [owner, guest] = await pair();
  log.push([owner.protocol, guest.protocol, owner.extensions]);
  owner.send(new Uint8Array(131072)); guest.send(new Uint8Array(0));
  log.push([await guest.next(), await owner.next()]);
  guest.close(1000, "done");
  log.push([await owner.next(), await guest.next()]);
  [owner, guest] = await pair(); owner.send("text");
  log.push([await owner.next(), await guest.next()]);
  [owner, guest] = await pair(); guest.send(new Uint8Array(131073));
  log.push([await owner.next(), await guest.next()]);
  [owner, guest] = await pair();
  for (let i = 0; i < 8; i++) { owner.send(new Uint8Array(131072)); await guest.next(); }
  owner.send(new Uint8Array(1));
  log.push([await owner.next(), await guest.next()]);
  log.push(await open("/cable/connect/ROUTING/" + id()).catch(String));
};
run().catch(error => log.push(String(error))).then(() => fetch("/", {method: "POST", body: JSON.stringify(log)}));
</script>"""


def browse(program: str, page: bytes, home: Path) -> Any:
    """What a page posts when it is shown."""
    posted: Queue[Any] = Queue()

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page)

        def do_POST(self) -> None:
            posted.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    flags = ["--headless=new", "--no-first-run", "--disable-gpu", f"--user-data-dir={home / 'profile'}"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium refuses to run as root with one
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        command = [program, *flags, f"http://127.0.0.1:{site.server_port}/"]
        environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
        output = subprocess.DEVNULL
        with subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        ) as browser:
            try:
                return posted.get(timeout=50)
            finally:
                os.killpg(browser.pid, signal.SIGKILL)  # it has a process for everything
                site.shutdown()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
async def test_a_page_in_chromium(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    async with serve(routing_id=bytes.fromhex("a1b2c3")) as relay:
        address = f"ws://{relay.host}:{relay.port}"
        page = _PAGE.replace("RELAY", address).replace("ROUTING", "A1B2C3").encode()
        found = await asyncio.to_thread(browse, CHROMIUM, page, tmp_path)
    assert found == [
        ["fido.cable", "fido.cable", ""],
        [131072, 0],
        ["closed 1000", "closed 1000"],
        ["closed 1003", "closed 1003"],
        ["closed 1009", "closed 1009"],
        ["closed 1008", "closed 1008"],
        "refused",
    ]
