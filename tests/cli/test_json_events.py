"""Every command speaks to programs, when it is asked to."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from hybrid.cli.main import cli


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


@pytest.mark.parametrize(("name", "command"), list(commands(cli, "hybrid")))
def test_every_command_takes_json_events(name: str, command: click.Command) -> None:
    assert "json_events" in [option.name for option in command.params], name
