"""The ``tunnel-server`` command. Its options are in `tunnel_server.options`, the rules in `tunnel_server.relay`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import click

from tunnel_server import config, proxies, single, supervisor
from tunnel_server.complaints import EXIT_INTERRUPTED, EXIT_USAGE, CommandError, say, say_no_more
from tunnel_server.domains import domains
from tunnel_server.options import Address, relay_options, settings_of
from tunnel_server.settings import Settings

_NAME = "tunnel-server"


@click.group(
    invoke_without_command=True,
    subcommand_metavar="[COMMAND]",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@relay_options
@click.version_option(package_name="fido-hybrid", prog_name=_NAME)
@click.pass_context
def command(context: click.Context, /, **options: Any) -> int:
    """Run a relay for the FIDO hybrid transport."""
    if context.invoked_subcommand is not None:
        return 0
    settings = settings_of(options).with_file_limit()
    # The workers read the same options again, and so find a configuration file as it is when they start.
    serving = supervisor.run(settings, sys.argv[1:]) if settings.cluster else single.run(settings)
    return _run(settings, serving)


def _run(settings: Settings, serving: Coroutine[Any, Any, int]) -> int:
    try:
        factory = settings.loop_factory()
    except CommandError:
        serving.close()
        raise
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(serving)


def parse(arguments: Sequence[str], *, worker: int | None = None) -> Settings:
    """Settings of a command line without a command in it.

    Raises:
        CommandError, click.UsageError
    """
    with command.make_context(_NAME, list(arguments)) as context:
        return settings_of(context.params, worker=worker)


@command.command("check-config")
@click.argument("file", type=click.Path(path_type=Path))
def check_config(file: Path) -> None:
    """Read a configuration file as the relay would, and say whether it would start with it.

    Certificates are loaded, nothing is bound. A file that is no good is named with the line and the key.
    """
    parse(["--config", str(file)])
    _nodes(config.read(file)[0].get(config.NODES_KEY), file)
    click.echo(f"{file} is good")


@command.command("proxy-config")
@click.argument("kind", type=click.Choice(sorted(proxies.PROXIES)))
@click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="NAME=HOST:PORT,ID[,ADMIN-PORT]",
    help="A machine: its address, its --node number and the port of its --admin listener; repeatable.",
)
@click.option("--config", "file", type=click.Path(path_type=Path), help="Take the nodes from this file's key nodes.")
@click.option("--listen", type=Address(), default="0.0.0.0:443", show_default=True, help="Where the balancer listens.")
@click.option("--bundle", metavar="FILE", help="PEM file with chain and key for the balancer's TLS; plain without.")
def proxy_config(
    kind: str, nodes: tuple[str, ...], file: Path | None, listen: tuple[str, int], bundle: str | None
) -> None:
    """Write a configuration for a balancer in front of several nodes.

    HAProxy and Envoy tell the relays the clients' addresses with PROXY v2, so those need --proxy-protocol; nginx with
    X-Forwarded-For. All need --trusted-proxy with the balancer's address.
    """
    values: Any = list(nodes)
    if not values and file is not None:
        values = config.read(file)[0].get(config.NODES_KEY)
    found = _nodes(values, file)
    if not found:
        raise CommandError("there is no node", "give --node, or --config FILE with the key nodes", EXIT_USAGE)
    host = f"[{listen[0]}]" if ":" in listen[0] else listen[0]
    click.echo(proxies.PROXIES[kind](found, proxies.Front(host, listen[1], bundle)), nl=False)


def _nodes(values: Any, file: Path | None) -> list[proxies.Node]:
    """Nodes as options or the file's key `nodes` name them; none if there is no such key."""
    texts = [values] if isinstance(values, str) else values if values is not None else []
    try:
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError("must be a list of texts in quotes")
        nodes = [proxies.parse_node(text) for text in texts]
        if nodes:
            proxies.check_nodes(nodes)
    except ValueError as exc:
        if file is not None:
            line = config.line_of(config.read(file)[1], config.NODES_KEY)
            raise config.ConfigError(file, line, f"{config.NODES_KEY}: {exc}") from exc
        raise CommandError(str(exc), f"see {_NAME} proxy-config --help", EXIT_USAGE) from exc
    return nodes


command.add_command(domains)


def _keep_standard_streams() -> None:
    """Open those of the first three descriptors that are closed.

    A socket in the place of one would get what is meant for a person, and libuv refuses to have it.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)  # for workers too
    os.close(opened)


def run() -> None:
    """Console entry point."""
    _keep_standard_streams()
    try:
        code = command.main(prog_name=_NAME, standalone_mode=False) or 0
    except CommandError as exc:
        code = _complain(str(exc), exc.hint, exc.exit_code)
    except click.UsageError as exc:
        sentence = exc.format_message().rstrip(".")
        sentence = sentence[:1].lower() + sentence[1:]
        code = _complain(sentence, f"see {_NAME} --help", EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    say_no_more()
    sys.exit(code)


def _complain(sentence: str, hint: str, exit_code: int) -> int:
    say(f"{_NAME}: error: {sentence}")
    say(f"{_NAME}: hint: {hint}")
    return exit_code


if __name__ == "__main__":
    run()
