"""The options of the relay itself: their types, their words, and the `Settings` that they make."""

from __future__ import annotations

import functools
import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from tunnel_server import config, logs
from tunnel_server.client_address import Network
from tunnel_server.complaints import EXIT_USAGE, CommandError
from tunnel_server.forwarding import Peer
from tunnel_server.links import PeerFiles
from tunnel_server.relay import Limits
from tunnel_server.routing import NODES, WORKERS
from tunnel_server.settings import Settings, check

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+|null", re.IGNORECASE)
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^:\[\]]+):(\d{1,5})", re.ASCII)


_MOST = 1 << 40


class Seconds(click.FloatRange):
    """A time; neither infinity nor what is no number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no time", param, ctx)
        return number


class Count(click.IntRange):
    """A number of things from 1 on; none that no machine could have."""

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number: int = super().convert(value, param, ctx)
        if number > _MOST:
            self.fail(f"more than {_MOST} is no limit", param, ctx)
        return number


class Networks(click.ParamType[Network]):
    """An address, or a network as ADDRESS/BITS."""

    name = "network"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Network:
        try:
            return ipaddress.ip_network(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class Origin(click.ParamType[str]):
    """SCHEME://HOST[:PORT] in lower case, as browsers write it (RFC 6454 section 6.2)."""

    name = "origin"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not _ORIGIN.fullmatch(value):
            self.fail(f"{value} is not SCHEME://HOST or SCHEME://HOST:PORT", param, ctx)
        origin: str = value.lower()
        return origin


class Address(click.ParamType[tuple[str, int]]):
    """HOST:PORT, with brackets around a host that has colons."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        match = _ADDRESS.fullmatch(value)
        if match is None or int(match[2]) > 65535:
            self.fail(f"{value} is not HOST:PORT", param, ctx)
        host = match[1].strip("[]")
        try:
            host.encode("idna")  # what can never be a name must not wait for the first who looks it up
        except UnicodeError:
            self.fail(f"{value} is not HOST:PORT", param, ctx)
        return host, int(match[2])


class PeerAddress(click.ParamType[tuple[int, Peer]]):
    """NODE=HOST:PORT."""

    name = "peer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, Peer]:
        number, _, address = value.partition("=")
        if not re.fullmatch(r"\d{1,3}", number, re.ASCII) or int(number) >= NODES:
            self.fail(f"{value} is not NODE=HOST:PORT with a node from 0 to {NODES - 1}", param, ctx)
        return int(number), Peer(*Address().convert(address, param, ctx))


_LIMITS = {
    "message": ("--max-message", "Bytes in one message."),
    "messages": ("--max-messages", "Messages from one side."),
    "total": ("--max-total", "Bytes of messages from one side."),
    "frames": ("--max-frames", "Frames from one side: pings, and fragments of messages."),
    "early_messages": ("--early-messages", "Messages kept until the other side joins."),
    "early_bytes": ("--early-bytes", "Bytes of those."),
    "pending": ("--pending", "Seconds to wait for the other side."),
    "idle": ("--idle", "Seconds without a binary message after joining."),
    "lifetime": ("--lifetime", "Seconds a tunnel lives in all."),
    "head": ("--head", "Seconds for the TLS handshake and the request head."),
    "linger": ("--linger", "Seconds to wait for the end of a connection that was closed or refused."),
    "stall": ("--stall", "Seconds for a side to read what makes the other side wait."),
    "connections": ("--max-connections", "Connections at once, for each worker."),
    "tunnels": ("--max-tunnels", "Tunnels at once, for each worker."),
    "buffered": ("--max-buffered", "Bytes of messages early, unfinished or not taken by who stalls, for each worker."),
    "per_address": ("--max-per-address", "Connections at once from one IPv4 address or IPv6 /64, for each worker."),
    "new_per_minute": ("--new-per-minute", "Tunnels that one of those may create in a minute, for each worker."),
    "addresses": ("--addresses", "Addresses remembered for that."),
}


def _limit_option(name: str, kind: str, default: Any) -> Callable[..., Any]:
    flag, text = _LIMITS[name]
    return click.option(
        flag,
        name,
        type=Seconds(min=0, min_open=True) if kind == "float" else Count(),
        default=default,
        show_default=True,
        help=text,
    )


_FILE = click.Path(path_type=Path)
_OPTIONS = (
    click.option(
        "--config",
        type=_FILE,
        is_eager=True,
        callback=config.load,
        help="Read options from this TOML file; those given here win.",
    ),
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option(
        "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 for any free one."
    ),
    click.option("--cert", type=_FILE, help="Certificate chain (PEM) for TLS; SIGHUP reads it again."),
    click.option("--key", type=_FILE, help="Private key (PEM) of the certificate."),
    click.option("--plain", is_flag=True, help="Allow plain connections on an address that others can reach."),
    click.option(
        "--origin",
        "origins",
        multiple=True,
        type=Origin(),
        metavar="ORIGIN",
        help="Refuse other Origin headers; repeatable.",
    ),
    click.option("--limit-loopback", is_flag=True, help="Apply limits per address to loopback addresses too."),
    click.option(
        "--trusted-proxy",
        "proxies",
        multiple=True,
        type=Networks(),
        metavar="ADDRESS[/BITS]",
        help="Believe the X-Forwarded-For of this proxy; repeatable.",
    ),
    click.option(
        "--proxy-protocol", is_flag=True, help="Trusted proxies speak the PROXY protocol, version 2, instead."
    ),
    click.option(
        "--loop",
        type=click.Choice(["auto", "asyncio", "uvloop"]),
        default="auto",
        show_default=True,
        help="Event loop; auto takes uvloop where it is installed.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(1, WORKERS),
        default=1,
        show_default=True,
        help="Processes that share the work; SIGUSR2 replaces each by a new one.",
    ),
    click.option(
        "--node",
        type=click.IntRange(0, NODES - 1),
        help="Number of this machine among all of them, the first byte of its routing ids; any if left out.",
    ),
    click.option(
        "--runtime-dir",
        type=_FILE,
        metavar="PATH",
        help="Private folder for the workers' sockets; a temporary one if left out.",
    ),
    click.option(
        "--peer",
        "peers",
        multiple=True,
        type=PeerAddress(),
        metavar="NODE=HOST:PORT",
        help="Pass joins of this node's tunnels on to its peer listener; repeatable.",
    ),
    click.option(
        "--peer-listen", type=Address(), metavar="HOST:PORT", help="Take joins from other nodes here, over mutual TLS."
    ),
    click.option("--peer-cert", type=_FILE, help="Certificate chain (PEM) that other nodes see."),
    click.option("--peer-key", type=_FILE, help="Private key (PEM) of that certificate."),
    click.option("--peer-ca", type=_FILE, help="Authority (PEM) of all nodes' certificates."),
    click.option(
        "--admin",
        type=Address(),
        metavar="HOST:PORT",
        help="Answer /healthz, /readyz and /metrics here, plain; off if left out.",
    ),
    click.option(
        "--drain",
        type=Seconds(min=0),
        default=30.0,
        show_default=True,
        help="Seconds that tunnels get to end after SIGTERM.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="warning",
        show_default=True,
        help="Least level to log. No level shows ids, addresses or messages.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(logs.FORMATS),
        default="text",
        show_default=True,
        help="Lines for people, or a JSON object a line.",
    ),
    *(_limit_option(limit.name, str(limit.type), limit.default) for limit in fields(Limits)),
)


def relay_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """All of them, in the order written."""
    return functools.reduce(lambda made, option: option(made), reversed(_OPTIONS), function)


def settings_of(given: dict[str, Any], *, worker: int | None = None) -> Settings:
    """Settings from the values of all options, checked together; logging is set up on the way.

    Raises:
        CommandError
    """
    values = dict(given)
    values.pop("config")
    logs.set_up(values.pop("log_level"), values.pop("log_format"), worker=worker)
    settings = Settings(
        limits=Limits(**{limit.name: values.pop(limit.name) for limit in fields(Limits)}),
        peers=_peers(values.pop("peers")),
        peer_files=_peer_files(values.pop("peer_cert"), values.pop("peer_key"), values.pop("peer_ca")),
        **values,
    )
    check(settings)
    if worker is None:
        settings.warn_of_dates()
    return settings


def _peers(given: tuple[tuple[int, Peer], ...]) -> dict[int, Peer]:
    peers = dict(given)
    if len(peers) < len(given):
        raise CommandError("two peers have one number", "give each node a number of its own", EXIT_USAGE)
    return peers


def _peer_files(cert: Path | None, key: Path | None, ca: Path | None) -> PeerFiles | None:
    if cert is not None and key is not None and ca is not None:
        return PeerFiles(cert, key, ca)
    if (cert, key, ca) != (None, None, None):
        raise CommandError("--peer-cert, --peer-key and --peer-ca belong together", "give all, or none", EXIT_USAGE)
    return None
