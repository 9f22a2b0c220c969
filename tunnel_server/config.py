"""The configuration file: TOML, a key for each option of ``tunnel-server``, named like it without the dashes.

The options themselves say which values are legal, so that file and command line never differ; what is added here is the
file's name, the key and its line. A value on the command line wins. Pure, but for reading the one file.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any

import click

from tunnel_server.complaints import EXIT_USAGE, CommandError

NOT_IN_A_FILE = frozenset({"help", "version", "config"})
NODES_KEY = "nodes"  # for `tunnel-server proxy-config`; the relay itself does not read it
MAX_SIZE = 1024 * 1024

_LINE_OF_ERROR = re.compile(r"\s*\(at line (\d+), column \d+\)")


class ConfigError(CommandError):
    """A file that cannot be used. `line` counts from 1; None if it is not about a line."""

    def __init__(self, path: Path, line: int | None, problem: str) -> None:
        place = f"{path}:{line}" if line is not None else str(path)
        super().__init__(
            f"{place}: {problem}", "tunnel-server --help explains the options; keys are named like them", EXIT_USAGE
        )
        self.line = line


def options_by_key(command: click.Command) -> dict[str, click.Option]:
    """Every option that a file may set, by its key."""
    options = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            key = max(parameter.opts, key=len).lstrip("-")
            if key not in NOT_IN_A_FILE:
                options[key] = parameter
    return options


def read(path: Path) -> tuple[dict[str, Any], str]:
    """What a file says, and its text.

    Raises:
        ConfigError: it cannot be read, is too long or is no TOML.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
        if len(data) > MAX_SIZE:
            raise ConfigError(path, None, f"more than {MAX_SIZE} bytes")
        text = data.decode("utf-8")
        return tomllib.loads(text), text
    except OSError as exc:
        raise ConfigError(path, None, (exc.strerror or "cannot be read").lower()) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(path, data.count(b"\n", 0, exc.start) + 1, "this is no UTF-8") from exc
    except tomllib.TOMLDecodeError as exc:
        problem = str(exc)
        found = _LINE_OF_ERROR.search(problem)
        line = int(found[1]) if found else text.count("\n") + 1
        sentence = _LINE_OF_ERROR.sub("", problem).partition(" (at end")[0]
        raise ConfigError(path, line, f"no TOML: {sentence[:1].lower()}{sentence[1:]}") from exc


def defaults(command: click.Command, path: Path) -> dict[str, Any]:
    """Values of a file by the names of the command's parameters, as click's ``default_map`` takes them.

    Raises:
        ConfigError: the file as `read` says, an unknown key, or a value that the option would refuse.
    """
    values, text = read(path)
    options = options_by_key(command)
    context = click.Context(command, info_name=command.name)
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key == NODES_KEY:
            continue
        option = options.get(key)
        if option is None:
            near = difflib.get_close_matches(key, options, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            kind = "table" if isinstance(value, dict) else "key"
            raise ConfigError(path, line_of(text, key), f"unknown {kind} {key}{hint}")
        items = value if option.multiple and isinstance(value, list) else [value]
        for item in items:
            problem = _problem(option, item, context)
            if problem is not None:
                raise ConfigError(path, line_of(text, key), f"{key}: {problem}")
        assert option.name is not None
        found[option.name] = items if option.multiple else value
    return found


def line_of(text: str, key: str) -> int | None:
    """Line in which a top-level key or table stands, counted from 1; None if it is written in an unusual way."""
    name = re.escape(key)
    pattern = re.compile(rf"[ \t]*(\[\[?[ \t]*)?(['\"]?){name}\2[ \t]*[=.\]]")
    for number, line in enumerate(text.splitlines(), 1):
        if pattern.match(line):
            return number
    return None


def _problem(option: click.Option, value: Any, context: click.Context) -> str | None:
    """Why an option would refuse a value of TOML, None if it takes it."""
    kind = option.type
    if option.is_flag:
        return None if isinstance(value, bool) else "must be true or false"
    if isinstance(kind, (click.types.IntParamType, click.IntRange)):
        fits, wanted = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    elif isinstance(kind, (click.types.FloatParamType, click.FloatRange)):
        fits, wanted = isinstance(value, (int, float)) and not isinstance(value, bool), "a number"
    else:
        fits, wanted = isinstance(value, str), "a text in quotes"
    if not fits:
        return f"must be {wanted}"
    try:
        kind.convert(value, option, context)
    except click.BadParameter as exc:
        return exc.message.rstrip(".")
    return None


def load(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """Take the other options' defaults from the file; the callback of an eager ``--config``."""
    if value is not None:
        context.default_map = defaults(context.command, value)
    return value
