"""What a stranger has: the command line of a relay, raw sockets, and RFC 6455. Nothing of ours is imported here.

Everything blocks, with a time-out that is far above what a working relay needs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 20.0  # s
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, section 1.3
HEADERS = (
    ("Host", "localhost"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Protocol", "fido.cable"),
)


def request(path: str, method: str = "GET", version: str = "HTTP/1.1", **changes: str | None) -> bytes:
    """A request head. A change replaces a header (``Sec_WebSocket_Key="x"``), adds one, or with None takes it away."""
    left = {name.replace("_", "-"): value for name, value in changes.items()}
    pairs = [(name, left.pop(name, value)) for name, value in HEADERS]
    lines = [f"{name}: {value}" for name, value in (*pairs, *left.items()) if value is not None]
    return "\r\n".join((f"{method} {path} {version}", *lines, "", "")).encode("latin-1")


def new_path(tunnel: str) -> str:
    return f"/cable/new/{tunnel}"


def tunnel_id() -> str:
    return secrets.token_hex(16)


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, bits: int = 0, mask: bytes | None = b"\x37\xfa\x21\x3d"
) -> bytes:
    """Bytes of a client's frame, legal or not; `bits` are the reserved ones, `mask` None leaves it out."""
    size = len(payload)
    masked = 0 if mask is None else 0x80
    head = bytes([(fin << 7) | bits | opcode])
    if size < 126:
        head += bytes([masked | size])
    elif size < 65536:
        head += struct.pack("!BH", masked | 126, size)
    else:
        head += struct.pack("!BQ", masked | 127, size)
    return head if mask is None and not payload else head + (mask or b"") + masking(payload, mask)


def masking(payload: bytes, mask: bytes | None) -> bytes:
    if mask is None or not payload:
        return payload
    pattern = mask * (len(payload) // 4 + 1)
    return bytes(a ^ b for a, b in zip(payload, pattern, strict=False))


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status line and headers, names in lower case; a header that comes twice is a list of two."""

    status: int
    headers: dict[str, list[str]]

    def one(self, name: str) -> str:
        (value,) = self.headers[name]
        return value


class Ended(Exception):
    """The other side ended the connection, by an end of stream or a reset."""


class Peer:
    """One raw connection."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        self.socket = connection
        self._buffer = b""

    def send(self, *data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # what it answered is read all the same
            self.socket.sendall(b"".join(data))

    def ask(self, path: str, **changes: Any) -> Answer:
        self.send(request(path, **changes))
        return self.answer()

    def answer(self) -> Answer:
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        status, *lines = head.decode("ascii").split("\r\n")
        headers: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers.setdefault(name.lower(), []).append(value.strip())
        return Answer(int(status.split(" ")[1]), headers)

    def frame(self) -> tuple[int, bytes]:
        """Opcode and payload; the head has to be what RFC 6455 wants of a server."""
        first, length = self._exactly(2)
        assert first & 0x70 == 0, "no extension, so no reserved bit"
        assert length < 128, "a server does not mask"
        if length == 126:
            (length,) = struct.unpack("!H", self._exactly(2))
            assert length >= 126
        elif length == 127:
            (length,) = struct.unpack("!Q", self._exactly(8))
            assert length >= 65536
        assert first & 0x80, "relays put fragments together"
        return first & 15, self._exactly(length)

    def message(self) -> bytes:
        """The next binary message; pongs are skipped."""
        while True:
            opcode, payload = self.frame()
            if opcode != PONG:
                assert opcode == BINARY, (opcode, payload[:40])
                return payload

    def close_code(self) -> int:
        """Code of the close frame, after whatever messages come before."""
        while True:
            opcode, payload = self.frame()
            if opcode == CLOSE:
                return int(struct.unpack("!H", payload[:2])[0]) if payload else 1005

    def until_end(self) -> bytes:
        """Everything that still comes."""
        with contextlib.suppress(Ended):
            while True:
                self._more()
        data, self._buffer = self._buffer, b""
        return data

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _more(self) -> None:
        try:
            data = self.socket.recv(65536)
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError) as exc:
            raise Ended from exc
        if not data:
            raise Ended
        self._buffer += data


@dataclass
class RelayProcess:
    """A relay as its own process, and sockets to it that the fixture closes."""

    process: subprocess.Popen[str]
    host: str
    port: int
    tls: ssl.SSLContext | None = None
    said: list[str] = field(default_factory=list)  # lines on stderr
    _sockets: list[socket.socket] = field(default_factory=list)

    def tcp(self, source: str = "") -> socket.socket:
        address = (source, 0) if source else None
        return self.keep(socket.create_connection((self.host, self.port), PATIENCE, source_address=address))

    def keep(self, connection: socket.socket) -> socket.socket:
        """Close it in the end."""
        self._sockets.append(connection)
        return connection

    def narrow(self) -> socket.socket:
        """A connection of which the kernel keeps little."""
        connection = self.keep(socket.socket())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((self.host, self.port))
        return connection

    def peer(self, source: str = "") -> Peer:
        connection = self.tcp(source)
        if self.tls is not None:
            connection = self.keep(self.tls.wrap_socket(connection, server_hostname="localhost"))
        return Peer(connection)

    def status(self, path: str, **changes: Any) -> int:
        """Status of one request on a connection of its own, which ends at once."""
        peer = self.peer()
        status = peer.ask(path, **changes).status
        peer.close()
        return status

    def owner(self, tunnel: str) -> tuple[Peer, str]:
        """Who made a tunnel, and the routing id."""
        peer = self.peer()
        answer = peer.ask(new_path(tunnel))
        assert answer.status == 101
        return peer, answer.one("x-cable-routing-id")

    def join(self, routing_id: str, tunnel: str) -> Peer:
        peer = self.peer()
        assert peer.ask(f"/cable/connect/{routing_id}/{tunnel}").status == 101
        return peer

    def pair(self, tunnel: str = "") -> tuple[Peer, Peer]:
        tunnel = tunnel or tunnel_id()
        owner, routing_id = self.owner(tunnel)
        return owner, self.join(routing_id, tunnel)

    def close_all(self) -> None:
        for connection in self._sockets:
            connection.close()
        self._sockets.clear()

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def works(relay: RelayProcess) -> None:
    """A whole tunnel, both ways, from start to end."""
    owner, guest = relay.pair()
    owner.send(frame(BINARY, b"from the owner"))
    assert guest.message() == b"from the owner"
    guest.send(frame(BINARY, b"from the guest"))
    assert owner.message() == b"from the guest"
    guest.send(closing(1000))
    assert owner.close_code() == 1000
    owner.close()
    guest.close()


def still_works(owner: Peer, guest: Peer) -> None:
    owner.send(frame(BINARY, b"still"))
    assert guest.message() == b"still"
    guest.send(frame(BINARY, b"here"))
    assert owner.message() == b"here"


@contextmanager
def running(*options: str, tls: ssl.SSLContext | None = None) -> Iterator[RelayProcess]:
    """``tunnel-server --port 0 OPTIONS`` as a process. `tls` is the client's side, if `options` ask for TLS."""
    command: Sequence[str] = (sys.executable, "-m", "tunnel_server", "--port", "0", *options)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said: list[str] = []
            for line in process.stderr:
                said.append(line)
                if line.startswith("listening on "):
                    break
            else:
                raise AssertionError(f"it did not start: {''.join(said)}")
            host, _, port = said[-1].removeprefix("listening on ").rpartition(":")
            relay = RelayProcess(process, host, int(port), tls, said)
            reader = threading.Thread(target=said.extend, args=(process.stderr,), daemon=True)
            reader.start()
            try:
                yield relay
            finally:
                relay.close_all()
        finally:
            for _ in range(2):  # the second ends it at once
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)
        reader.join()
