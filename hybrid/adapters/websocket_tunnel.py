"""Tunnels through a relay over WebSocket and TLS (CTAP 2.3 §11.5.1, "tunnel service"; RFC 6455).

The adapter of `TunnelService` for the `websockets` library: where to connect, TLS, proxies, redirects, headers, and
what each failure means. URL paths and headers come from `hybrid.protocol.tunnel`; time-outs belong to the drivers.
Not here: what the messages mean.

Tunnel and contact IDs are in every URL, so neither log lines nor error messages hold URLs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import re
import socket
import ssl
import urllib.request
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, cast
from urllib.parse import urljoin, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidProxyStatus,
    InvalidStatus,
    WebSocketException,
)
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Event, State
from websockets.typing import Origin, Subprotocol
from websockets.uri import parse_uri

from hybrid.adapters.relay_address import check_name, is_host, is_ip_address, parse_address
from hybrid.errors import LinkGone, RemoteProtocolError, TunnelError, TunnelProblem
from hybrid.protocol.keys import MAX_MESSAGE_SIZE
from hybrid.protocol.tunnel import (
    MAX_REDIRECTS,
    ROUTING_ID_HEADER,
    SIGNAL_HEADER,
    SUBPROTOCOL,
    New,
    TunnelRequest,
    is_status_gone,
    parse_routing_id,
    path_of,
)

_log = logging.getLogger(__name__)

# The library logs request lines and frames at debug level, and URLs name tunnels: it gets a logger that is off.
_silent = logging.Logger("hybrid.silent")
_silent.disabled = True

_PORT = 443
_CLOSE_SECONDS = 1.0  # what a peer that never answers our close can cost
_NEXT_ADDRESS_SECONDS = 2.0  # patience with one address while others are left: a dead IPv6 route is common
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_VISIBLE = re.compile(r"[!-~]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Hop:
    """One address to ask: `name` and `port` as in the URL, `address` to connect to, `resource` with the secret IDs."""

    name: str
    port: int
    address: tuple[str, int]
    resource: str = field(repr=False)

    @property
    def url(self) -> str:
        port = "" if self.port == _PORT else f":{self.port}"
        return f"wss://{_bracketed(self.name)}{port}{self.resource}"

    @property
    def place(self) -> str:
        """Name, and address where that is another, for an error message."""
        host, port = self.address
        return self.name if host == self.name else f"{self.name} at {_bracketed(host)}:{port}"

    @property
    def proxy(self) -> str | None:
        """Proxy that this machine's settings name for `address`; none for this machine itself."""
        host, port = self.address
        if _is_loopback(host) or urllib.request.proxy_bypass(f"{host}:{port}"):
            return None
        proxies = urllib.request.getproxies()
        for scheme in ("wss", "socks", "https", "all"):
            if proxy := proxies.get(scheme):
                # macOS keeps a SOCKS proxy under its own key, with the wrong scheme.
                return proxy.replace("http://", "socks5h://", 1) if scheme == "socks" else proxy
        return None


class WebSocketTunnels:
    """`TunnelService` over ``wss``. Each override works alone.

    `relay` (``HOST:PORT``) is connected to instead of the domain of the service id; `relay_name` is expected in the
    certificate and sent as `Host` and `Origin` instead of that domain; `relay_ca` is a PEM file of authorities
    trusted besides the system's. What an advert says stays untouched by them.

    A proxy is taken from the environment (``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``) or the system's settings.

    Raises:
        LocalProtocolError: `relay` or `relay_name` cannot be one.
    """

    def __init__(
        self,
        *,
        relay: str | None = None,
        relay_name: str | None = None,
        relay_ca: str | os.PathLike[str] | None = None,
    ) -> None:
        if relay_name is not None:
            check_name(relay_name)
        self._address = None if relay is None else parse_address(relay)
        self._name = relay_name
        self._ca = relay_ca
        self._context: ssl.SSLContext | None = None

    @property
    def loopback(self) -> bool:
        """Whether `relay` is ``localhost`` or a literal loopback address; other names could be anywhere."""
        return self._address is not None and _is_loopback(self._address[0])

    async def open(self, request: TunnelRequest) -> WebSocketChannel:
        """Create, join or contact, as `request` says.

        Raises:
            TunnelError: the relay cannot be reached or trusted, or its answer is not what the protocol asks for.
            LinkGone: status 410 on contact.
        """
        context = self._tls(request.domain)
        hop = self._first_hop(request)
        origin = f"wss://{_bracketed(hop.name)}"
        headers = request.headers()
        for _ in range(1 + MAX_REDIRECTS):
            _log.debug("opening a tunnel at %s", hop.name)
            try:
                connection = await _dial(hop, context, origin, headers)
            except InvalidStatus as refusal:
                status = refusal.response.status_code
                if status not in _REDIRECTS:
                    raise _refused(request, hop.name, status) from refusal
                hop = self._next_hop(request, hop, status, refusal.response.headers.get_all("Location"))
            else:
                return _accept(connection, request, hop.name)
        raise TunnelError(
            f"{request.domain} redirects more than {MAX_REDIRECTS} times",
            host=request.domain,
            reason=TunnelProblem.REDIRECT,
        )

    def _tls(self, host: str) -> ssl.SSLContext:
        if self._context is None:
            context = ssl.create_default_context()
            context.set_alpn_protocols(["http/1.1"])  # WebSocket as we speak it is not in HTTP/2
            if self._ca is not None:
                try:
                    context.load_verify_locations(cafile=self._ca)
                except OSError as error:
                    what = "it holds no certificate" if isinstance(error, ssl.SSLError) else _os_reason(error)
                    raise TunnelError(
                        f"the CA file {os.fspath(self._ca)} cannot be used: {what}",
                        host=host,
                        reason=TunnelProblem.CERTIFICATE,
                    ) from error
            self._context = context
        return self._context

    def _first_hop(self, request: TunnelRequest) -> _Hop:
        address = self._address or (request.domain, _PORT)
        return _Hop(self._name or request.domain, _PORT, address, path_of(request.target))

    def _next_hop(self, request: TunnelRequest, hop: _Hop, status: int, locations: list[str]) -> _Hop:
        """Where a redirect leads. The overrides stand for the tunnel service only, not for hosts it names."""

        def fail(why: str) -> NoReturn:
            raise TunnelError(
                f"{hop.name} redirects {why}", host=hop.name, reason=TunnelProblem.REDIRECT, status=status
            )

        if len(locations) != 1 or not _VISIBLE.fullmatch(locations[0]):
            fail("to nowhere")
        try:
            target = urlsplit(urljoin(hop.url, locations[0]))
            name, port = target.hostname or "", _PORT if target.port is None else target.port
        except ValueError:
            fail("to an address that is none")
        if target.scheme not in ("wss", "https"):  # HTTP software in front of a relay calls the same thing https
            fail("to a place without TLS")
        if target.username is not None or target.password is not None:
            fail("to an address with a password in it")
        if port == 0 or not is_host(name):
            fail("to an address that is none")
        resource = (target.path or "/") + (f"?{target.query}" if target.query else "")
        first = self._first_hop(request)
        if port == _PORT and name in (first.name.lower(), request.domain.lower()):
            return replace(first, resource=resource)
        if self.loopback and not _is_loopback(name):
            fail("to another machine, although it was said to be on this one")
        return _Hop(name, port, (name, port), resource)


class WebSocketChannel:
    """`Channel` over one WebSocket."""

    def __init__(self, connection: _Connection, host: str, *, routing_id: bytes | None, signals: bool) -> None:
        self._connection = connection
        self._host = host
        self._routing_id = routing_id
        self._signals = signals

    @property
    def bounded(self) -> bool:
        return True

    @property
    def routing_id(self) -> bytes | None:
        return self._routing_id

    @property
    def signals(self) -> bool:
        return self._signals

    async def send(self, message: bytes) -> None:
        """Send one binary message.

        Raises:
            TunnelError: the tunnel is closed or lost.
        """
        try:
            await self._connection.send(message)
        except ConnectionClosed as closed:
            problem = self._problem(closed) or self._lost("the tunnel is closed")
            raise problem from closed

    async def receive(self) -> bytes | None:
        """Give the next message; None once closed by a close code 1000, 1001 or none, or by ourselves.

        Raises:
            TunnelError: the connection was lost or closed for a fault, or a message was text or too long.
        """
        try:
            message = await self._connection.recv()
        except ConnectionClosed as closed:
            if problem := self._problem(closed):
                raise problem from closed
            return None
        if isinstance(message, bytes):
            return message
        await self._close(CloseCode.UNSUPPORTED_DATA)
        raise self._text()

    async def aclose(self) -> None:
        """Close with code 1000; a peer that does not answer is given a second."""
        await self._close(CloseCode.NORMAL_CLOSURE)

    async def _close(self, code: CloseCode) -> None:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._connection.close(code)
        except TimeoutError:
            pass  # the peer reads nothing, so not even our close frame left
        finally:
            self._connection.transport.abort()
        await self._connection.wait_closed()

    def _problem(self, closed: ConnectionClosed) -> TunnelError | None:
        """What an end means; None for a clean one."""
        ours = closed.sent if not closed.rcvd_then_sent else None  # the close frame that we sent first
        if ours is not None and ours.code == CloseCode.NORMAL_CLOSURE:
            return None
        if self._connection.text_arrived:
            return self._text()
        if ours is not None and ours.code == CloseCode.MESSAGE_TOO_BIG:
            return TunnelError(
                f"{self._host} sent a message of more than {MAX_MESSAGE_SIZE} bytes",
                host=self._host,
                reason=TunnelProblem.OVERSIZE,
            )
        if ours is not None:
            return self._lost(f"{self._host} broke the rules of WebSocket")
        if closed.rcvd is None:
            return self._lost(f"the connection to {self._host} was lost")
        match closed.rcvd.code:
            # 1001 is what relays say when the peer is gone without a word: the tunnel itself is in order.
            case CloseCode.NORMAL_CLOSURE | CloseCode.GOING_AWAY | CloseCode.NO_STATUS_RCVD:
                return None
            case code:
                return self._lost(f"{self._host} closed the tunnel with code {int(code)}")

    def _lost(self, message: str) -> TunnelError:
        return TunnelError(message, host=self._host, reason=TunnelProblem.LOST)

    def _text(self) -> TunnelError:
        return TunnelError(
            f"{self._host} sent text where only binary messages belong",
            host=self._host,
            reason=TunnelProblem.TEXT,
        )


class _ClosedOnce:
    """A transport that does not mind a second `close`, which comes from us or from the library.

    asyncio's transport for TLS then forgets its connection, so that a later `abort` does nothing, and raises
    `AttributeError` on Python 3.11.2.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def close(self) -> None:
        if not self._transport.is_closing():
            self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Connection(ClientConnection):
    """A connection that ends by itself once nothing more can come, and that remembers whether text came.

    The library leaves the end of TCP to the server after a close frame or a fault. One that never does would keep
    `receive` waiting. Text that is no UTF-8 and has a close behind it would look like a clean end.
    """

    text_arrived = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.BaseTransport, _ClosedOnce(cast(asyncio.Transport, transport))))

    def process_event(self, event: Event) -> None:
        if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
            self.text_arrived = True
        super().process_event(event)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.protocol.state is State.CLOSING:
            self.transport.close()


class _Factory:
    """Makes the connection for the URL of the hop, whatever address it goes to, and keeps it for a look at errors.

    It offers our subprotocol and no extensions. `connection` is set once TCP is there, and the proxy's part done.
    """

    def __init__(self, hop: _Hop, origin: str) -> None:
        self._hop = hop
        self._origin = origin
        self.connection: _Connection | None = None

    def __call__(self, _: ClientProtocol, **settings: Any) -> _Connection:
        protocol = ClientProtocol(
            parse_uri(self._hop.url),
            origin=Origin(self._origin),
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            max_size=MAX_MESSAGE_SIZE,
            logger=_silent,
        )
        self.connection = _Connection(protocol, **settings)
        return self.connection


class _NoRedirects(connect):
    """Hands a redirect to us: the library refuses one that leaves an overridden address."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


async def _dial(hop: _Hop, context: ssl.SSLContext, origin: str, headers: dict[str, str]) -> _Connection:
    """Open a WebSocket at `hop`. Raises `InvalidStatus` for every status but 101, otherwise `TunnelError`."""
    factory = _Factory(hop, origin)
    host, port = hop.address
    proxy = hop.proxy
    try:
        connection = await _NoRedirects(
            f"wss://{_bracketed(host)}:{port}/",
            create_connection=cast("type[ClientConnection]", factory),
            ssl=context,
            server_hostname=hop.name,
            proxy=proxy,
            additional_headers=headers,
            user_agent_header=None,
            # Browsers send no pings, relays may count them, and a slow person is silence: none are sent.
            ping_interval=None,
            open_timeout=None,
            close_timeout=_CLOSE_SECONDS,
            ssl_shutdown_timeout=_CLOSE_SECONDS,
            sock=None if proxy else await _connect_tcp(host, port),
            logger=_silent,
        )
    except InvalidStatus:
        raise
    except (OSError, WebSocketException, ImportError, ValueError) as error:
        if proxy is not None and factory.connection is None:
            raise _proxy_failed(hop.name, proxy, error) from error
        if not isinstance(error, (OSError, WebSocketException)):
            raise  # only a proxy's setting and its package raise the other two
        raise _failed(hop, error, factory.connection) from error
    assert isinstance(connection, _Connection)
    return connection


async def _connect_tcp(host: str, port: int) -> socket.socket:
    """Try the addresses of `host` one after the other.

    `loop.create_connection` would wait minutes for the first before it tries the second, or, when it races them,
    forget a connected socket if it is cancelled at the wrong moment (seen with Python 3.11).
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for left, (family, kind, protocol, _, address) in zip(reversed(range(len(found))), found, strict=True):
        try:
            async with asyncio.timeout(_NEXT_ADDRESS_SECONDS if left else None):
                with contextlib.ExitStack() as stack:
                    connecting = stack.enter_context(socket.socket(family, kind, protocol))
                    connecting.setblocking(False)
                    await loop.sock_connect(connecting, address)
                    stack.pop_all()
                    return connecting
        except OSError:
            if not left:
                raise
    raise OSError(errno.EADDRNOTAVAIL, "no address")


def _proxy_failed(host: str, proxy: str, error: Exception) -> TunnelError:
    match error:
        case InvalidProxyStatus():
            what = f"it answers with status {error.response.status_code}"
        case ImportError():
            what = "a SOCKS proxy needs the package python-socks"
        case OSError():
            what = _os_reason(error)
        case _:
            what = "it does not work as a proxy"
    try:
        name = urlsplit(proxy).hostname or "of this machine's settings"  # never the URL: it may hold a password
    except ValueError:
        name = "of this machine's settings"
    return TunnelError(f"cannot reach {host} through the proxy {name}: {what}", host=host, reason=TunnelProblem.PROXY)


def _failed(hop: _Hop, error: Exception, connection: ClientConnection | None) -> TunnelError:
    """What it means that a relay could not be reached, or answered 101 but not as the protocol wants."""
    reason, status = TunnelProblem.STATUS, None
    response = None if connection is None else connection.response
    match error:
        case ssl.SSLCertVerificationError():
            reason = TunnelProblem.CERTIFICATE
            message = f"the certificate of {hop.name} cannot be trusted: {_verdict(error)}"
        case OSError():
            reason = TunnelProblem.UNREACHABLE
            message = f"cannot reach {hop.place}: {_os_reason(error)}"
        case InvalidMessage() if isinstance(error.__cause__, EOFError):
            reason = TunnelProblem.LOST
            message = f"{hop.name} hung up without an answer"
        case InvalidHandshake() if response is not None:
            status = response.status_code
            message = f"{hop.name} answers with a faulty WebSocket handshake"
            if response.headers.get_all("Sec-WebSocket-Protocol") != [SUBPROTOCOL]:
                return _no_subprotocol(hop.name)
        case _:
            message = f"{hop.name} does not answer in HTTP"
    return TunnelError(message, host=hop.name, reason=reason, status=status)


def _refused(request: TunnelRequest, host: str, status: int) -> TunnelError:
    if is_status_gone(status, request.target):
        return LinkGone(host)
    return TunnelError(f"{host} answers with status {status}", host=host, reason=TunnelProblem.STATUS, status=status)


def _no_subprotocol(host: str) -> TunnelError:
    return TunnelError(f"{host} does not speak {SUBPROTOCOL}", host=host, reason=TunnelProblem.SUBPROTOCOL, status=101)


def _accept(connection: _Connection, request: TunnelRequest, host: str) -> WebSocketChannel:
    """Check what came with status 101. Raises `TunnelError`, with the connection gone."""
    assert connection.response is not None
    headers = connection.response.headers
    routing_id = None
    try:
        if connection.subprotocol != SUBPROTOCOL:
            raise _no_subprotocol(host)
        if isinstance(request.target, New):
            try:
                routing_id = parse_routing_id(headers.get_all(ROUTING_ID_HEADER))
            except RemoteProtocolError as error:
                raise TunnelError(
                    f"{host} gave no usable routing ID", host=host, reason=TunnelProblem.ROUTING_ID, status=101
                ) from error
    except TunnelError:
        connection.transport.abort()
        raise
    signals = request.signal and SIGNAL_HEADER in headers
    return WebSocketChannel(connection, host, routing_id=routing_id, signals=signals)


def _is_loopback(host: str) -> bool:
    return host.lower() == "localhost" or (is_ip_address(host) and ipaddress.ip_address(host).is_loopback)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _verdict(error: ssl.SSLCertVerificationError) -> str:
    """What OpenSSL says of a certificate, in our voice."""
    text = error.verify_message.rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _os_reason(error: OSError) -> str:
    match error:
        case ssl.SSLError():
            return "it does not speak TLS as it should"
        case socket.gaierror():
            return "its name cannot be resolved"
        case OSError(errno=int(number)):
            return os.strerror(number).lower()
        case _:
            return "the connection failed"
