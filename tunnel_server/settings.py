"""What the options come to, once they are checked together."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import resource
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from tunnel_server.client_address import Network
from tunnel_server.complaints import EXIT_USAGE, CommandError
from tunnel_server.forwarding import Peer
from tunnel_server.links import PeerContexts, PeerFiles
from tunnel_server.relay import Limits

SPARE_FILES = 128  # descriptors for everything that is not a connection

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one relay. `admin` and `peer_listen`: host and port; `node`: byte of the routing id, None: any."""

    host: str
    port: int
    cert: Path | None
    key: Path | None
    plain: bool
    limits: Limits
    origins: tuple[str, ...]
    limit_loopback: bool
    proxies: tuple[Network, ...]
    proxy_protocol: bool
    drain: float
    loop: str
    workers: int
    node: int | None
    runtime_dir: Path | None
    admin: tuple[str, int] | None
    peers: Mapping[int, Peer]
    peer_listen: tuple[str, int] | None
    peer_files: PeerFiles | None

    def tls(self) -> ssl.SSLContext | None:
        """A fresh TLS context from the files as they are now; None for plain.

        Raises:
            CommandError: the certificate or its key cannot be used.
        """
        return None if self.cert is None or self.key is None else _tls(self.cert, self.key)

    def warn_of_dates(self) -> None:
        """Log a warning where clients will refuse the certificate today; it is used all the same."""
        if self.cert is None:
            return
        try:
            leaf = x509.load_pem_x509_certificate(self.cert.read_bytes())
        except ValueError:  # stricter than OpenSSL, which has taken it
            return
        now = datetime.now(UTC)
        if now > leaf.not_valid_after_utc:
            logger.warning("the certificate expired on %s; renew it, then send SIGHUP", leaf.not_valid_after_utc.date())
        elif now < leaf.not_valid_before_utc:
            logger.warning("the certificate is valid from %s on; look at the clock", leaf.not_valid_before_utc.date())

    def peer_contexts(self) -> PeerContexts | None:
        """Fresh TLS between nodes from the files as they are now; None without peers.

        Raises:
            CommandError: one of the files cannot be used.
        """
        if self.peer_files is None:
            return None
        try:
            return self.peer_files.contexts()
        except (OSError, ValueError) as exc:
            raise CommandError(
                "the certificates for peers cannot be used",
                "give --peer-cert, its --peer-key and the --peer-ca of all nodes, as PEM",
                EXIT_USAGE,
            ) from exc

    def loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """Maker of the wanted event loop; None for asyncio's own.

        Raises:
            CommandError: it is not installed.
        """
        if self.loop == "asyncio":
            return None
        try:
            import uvloop
        except ImportError as exc:
            if self.loop == "auto":
                return None
            raise CommandError(
                "uvloop is not installed", "install fido-hybrid[relay], or take --loop asyncio", EXIT_USAGE
            ) from exc
        return uvloop.new_event_loop

    @property
    def cluster(self) -> bool:
        """Whether there is anybody to pass a join on to."""
        return self.workers > 1 or self.peer_files is not None

    def with_file_limit(self) -> Settings:
        """Allow as many open files as connections need; where the system does not, promise fewer connections."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return self
        # A join whose bytes are passed on holds the way to its owner too, and links between nodes wait for their next
        # join; plain joins are given away to workers.
        each = 2 if self.peer_files is not None or (self.workers > 1 and self.cert is not None) else 1
        wanted = each * self.limits.connections + SPARE_FILES
        if soft < wanted:
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            connections = max(1, (soft - SPARE_FILES) // each, soft // (2 * each))
            # Half of what nobody asked for is no reason to worry anybody.
            harmless = self.limits.connections == Limits().connections <= 2 * connections
            level = logging.INFO if harmless else logging.WARNING
            logger.log(level, "only %d connections at once: the system allows %d open files", connections, soft)
            return replace(self, limits=replace(self.limits, connections=connections))
        return self


def check(settings: Settings) -> None:
    """Refuse options that do not go together, and files that cannot be used.

    Raises:
        CommandError
    """
    if (settings.cert is None) != (settings.key is None):
        raise CommandError("--cert and --key belong together", "give both, or neither", EXIT_USAGE)
    if settings.cert is not None:
        if settings.plain:
            raise CommandError("--plain and --cert exclude each other", "leave one of them out", EXIT_USAGE)
        settings.tls()
    check_plain(settings, settings.host)
    if settings.proxy_protocol and not settings.proxies:
        raise CommandError(
            "--proxy-protocol needs to know whom to believe", "name the proxies with --trusted-proxy", EXIT_USAGE
        )
    if settings.peers and settings.node is None:
        raise CommandError("--peer needs to know which node this is", "give --node a number of its own", EXIT_USAGE)
    if settings.node in settings.peers:
        raise CommandError(f"node {settings.node} is this one", "leave it out of the peers", EXIT_USAGE)
    if (settings.peers or settings.peer_listen) and settings.peer_files is None:
        raise CommandError("peers need certificates", "give --peer-cert, --peer-key and --peer-ca together", EXIT_USAGE)
    settings.peer_contexts()


def check_plain(settings: Settings, host: str) -> None:
    """Refuse to speak plain on `host`, unless it is loopback or the operator said so.

    Raises:
        CommandError
    """
    if settings.cert is None and not settings.plain and not _is_loopback(host):
        raise CommandError(
            "plain connections are for this machine only",
            "give --cert and --key, or --plain if something in front of the relay speaks TLS",
            EXIT_USAGE,
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _tls(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0  # hardly anybody comes back, and each ticket costs time and memory
    chain = secret = b""
    try:
        chain, secret = cert.read_bytes(), key.read_bytes()  # OpenSSL does not say which one cannot be read
        # An empty password: a key that needs one must fail here and not ask on a terminal that nobody watches.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as exc:
        raise CommandError(
            f"the certificate and its key cannot be used ({_fault(cert, chain, key, secret, exc)})",
            "give a readable certificate chain and the unencrypted key that belongs to it, both as PEM",
            EXIT_USAGE,
        ) from exc
    return context


def _fault(cert: Path, chain: bytes, key: Path, secret: bytes, exc: OSError | ValueError) -> str:
    """What is wrong with two files of which OpenSSL says little: who reads it needs to know which one to look at."""
    if isinstance(exc, OSError) and exc.filename:
        return f"{exc.filename}: {(exc.strerror or 'no reason given').lower()}"
    if b"-----BEGIN CERTIFICATE-----" not in chain:
        return f"{cert} holds no certificate"
    if b"PRIVATE KEY-----" not in secret:
        return f"{key} holds no private key"
    if b"ENCRYPTED" in secret:
        return f"{key} is encrypted"
    return "they do not belong together" if getattr(exc, "reason", None) == "KEY_VALUES_MISMATCH" else "broken PEM"


def log_trouble(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what the event loop complains about, without the sockets and addresses that it would name."""
    exc = context.get("exception")
    if isinstance(exc, OSError):
        reason = os.strerror(exc.errno) if exc.errno else "no reason given"
        logger.warning("%s: %s", context["message"], reason)
    else:
        logger.error("%s", context["message"], exc_info=exc)
