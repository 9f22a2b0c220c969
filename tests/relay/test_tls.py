"""TLS without sockets: OpenSSL's client at the other end of two byte strings."""

from __future__ import annotations

import ssl

import pytest

from tunnel_server.tls import Tls, TlsFailed

from .tls import Certificate


class Client:
    """A TLS client whose socket is the caller."""

    def __init__(self, certificate: Certificate, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        context = certificate.client_context()
        context.maximum_version = version
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def shake(self) -> bytes:
        """What the client says next in its handshake."""
        try:
            self.session.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self.outgoing.read()

    def write(self, data: bytes) -> bytes:
        for at in range(0, len(data), 16384):
            self.session.write(data[at : at + 16384])
        return self.outgoing.read()

    def read(self, data: bytes) -> bytes:
        """Plaintext of what came; ends with a full stop if the server said that nothing more comes."""
        self.incoming.write(data)
        plain = b""
        try:
            while part := self.session.read(1 << 20):
                plain += part
        except ssl.SSLWantReadError:
            return plain
        return plain + b"."


def shaken(certificate: Certificate, piece: int = 1 << 20, **options: ssl.TLSVersion) -> tuple[Tls, Client]:
    """Both ends after the handshake, with bytes that arrive in pieces."""
    server, client = Tls(certificate.server_context()), Client(certificate, **options)
    while not server.ready:
        said = client.shake()
        assert said
        for at in range(0, len(said), piece):
            assert server.receive(said[at : at + piece]) == b""
        client.incoming.write(server.outgoing())
    client.shake()
    return server, client


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("size", [0, 1, 16384, 16385, 200_000])
def test_both_ways(certificate: Certificate, version: ssl.TLSVersion, piece: int, size: int) -> None:
    server, client = shaken(certificate, piece, version=version)
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert client.read(server.send(b"before") + server.send(message)) == b"before" + message
    sealed = client.write(b"before") + client.write(message)
    step = max(piece, len(sealed) // 1000)
    pieces = [sealed[at : at + step] for at in range(0, len(sealed), step)]
    assert b"".join(server.receive(part) for part in pieces) == b"before" + message
    assert server.outgoing() == b""
    assert not server.ended


def test_a_request_in_the_last_packet_of_the_handshake(certificate: Certificate) -> None:
    server, client = Tls(certificate.server_context()), Client(certificate)
    server.receive(client.shake())
    client.incoming.write(server.outgoing())
    finished = client.shake()
    assert server.receive(finished + client.write(b"GET")) == b"GET"
    assert server.ready


def test_no_buffer_is_larger_than_a_record(certificate: Certificate) -> None:
    """OpenSSL's buffers never shrink, so nothing large may ever be put into one."""
    server, client = shaken(certificate)
    written: list[int] = []

    class Watched:
        pending = 0

        def write(self, data: bytes) -> int:
            written.append(len(data))
            return incoming.write(data)

    incoming, server._incoming = server._incoming, Watched()  # type: ignore[assignment]  # counts what goes through
    sealed = client.write(bytes(1 << 20))
    server.receive(sealed)
    assert sum(written) == len(sealed)
    assert max(written) <= 16384


def test_the_end_of_the_client(certificate: Certificate) -> None:
    server, client = shaken(certificate)
    last = client.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        client.session.unwrap()
    assert server.receive(last + client.outgoing.read()) == b"last"
    assert server.ended
    for size in (1, 100_000):
        assert server.receive(bytes(size)) == b""
    assert server._incoming.pending == 0, "what comes after the end is not kept"
    assert client.read(server.send(b"still here")) == b"still here", "one direction only"


def test_the_end_of_the_server(certificate: Certificate) -> None:
    server, client = shaken(certificate)
    assert client.read(server.send(b"last") + server.finish()) == b"last."
    assert server.finish() == b""
    assert server.receive(client.write(b"still here")) == b"still here", "one direction only"
    client.session.unwrap()
    assert server.receive(client.outgoing.read()) == b""
    assert server.ended


def test_the_end_before_the_handshake(certificate: Certificate) -> None:
    server, client = Tls(certificate.server_context()), Client(certificate)
    server.receive(client.shake())
    server.finish()
    assert not server.ready


@pytest.mark.parametrize(
    "junk", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", bytes(100), b"\x15\x03\x01\x00\x02\x02\x28"]
)
def test_no_tls(certificate: Certificate, junk: bytes) -> None:
    server = Tls(certificate.server_context())
    with pytest.raises(TlsFailed):
        server.receive(junk)
    assert not server.ready


def test_a_broken_record(certificate: Certificate) -> None:
    server, client = shaken(certificate)
    sealed = bytearray(client.write(b"message"))
    sealed[-1] ^= 1
    with pytest.raises(TlsFailed):
        server.receive(bytes(sealed))
    alert = server.outgoing()
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        client.read(alert)


def test_sending_before_the_handshake(certificate: Certificate) -> None:
    with pytest.raises(TlsFailed):
        Tls(certificate.server_context()).send(b"x")


def call(client: Tls, server: Tls) -> None:
    """Both of ours shake hands.

    Raises:
        TlsFailed: the client does not believe the server.
    """
    client.receive(b"")
    while not (client.ready and server.ready):
        assert server.receive(client.outgoing()) == b""
        assert client.receive(server.outgoing()) == b""


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("size", [0, 1, 16384, 200_000])
def test_we_call(certificate: Certificate, name: str, size: int) -> None:
    client, server = Tls(certificate.client_context(), name), Tls(certificate.server_context())
    call(client, server)
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert server.receive(client.send(b"there") + client.send(message)) == b"there" + message
    assert client.receive(server.send(b"back") + server.send(message)) == b"back" + message
    assert server.receive(client.finish()) == b""
    assert server.ended
    assert not client.ended
    assert client.receive(server.send(b"still here")) == b"still here", "one direction only"
    assert client.receive(server.finish()) == b""
    assert client.ended


@pytest.mark.parametrize("name", ["relay.example", "127.0.0.2", "sub.localhost"])
def test_somebody_else_answers_our_call(certificate: Certificate, name: str) -> None:
    client, server = Tls(certificate.client_context(), name), Tls(certificate.server_context())
    with pytest.raises(TlsFailed) as failed:
        call(client, server)
    assert isinstance(failed.value.__cause__, ssl.SSLCertVerificationError)
    assert "mismatch" in failed.value.__cause__.verify_message
    assert not client.ready
    with pytest.raises(TlsFailed):
        server.receive(client.outgoing())  # the alert tells it
