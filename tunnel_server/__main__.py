"""The ``tunnel-server`` command: options, signals, logging. What a relay does is in `tunnel_server.relay`."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import math
import os
import resource
import signal
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import click

from tunnel_server.app import Server, serve
from tunnel_server.client_address import Network
from tunnel_server.relay import Limits

EXIT_USAGE = 2
EXIT_NETWORK = 7
EXIT_INTERRUPTED = 130

_SPARE_FILES = 128  # descriptors for everything that is not a connection

logger = logging.getLogger(__name__)


class CommandError(Exception):
    """Ends the command with one sentence, one hint and an exit code."""

    def __init__(self, sentence: str, hint: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.hint = hint
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class _Settings:
    host: str
    port: int
    ssl_context: ssl.SSLContext | None
    limits: Limits
    origins: tuple[str, ...]
    limit_loopback: bool
    proxies: tuple[Network, ...]
    proxy_protocol: bool
    drain: float


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
    try:
        # An empty password: a key that needs one must fail here and not ask on a terminal that nobody watches.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as exc:
        raise CommandError(
            "the certificate and its key cannot be used",
            "give a readable certificate chain and the unencrypted key that belongs to it, both as PEM",
            EXIT_USAGE,
        ) from exc
    return context


def _check(host: str, cert: Path | None, key: Path | None, plain: bool) -> ssl.SSLContext | None:
    """TLS context of the options, None for plain."""
    if (cert is None) != (key is None):
        raise CommandError("--cert and --key belong together", "give both, or neither", EXIT_USAGE)
    if cert is not None and key is not None:
        if plain:
            raise CommandError("--plain and --cert exclude each other", "leave one of them out", EXIT_USAGE)
        return _tls(cert, key)
    if not plain and not _is_loopback(host):
        raise CommandError(
            "plain connections are for this machine only",
            "give --cert and --key, or --plain if something in front of the relay speaks TLS",
            EXIT_USAGE,
        )
    return None


def _raise_file_limit(limits: Limits) -> Limits:
    """Allow as many open files as connections need; where the system does not, promise fewer connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits
    wanted = limits.connections + _SPARE_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft < wanted:
        connections = max(1, soft - _SPARE_FILES)
        logger.warning("only %d connections at once: the system allows %d open files", connections, soft)
        return replace(limits, connections=connections)
    return limits


def _log_trouble(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what the event loop complains about, without the sockets and addresses that it would name."""
    exc = context.get("exception")
    if isinstance(exc, OSError):
        reason = os.strerror(exc.errno) if exc.errno else "no reason given"
        logger.warning("%s: %s", context["message"], reason)
    else:
        logger.error("%s", context["message"], exc_info=exc)


async def _run(settings: _Settings) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_trouble)
    try:
        async with serve(
            settings.host,
            settings.port,
            ssl_context=settings.ssl_context,
            limits=settings.limits,
            origins=settings.origins,
            limit_loopback=settings.limit_loopback,
            proxies=settings.proxies,
            proxy_protocol=settings.proxy_protocol,
        ) as server:
            signals: asyncio.Queue[int] = asyncio.Queue()
            for wanted in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(wanted, signals.put_nowait, wanted)
            host = f"[{server.host}]" if ":" in server.host else server.host
            click.echo(f"listening on {host}:{server.port}", err=True)
            first = await signals.get()
            await _drain(server, signals, settings.drain)
            return EXIT_INTERRUPTED if first == signal.SIGINT else 0
    except (OSError, UnicodeError) as exc:  # UnicodeError: a host name that cannot be one
        number = exc.errno if isinstance(exc, OSError) else None  # getaddrinfo has its own, negative ones
        reason = os.strerror(number).lower() if number is not None and number > 0 else "no such host"
        raise CommandError(
            f"cannot listen on the given address: {reason}",
            "choose another --host or --port, or end what uses it",
            EXIT_NETWORK,
        ) from exc


async def _drain(server: Server, signals: asyncio.Queue[int], seconds: float) -> None:
    """Wait for the last tunnel, for the time or for a second signal, whichever comes first."""
    logger.info("no new tunnels from now on")
    drained = asyncio.ensure_future(server.drain())
    again = asyncio.ensure_future(signals.get())
    try:
        await asyncio.wait((drained, again), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not drained.done():
            server.abort()
    finally:
        for task in (drained, again):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


_LIMIT_OPTIONS = {
    "message": ("--max-message", "Bytes in one message."),
    "messages": ("--max-messages", "Messages from one side."),
    "total": ("--max-total", "Bytes of messages from one side."),
    "early_messages": ("--early-messages", "Messages kept until the other side joins."),
    "early_bytes": ("--early-bytes", "Bytes of those."),
    "pending": ("--pending", "Seconds to wait for the other side."),
    "idle": ("--idle", "Seconds without a binary message after joining."),
    "lifetime": ("--lifetime", "Seconds a tunnel lives in all."),
    "head": ("--head", "Seconds for the TLS handshake and the request head."),
    "linger": ("--linger", "Seconds to wait for the end of a connection that was closed or refused."),
    "stall": ("--stall", "Seconds for a side to read what makes the other side wait."),
    "connections": ("--max-connections", "Connections at once."),
    "tunnels": ("--max-tunnels", "Tunnels at once."),
    "buffered": ("--max-buffered", "Bytes of early and of unfinished messages, of all connections together."),
    "per_address": ("--max-per-address", "Connections at once from one IPv4 address or IPv6 /64."),
    "new_per_minute": ("--new-per-minute", "Tunnels that one of those may create in a minute."),
    "addresses": ("--addresses", "Addresses remembered for that."),
}


class _Seconds(click.FloatRange):
    """A time; neither infinity nor what is no number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no time", param, ctx)
        return number


class _Networks(click.ParamType[Network]):
    """An address, or a network as ADDRESS/BITS."""

    name = "network"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Network:
        try:
            return ipaddress.ip_network(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


def _limit_options(command: click.Command) -> click.Command:
    """Add an option for every field of `Limits`, with its default."""
    for limit in fields(Limits):
        flag, text = _LIMIT_OPTIONS[limit.name]
        kind = _Seconds(min=0, min_open=True) if limit.type == "float" else click.IntRange(min=1)
        command.params.append(
            click.Option([flag, limit.name], type=kind, default=limit.default, show_default=True, help=text)
        )
    return command


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 for any free one."
)
@click.option("--cert", type=click.Path(path_type=Path), help="Certificate chain (PEM) for TLS.")
@click.option("--key", type=click.Path(path_type=Path), help="Private key (PEM) of the certificate.")
@click.option("--plain", is_flag=True, help="Allow plain connections on an address that others can reach.")
@click.option("--origin", "origins", multiple=True, metavar="ORIGIN", help="Refuse other Origin headers; repeatable.")
@click.option("--limit-loopback", is_flag=True, help="Apply limits per address to loopback addresses too.")
@click.option(
    "--trusted-proxy",
    "proxies",
    multiple=True,
    type=_Networks(),
    metavar="ADDRESS[/BITS]",
    help="Believe the X-Forwarded-For of this proxy; repeatable.",
)
@click.option("--proxy-protocol", is_flag=True, help="Trusted proxies speak the PROXY protocol, version 2, instead.")
@click.option(
    "--loop",
    type=click.Choice(["auto", "asyncio", "uvloop"]),
    default="auto",
    show_default=True,
    help="Event loop; auto takes uvloop where it is installed.",
)
@click.option(
    "--drain",
    type=_Seconds(min=0),
    default=30.0,
    show_default=True,
    help="Seconds that tunnels get to end after SIGTERM.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    show_default=True,
    help="Least level to log. No level shows ids, addresses or messages.",
)
@click.version_option(package_name="fido-hybrid", prog_name="tunnel-server")
def command(
    host: str,
    port: int,
    cert: Path | None,
    key: Path | None,
    plain: bool,
    origins: tuple[str, ...],
    limit_loopback: bool,
    proxies: tuple[Network, ...],
    proxy_protocol: bool,
    loop: str,
    drain: float,
    log_level: str,
    **limits: Any,  # the fields of Limits, typed by click
) -> int:
    """Run a relay for the FIDO hybrid transport."""
    logging.basicConfig(level=log_level.upper(), format="tunnel-server: %(levelname)s: %(message)s")
    # In its debug mode the event loop would log the address of every connection.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    settings = _Settings(
        host=host,
        port=port,
        ssl_context=_check(host, cert, key, plain),
        limits=_raise_file_limit(Limits(**limits)),
        origins=origins,
        limit_loopback=limit_loopback,
        proxies=proxies,
        proxy_protocol=proxy_protocol,
        drain=drain,
    )
    if proxy_protocol and not proxies:
        raise CommandError(
            "--proxy-protocol needs to know whom to believe", "name the proxies with --trusted-proxy", EXIT_USAGE
        )
    with asyncio.Runner(loop_factory=_loop_factory(loop)) as runner:
        return runner.run(_run(settings))


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Maker of the event loop called `name`; None for asyncio's own."""
    if name == "asyncio":
        return None
    try:
        import uvloop
    except ImportError as exc:
        if name == "auto":
            return None
        raise CommandError(
            "uvloop is not installed", "install fido-hybrid[relay], or take --loop asyncio", EXIT_USAGE
        ) from exc
    return uvloop.new_event_loop


_limit_options(command)


def run() -> None:
    """Console entry point."""
    try:
        code = command.main(prog_name="tunnel-server", standalone_mode=False)
    except CommandError as exc:
        code = _complain(str(exc), exc.hint, exc.exit_code)
    except click.UsageError as exc:
        sentence = exc.format_message().rstrip(".")
        sentence = sentence[:1].lower() + sentence[1:]
        code = _complain(sentence, "see tunnel-server --help", EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    sys.exit(code)


def _complain(sentence: str, hint: str, exit_code: int) -> int:
    click.echo(f"tunnel-server: error: {sentence}", err=True)
    click.echo(f"tunnel-server: hint: {hint}", err=True)
    return exit_code


if __name__ == "__main__":
    run()
