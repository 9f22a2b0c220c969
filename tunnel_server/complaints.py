"""How the ``tunnel-server`` command fails: a sentence, a hint and an exit code; and how it talks to a person."""

from __future__ import annotations

import contextlib
import os
import sys

import click

EXIT_FAILED = 1  # it may go well another time
EXIT_USAGE = 2  # it will not: systemd does not try again
EXIT_NETWORK = 7
EXIT_INTERRUPTED = 130


class CommandError(Exception):
    """Ends the command with one sentence, one hint and an exit code."""

    def __init__(self, sentence: str, hint: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.hint = hint
        self.exit_code = exit_code


def say(line: str) -> None:
    """Write a line to stderr, if that can be: a relay goes on where the disk is full or nobody reads any more."""
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


def say_no_more() -> None:
    """Let go of what stderr did not take: some Pythons end with exit code 120 when they cannot write it in the end."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.flush()
    except OSError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stderr.fileno())
