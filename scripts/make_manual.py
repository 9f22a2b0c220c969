"""``python -m scripts.make_manual``: writes what follows from the commands' options.

That is manual pages and completions under ``share/``, and the relay's example of a configuration file.

They are committed, so that a wheel can be built without the project's dependencies; a test says when they are old.
The completions are static: no program of ours starts while somebody types.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

import hybrid
from scripts.commands import Command, Option, programs
from tunnel_server.__main__ import command as relay
from tunnel_server.config import NODES_KEY, options_by_key

ROOT = Path(__file__).parents[1]
EXAMPLE = "packaging/tunnel-server.toml"
_NOTE = "Made by scripts/make_manual.py from the command's own options; do not edit."


def files() -> dict[str, str]:
    """Content of every generated file, by its path in the checkout."""
    made = {}
    for program in programs():
        name = program.name
        made[f"share/man/man1/{name}.1"] = manual_page(program)
        made[f"share/bash-completion/completions/{name}"] = bash(program)
        made[f"share/zsh/site-functions/_{name}"] = zsh(program)
        made[f"share/fish/vendor_completions.d/{name}.fish"] = fish(program)
    made[EXAMPLE] = example_config()
    return made


def main() -> int:
    """Write what changed; name it."""
    for name, content in files().items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
            print(name)
    return 0


# --- the relay's configuration file -----------------------------------------------------------------------------------


def example_config() -> str:
    """Every key with its explanation and its default, all of them comments."""
    context = click.Context(relay)
    lines = [
        "# Configuration of tunnel-server, for /etc/tunnel-server/tunnel-server.toml. A key is an option without its",
        '# dashes; what stands here is the default, or an example after "for example". The command line wins.',
        "# tunnel-server check-config FILE says whether a file is good.",
        f"# {_NOTE}",
    ]
    for key, option in options_by_key(relay).items():
        example = _EXAMPLES.get(key)
        note = "" if example is None else " For example:"
        value = option.get_default(context) if example is None else example
        lines += ["", *textwrap.wrap(f"{option.help}{note}", 110, initial_indent="# ", subsequent_indent="# ")]
        lines.append(f"#{key} = {json.dumps(value)}")
    lines += [
        "",
        *textwrap.wrap(_NODES_HELP, 110, initial_indent="# ", subsequent_indent="# "),
        f"#{NODES_KEY} = {json.dumps(_EXAMPLES[NODES_KEY])}",
    ]
    return "\n".join(lines) + "\n"


_NODES_HELP = (
    "All machines, for tunnel-server proxy-config only: name, address, number and the port of the admin listener. "
    "For example:"
)
_EXAMPLES: dict[str, str | int | list[str]] = {
    "cert": "/run/credentials/tunnel-server.service/cert",
    "key": "/run/credentials/tunnel-server.service/key",
    "origin": ["wss://cable.example.com"],
    "trusted-proxy": ["192.0.2.10", "2001:db8::/64"],
    "node": 1,
    "runtime-dir": "/run/tunnel-server",
    "peer": ["2=192.0.2.2:8444", "3=[2001:db8::3]:8444"],
    "peer-listen": "192.0.2.1:8444",
    "peer-cert": "/etc/tunnel-server/node.pem",
    "peer-key": "/etc/tunnel-server/node.key",
    "peer-ca": "/etc/tunnel-server/nodes.pem",
    "admin": "127.0.0.1:9090",
    NODES_KEY: ["a=192.0.2.1:8443,1,9090", "b=192.0.2.2:8443,2,9090"],
}


# --- manual pages: man(7) macros --------------------------------------------------------------------------------------


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in escaped.split("\n"))


def _roff_options(options: tuple[Option, ...]) -> Iterator[str]:
    for option in options:
        names = ", ".join(f"\\fB{_roff(name)}\\fR" for name in option.names)
        value = "|".join(option.choices) or option.value
        yield ".TP"
        yield names + (f" \\fI{_roff(value)}\\fR" if value else "")
        yield _roff(option.text)


def _roff_paragraphs(command: Command) -> list[str]:
    first, *others = command.text.split("\n")
    return [_roff(first), *(line for paragraph in others for line in (".PP", _roff(paragraph)))]


def manual_page(program: Command) -> str:
    """One page for the program, with a section for each of its commands."""
    lines = [
        f'.\\" {_NOTE}',
        f'.TH {program.name.upper()} 1 "" "fido\\-hybrid {hybrid.__version__}" "User Commands"',
        ".SH NAME",
        f"{_roff(program.name)} \\- {_roff(program.summary[:1].lower() + program.summary[1:])}",
        ".SH SYNOPSIS",
    ]
    own = [("", program)] if program.alone else []
    for words, command in own + program.leaves:
        lines += [f".B {_roff(f'{program.name} {words}'.rstrip())}", "[\\fIOPTION\\fR]..." + _arguments(command), ".br"]
    lines[-1:] = [".SH DESCRIPTION", *_roff_paragraphs(program)]
    lines += [".SH OPTIONS", *_roff_options(program.options)]
    if program.commands:
        lines.append(".SH COMMANDS")
    for words, command in program.leaves:
        lines += [f'.SS "{_roff(program.name)} {_roff(words)}{_arguments(command)}"', *_roff_paragraphs(command)]
        lines += _roff_options(command.options)
    return "\n".join(lines) + "\n"


def _arguments(command: Command) -> str:
    return "".join(f" \\fI{_roff(argument.text)}\\fR" for argument in command.arguments)


# --- bash -------------------------------------------------------------------------------------------------------------


def _function(program: Command) -> str:
    return "_" + program.name.replace("-", "_")


def _names(command: Command) -> str:
    return " ".join(name for option in command.options for name in option.names)


def _commands(command: Command) -> str:
    return " ".join(subcommand.name for subcommand in command.commands)


def _bash_values(command: Command) -> Iterator[str]:
    """Branches by the word before: choices are offered, files left to readline, other values to the person."""
    prefix = f"{command.name} "
    for option in command.options:
        if option.choices:
            names = "|".join(f"'{prefix}{name}'" for name in option.names)
            yield f"    {names}) COMPREPLY=($(compgen -W '{' '.join(option.choices)}' -- \"$word\")); return ;;"
    files = [f"'{prefix}{name}'" for option in command.options if option.is_file for name in option.names]
    if files:
        yield f"    {'|'.join(files)}) compopt -o default; return ;;"
    free = [
        f"'{prefix}{name}'"
        for option in command.options
        if option.value and not option.choices and not option.is_file
        for name in option.names
    ]
    if free:
        yield f"    {'|'.join(free)}) return ;;"


def _bash_options(command: Command) -> Iterator[str]:
    yield f"    {command.name})"
    yield f"      if [[ $word == -* ]]; then COMPREPLY=($(compgen -W '{_names(command)}' -- \"$word\"))"
    if command.commands:
        yield f"      elif ((COMP_CWORD == 2)); then COMPREPLY=($(compgen -W '{_commands(command)}' -- \"$word\"))"
    if any(argument.is_file for argument in command.arguments):
        yield "      else compopt -o default"
    yield "      fi ;;"


def bash(program: Command) -> str:
    """For ``/usr/share/bash-completion/completions``; needs nothing of the bash-completion package."""
    function = _function(program)
    lines = [
        f"# bash completion for {program.name}. {_NOTE}",
        "# shellcheck shell=bash disable=SC2207",
        f"{function}() {{",
    ]
    lines += ["  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}", "  COMPREPLY=()"]
    if program.commands:
        names = " ".join(command.name for command in program.commands)
        lines += [
            "  local command=${COMP_WORDS[1]}",
            "  if ((COMP_CWORD == 1)); then",
            f"    COMPREPLY=($(compgen -W '{names} {_names(program)}' -- \"$word\"))",
            "    return",
            "  fi",
        ]
        if program.alone:
            lines.append(f"  [[ $command != -* ]] || command={program.name}")
    else:
        lines.append(f"  local command={program.name}")
    commands = (*program.commands, *([replace(program, commands=())] if program.alone else []))
    lines += ['  case "$command $before" in', *(line for item in commands for line in _bash_values(item)), "  esac"]
    lines += ["  case $command in", *(line for item in commands for line in _bash_options(item)), "  esac", "}"]
    lines.append(f"complete -F {function} {program.name}")
    return "\n".join(lines) + "\n"


# --- zsh --------------------------------------------------------------------------------------------------------------


def _zsh_text(text: str) -> str:
    """For an _arguments specification inside single quotes."""
    escaped = text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    return escaped.replace("'", "'\\''")


def _zsh_option(option: Option) -> str:
    names = option.names[0] if len(option.names) == 1 else "{" + ",".join(option.names) + "}"
    action = f"({' '.join(option.choices)})" if option.choices else "_files" if option.is_file else " "
    value = f":{_zsh_text('value' if option.choices else option.value)}:{action}" if option.value else ""
    exclusive = "*" if option.repeatable else f"({' '.join(option.names)})"
    return f"'{exclusive}'{names}'[{_zsh_text(option.text.rstrip('.'))}]{value}'"


def _zsh_arguments(command: Command) -> list[str]:
    options = [_zsh_option(option) for option in command.options]
    if command.commands:
        return [*options, f"'1:command:({_commands(command)})'", "'*: : '"]
    words = [f"'*:{_zsh_text(item.text)}:{'_files' if item.is_file else ' '}'" for item in command.arguments]
    return [*options, *words]


def zsh(program: Command) -> str:
    """For a folder in zsh's fpath, as ``_NAME``."""
    lines = [f"#compdef {program.name}", f"# {_NOTE}"]
    own = " \\\n    ".join(_zsh_option(option) for option in program.options)
    if not program.commands:
        own = " \\\n    ".join(_zsh_arguments(program))
        return "\n".join([*lines, f"_arguments -s -S \\\n    {own}"]) + "\n"
    lines += ["local curcontext=$curcontext state line ret=1", "typeset -A opt_args", "local -a commands=("]
    lines += [f"  '{item.name}:{_zsh_text(item.summary)}'" for item in program.commands]
    lines += [")", f"_arguments -C \\\n    {own} \\\n    '1: :->command' '*:: :->words' && ret=0", "case $state in"]
    lines += ["  command) _describe -t commands command commands && ret=0 ;;", "  words)", "    case $line[1] in"]
    for command in program.commands:
        arguments = " \\\n        ".join(_zsh_arguments(command))
        lines.append(f"      {command.name}) _arguments -s -S \\\n        {arguments} && ret=0 ;;")
    lines += ["    esac ;;", "esac", "return ret"]
    return "\n".join(lines) + "\n"


# --- fish -------------------------------------------------------------------------------------------------------------


def _fish_text(text: str) -> str:
    return "'" + text.rstrip(".").replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_options(program: Command, command: Command, condition: str) -> Iterator[str]:
    for option in command.options:
        words = ["complete", "-c", program.name, *(["-n", f"'{condition}'"] if condition else [])]
        for name in option.names:
            words += ["-l", name[2:]] if name.startswith("--") else ["-s", name[1:]]
        if option.choices:
            words += ["-x", "-a", f"'{' '.join(option.choices)}'"]
        elif option.is_file:
            words += ["-r", "-F"]
        elif option.value:
            words.append("-x")
        yield " ".join([*words, "-d", _fish_text(option.text)])
    if command is not program and command.commands:
        condition = f"{condition}; and not __fish_seen_subcommand_from {_commands(command)}"
        yield " ".join(["complete", "-c", program.name, "-n", f"'{condition}'", "-a", f"'{_commands(command)}'"])
    if any(argument.is_file for argument in command.arguments):
        yield " ".join(["complete", "-c", program.name, *(["-n", f"'{condition}'"] if condition else []), "-F"])


def fish(program: Command) -> str:
    """For fish's ``vendor_completions.d``."""
    lines = [f"# fish completion for {program.name}. {_NOTE}", f"complete -c {program.name} -f"]
    top = "__fish_use_subcommand" if program.commands else ""
    if program.commands and program.alone:  # fish would take the value of an option for a command
        top = f"not __fish_seen_subcommand_from {_commands(program)}"
    lines += _fish_options(program, program, top)
    for command in program.commands:
        lines.append(f"complete -c {program.name} -n '{top}' -a {command.name} -d {_fish_text(command.summary)}")
    for command in program.commands:
        lines += _fish_options(program, command, f"__fish_seen_subcommand_from {command.name}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
