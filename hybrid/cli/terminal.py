"""The screen: the code, one line per event, the time that is left.

Rules of this interface:

- stdout has the result and nothing else; everything here goes to stderr.
- On a terminal the code is a picture that is taken away once the phone was heard, and the last line shows how much
  time is left. Without one: the code as one line, then a line per event, and no cursor tricks.
- With ``--json-events`` stderr is one JSON object a line, and nothing else.
- The code is a secret: it is shown, never logged.
- Colours are set only to keep the code dark on light; ``NO_COLOR`` and ``--invert`` change that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from hybrid.cli.messages import Explanation, sentence_of
from hybrid.events import AdvertSeen, Event

QUIET_ZONE = 4  # modules; ISO/IEC 18004 asks for four
_LINES_WITH_CODE = 3  # what to do, the time left, and the line of the cursor
_HALF_BLOCKS = " ▄▀█"
_DARK_ON_LIGHT = "\x1b[30;107m"
_RESET = "\x1b[0m"
_WORD_BORDER = re.compile(r"(?<=[a-z])(?=[A-Z])")

Matrix = list[list[bool]]


def qr_matrix(text: str) -> Matrix:
    """Modules of the QR code with its quiet zone, dark ones True."""
    import qrcode

    code = qrcode.QRCode(error_correction=qrcode.ERROR_CORRECT_L, border=QUIET_ZONE)
    code.add_data(text)
    code.make(fit=True)
    return [[bool(module) for module in row] for row in code.get_matrix()]


def half_blocks(matrix: Matrix, *, invert: bool = False, color: bool = True) -> list[str]:
    """Lines of a terminal picture, two rows of modules each.

    With `color`, black on white is set explicitly, which is right on every terminal. Without, light modules take the
    terminal's foreground, which is right on dark screens; `invert` serves light ones.
    """
    ink_is_dark = color != invert
    rows = [*matrix, [False] * len(matrix[0])] if len(matrix) % 2 else matrix
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        line = "".join(
            _HALF_BLOCKS[2 * (top == ink_is_dark) + (bottom == ink_is_dark)]
            for top, bottom in zip(upper, lower, strict=True)
        )
        lines.append(f"{_DARK_ON_LIGHT}{line}{_RESET}" if color else line)
    return lines


def save_qr(text: str, path: Path, *, invert: bool = False) -> None:
    """Write the code as PNG or SVG, by the ending of `path`. Raises `OSError`, `ValueError` for another ending."""
    matrix = [[module != invert for module in row] for row in qr_matrix(text)]
    match path.suffix.lower():
        case ".png":
            import png

            scale = 8
            rows = [
                [0 if module else 1 for module in row for _ in range(scale)] for row in matrix for _ in range(scale)
            ]
            with _private_file(path) as file:
                png.Writer(width=len(rows[0]), height=len(rows), greyscale=True, bitdepth=1).write(file, rows)
        case ".svg":
            with _private_file(path) as file:
                file.write(_svg(matrix).encode())
        case _:
            raise ValueError("the file name ends with neither .png nor .svg")


def _private_file(path: Path) -> Any:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    return os.fdopen(descriptor, "wb")


def _svg(matrix: Matrix) -> str:
    size = len(matrix)
    dark = "".join(f"M{x} {y}h1v1h-1z" for y, row in enumerate(matrix) for x, module in enumerate(row) if module)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" shape-rendering="crispEdges">'
        f'<rect width="{size}" height="{size}" fill="#fff"/><path d="{dark}" fill="#000"/></svg>\n'
    )


def event_name(event: Event) -> str:
    """Stable name of an event for programs: ``AdvertSeen`` is ``advert-seen``."""
    return _WORD_BORDER.sub("-", type(event).__name__).lower()


class Screen:
    """stderr, for a person or a program. `program` is the word before every line."""

    def __init__(self, *, json_events: bool = False, program: str = "hybrid", stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr or io.StringIO()  # Python has no stderr if it was closed: say nothing then
        self._json = json_events
        self._program = program
        self._tty = not json_events and self._stream.isatty()
        self._moves = self._tty and os.environ.get("TERM", "dumb") != "dumb"
        self._code_lines = 0
        self._lines_after_code = 0
        self._countdown: _Countdown | None = None

    # the code

    def show_code(self, url: str, *, invert: bool = False, picture: bool = True) -> None:
        """Put the code where the reader can take it from, before anything slow is loaded."""
        if self._json:
            self._line(json.dumps({"event": "invitation", "url": url}))
        elif not self._tty:
            self._line(url)
        elif picture:
            self._draw(url, invert)

    def _draw(self, url: str, invert: bool) -> None:
        matrix = qr_matrix(url)
        lines = half_blocks(matrix, invert=invert, color=self._moves and not os.environ.get("NO_COLOR"))
        size = shutil.get_terminal_size()
        width = len(matrix[0])
        if width > size.columns or not self._can_show(_HALF_BLOCKS):
            if width > size.columns:
                self.say(
                    f"the code needs {width} columns and this terminal has {size.columns}: widen it, or use --qr-file"
                )
            else:
                self.say("this terminal cannot draw the code: use --qr-file")
            self._line(url)
            return
        if len(lines) + _LINES_WITH_CODE > size.lines:
            self.say(f"the code needs {len(lines) + _LINES_WITH_CODE} lines and this terminal has {size.lines}")
        for line in lines:
            self._line(line)
        self._code_lines = len(lines)
        self._lines_after_code = 0
        self.say("show this code to your phone; never scan one that others send you")

    def _can_show(self, text: str) -> bool:
        try:
            text.encode(self._stream.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return False
        return True

    def _hide_code(self) -> None:
        """Take the picture away, if all of it is still on the screen: what has scrolled off cannot be reached."""
        if not self._code_lines:
            return
        up = self._code_lines + self._lines_after_code
        self._code_lines = 0
        if self._moves and up < shutil.get_terminal_size().lines:
            self._put(f"\x1b[{up}A\x1b[J")

    # news

    def on_event(self, event: Event) -> None:
        """Show what happened."""
        if self._json:
            self._line(json.dumps({"event": event_name(event), **dataclasses.asdict(event)}))
            return
        sentence = sentence_of(event)
        if sentence is None:
            return
        self._stop_countdown()
        if isinstance(event, AdvertSeen):
            self._hide_code()
        seconds = getattr(event, "timeout", None)
        if self._moves and seconds is not None:
            self._countdown = _Countdown(self._show_status, f"{self._program}: {sentence}", seconds)
        else:
            self.say(sentence)

    def say(self, sentence: str) -> None:
        """One line for a person; programs that read JSON do not get it."""
        if not self._json:
            self._stop_countdown()
            self._line(f"{self._program}: {sentence}")

    def listening(self, where: str) -> None:
        """Say that a server is ready, in the words that programs wait for."""
        self._line(json.dumps({"event": "listening", "where": where}) if self._json else f"listening on {where}")

    def warn(self, sentence: str) -> None:
        """A line that a person must not miss, and an event for programs."""
        if self._json:
            self._line(json.dumps({"event": "warning", "message": sentence}))
        else:
            self.say(f"warning: {sentence}")

    def fail(self, identifier: str, explanation: Explanation) -> None:
        """Say what went wrong and what to do next."""
        if self._json:
            self._line(
                json.dumps(
                    {
                        "event": "error",
                        "identifier": identifier,
                        "message": explanation.sentence,
                        "hint": explanation.hint,
                        "exit_code": explanation.exit_code,
                    }
                )
            )
            return
        self._stop_countdown()
        self._hide_code()
        self.say(f"error: {explanation.sentence}")
        self.say(f"hint: {explanation.hint}")

    def stopped(self) -> None:
        """Say that a signal ended the command."""
        self._stop_countdown()
        self._hide_code()
        if self._moves:
            self._put("\r\x1b[K")  # over the ^C that the terminal writes
        self.say("stopped")

    def debug(self, line: str) -> None:
        """A line for those who mend this program."""
        if self._json:
            self._line(json.dumps({"event": "debug", "message": line}))
        else:
            self._line(line)

    def close(self) -> None:
        """Leave the terminal as it was: no line that counts, no code that has expired."""
        self._stop_countdown()
        self._hide_code()

    # lines

    def _line(self, line: str) -> None:
        self._put(line + "\n")
        if self._code_lines:
            shown = max(1, len(line))
            self._lines_after_code += -(-shown // max(1, shutil.get_terminal_size().columns))

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            # Who took the code may close our stderr, or a disk is full: the result on stdout is worth going on. What
            # is still buffered must go somewhere, or Python ends with exit code 120 when it cannot flush it.
            with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
            self._stream = io.StringIO()

    def _show_status(self, sentence: str, left: str) -> None:
        # A line that wraps could not be rewritten, and the time is what changes.
        room = shutil.get_terminal_size().columns - 1 - len(left)
        self._put(f"\r\x1b[K{sentence[: max(0, room)]}{left}")

    def _stop_countdown(self) -> None:
        if self._countdown is not None:
            self._countdown.stop()
            text, self._countdown = self._countdown.text, None
            self._put("\r\x1b[K")
            self._line(text)


class _Countdown:
    """Rewrites one line every second with the time that is left."""

    def __init__(self, show: Callable[[str, str], None], text: str, seconds: float) -> None:
        import asyncio

        self.text = text
        self._show = show
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + seconds
        self._tick()

    def _tick(self) -> None:
        left = max(0, round(self._end - self._loop.time()))
        self._show(self.text, f", {left} s left")
        self._timer = self._loop.call_later(1, self._tick)

    def stop(self) -> None:
        self._timer.cancel()
