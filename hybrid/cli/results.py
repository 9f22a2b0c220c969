"""The result on stdout, and what becomes of it when stdout cannot be written."""

from __future__ import annotations

import errno
import json
import sys
from contextlib import suppress
from typing import Any

from hybrid.cli.files import reason
from hybrid.cli.messages import UsageProblem

EXIT_BROKEN_PIPE = 141  # what shells give for SIGPIPE


def print_result(document: dict[str, Any]) -> int:
    """One JSON document on stdout, at once; give the exit code. Raises `UsageProblem`."""
    try:
        sys.stdout.write(json.dumps(document, indent=2 if sys.stdout.isatty() else None) + "\n")
        sys.stdout.flush()
    except OSError as error:
        return lose_result(error)
    return 0


def is_of_stdout(error: OSError) -> bool:
    """Whether an error that nobody expected is one of writing a result: those name no file."""
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EIO, errno.EPIPE)


def lose_result(error: OSError) -> int:
    """Give up on stdout; give the exit code if its reader left. Raises `UsageProblem` for every other reason."""
    with suppress(OSError):
        sys.stdout.close()  # or it would complain again at the end
    if isinstance(error, BrokenPipeError):
        return EXIT_BROKEN_PIPE
    raise UsageProblem(f"the result cannot be written: {reason(error)}", "check where stdout goes") from None
