"""How the ``tunnel-server`` command fails: a sentence, a hint and an exit code."""

from __future__ import annotations

EXIT_USAGE = 2
EXIT_NETWORK = 7
EXIT_INTERRUPTED = 130


class CommandError(Exception):
    """Ends the command with one sentence, one hint and an exit code."""

    def __init__(self, sentence: str, hint: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.hint = hint
        self.exit_code = exit_code
