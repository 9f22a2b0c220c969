"""The two commands as data, read off click: manual pages and completions are made from it. Has no words of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click

from hybrid.cli.main import cli
from tunnel_server.__main__ import command as tunnel_server

FILE = "FILE"


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `value` is empty for a flag; `choices` are the only values, if there are any."""

    names: tuple[str, ...]
    value: str
    choices: tuple[str, ...]
    is_file: bool
    text: str
    repeatable: bool


@dataclass(frozen=True, slots=True)
class Argument:
    """What comes after the options, as the usage line shows it."""

    text: str
    is_file: bool


@dataclass(frozen=True, slots=True)
class Command:
    """One command, with its subcommands if it is a group. `text` has a paragraph on each line.

    A group inside a program has the options of all its commands. `alone`: it does something without a command too.
    """

    name: str
    text: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    commands: tuple[Command, ...]
    alone: bool

    @property
    def leaves(self) -> list[tuple[str, Command]]:
        """Every command under this one that does something, with the words that call it."""
        return [
            (f"{command.name} {words}".rstrip(), leaf)
            for command in self.commands
            for words, leaf in command.leaves or [("", command)]
        ]

    @property
    def summary(self) -> str:
        """First sentence, without its full stop."""
        return self.text.split("\n")[0].partition(". ")[0].rstrip(".")


def programs() -> list[Command]:
    """`hybrid` and `tunnel-server`."""
    return [_command("hybrid", cli, None), _command("tunnel-server", tunnel_server, None)]


def _command(name: str, command: click.Command, parent: click.Context | None) -> Command:
    context = click.Context(command, parent=parent, info_name=name, **command.context_settings)
    parameters = command.get_params(context)
    groups = command.commands if isinstance(command, click.Group) else {}
    subcommands = tuple(_command(sub_name, sub, context) for sub_name, sub in sorted(groups.items()))
    options = [_option(item, context) for item in parameters if isinstance(item, click.Option) and not item.hidden]
    if parent is not None:  # a group inside: what any of its commands takes
        options += [option for subcommand in subcommands for option in subcommand.options]
    return Command(
        name=name,
        text="\n".join(_paragraphs(command.help or "")),
        options=tuple({option.names: option for option in reversed(options)}.values())[::-1],
        arguments=tuple(
            Argument(item.make_metavar(context), _takes_file(item, item.metavar))
            for item in parameters
            if isinstance(item, click.Argument)
        ),
        commands=subcommands,
        alone=not isinstance(command, click.Group) or command.invoke_without_command,
    )


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs on a line each; \\b is click's mark for a paragraph that keeps its lines."""
    for paragraph in text.split("\n\n"):
        yield " ".join(line.strip() for line in paragraph.replace("\b", "").splitlines() if line.strip())


def _option(option: click.Option, context: click.Context) -> Option:
    choices = tuple(option.type.choices) if isinstance(option.type, click.Choice) else ()
    metavar = "" if option.is_flag else option.make_metavar(context)
    text = option.help or ""
    if option.show_default and not option.is_flag and option.default is not None:
        text = f"{text.rstrip('.')} ({option.default})."
    return Option(
        names=(*option.opts, *option.secondary_opts),
        value=metavar,
        choices=choices,
        is_file=_takes_file(option, metavar),
        text=text,
        repeatable=option.multiple,
    )


def _takes_file(parameter: click.Parameter, metavar: str | None) -> bool:
    return isinstance(parameter.type, click.Path) or FILE in (metavar or "") or "PATH" in (metavar or "")
