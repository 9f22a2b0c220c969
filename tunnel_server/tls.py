"""TLS of one connection without its socket: bytes in, bytes out (`ssl.MemoryBIO`).

asyncio's own TLS keeps two buffers of 256 KiB for each connection, and uvloop's is another one again; this one keeps
none between two packets, is the same on both loops, counts from the first byte, and can start behind a PROXY header.
"""

from __future__ import annotations

import ssl

_RECORD = 16 * 1024  # bytes; more in one step would only make OpenSSL's buffers grow, and they never shrink


class TlsFailed(Exception):
    """The other side speaks no TLS, broke it, or is not who it should be; what `Tls.outgoing` returns tells it so.

    The cause is an `ssl.SSLError`.
    """


class Tls:
    """One side of a TLS connection: the server's, or the client's that calls `server_hostname`.

    That name or address is compared with the certificate if the context says so. A client begins with
    ``receive(b"")``, after which `outgoing` has its first words.
    """

    __slots__ = ("_incoming", "_outgoing", "_session", "ended", "ready")

    def __init__(self, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
        )
        self.ready = False  # the handshake is complete, as far as this side can know
        self.ended = False  # the other side said that nothing more comes

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the socket; the plaintext that they complete. Look at `outgoing` afterwards.

        Raises:
            TlsFailed
        """
        try:
            if len(data) <= _RECORD:
                return self._step(data)
            return b"".join(self._step(data[at : at + _RECORD]) for at in range(0, len(data), _RECORD))
        except ssl.SSLError as exc:
            raise TlsFailed from exc

    def _step(self, data: bytes) -> bytes:
        if self.ended:  # nobody would ever read it from there
            return b""
        self._incoming.write(data)
        read, plain = self._session.read, b""
        try:
            if not self.ready:
                self._session.do_handshake()
                self.ready = True
                if not self._incoming.pending:
                    return plain
            while not self.ended:
                part = read(_RECORD)
                self.ended = not part
                plain = plain + part if plain else part
                if not self._incoming.pending and not self._session.pending():
                    break  # asking once more would cost an exception
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # in place of an empty read where `finish` was called before
            self.ended = True
        return plain

    def send(self, data: bytes) -> bytes:
        """Bytes for the socket that carry `data`, once `ready`.

        Raises:
            TlsFailed
        """
        try:
            if len(data) <= _RECORD:
                self._session.write(data)
                return self._outgoing.read()
            parts = []
            with memoryview(data) as view:
                for at in range(0, len(data), _RECORD):
                    self._session.write(view[at : at + _RECORD])
                    parts.append(self._outgoing.read())
            return b"".join(parts)
        except ssl.SSLError as exc:
            raise TlsFailed from exc

    def outgoing(self) -> bytes:
        """Bytes for the socket that no `send` asked for: the handshake, alerts, new keys."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def finish(self) -> bytes:
        """Bytes for the socket that say: nothing more comes from here."""
        try:
            self._session.unwrap()
        except ssl.SSLError:  # the other side has not said the same yet, or the handshake was not complete
            pass
        return self.outgoing()
