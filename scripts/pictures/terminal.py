"""Terminals as SVG: real runs in tmux, every character where the terminal has it.

Blocks of a QR code are drawn as areas, so that no font leaves gaps in it. The codes are those of the run: their keys
were used once, or thrown away, before the picture was written.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from xml.sax.saxutils import escape

_PATIENCE = 60.0  # seconds
_LOOK_EVERY = 0.05

_CELL_WIDTH, _CELL_HEIGHT, _FONT_SIZE, _BASELINE = 8.0, 18.0, 13.3, 13.6
_PADDING, _BAR = 18, 34
_BLOCKS = "▀▄█"
_STYLED = re.compile(r"\x1b\[([0-9;]*)m")

_SCREEN = """
    .screen { fill: #141a2b; stroke: #2c3653; } .bar { fill: #1e2740; } .dot { fill: #4a5778; }
    text { fill: #dbe3f7; font: %gpx ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace;
      white-space: pre; } .title { fill: #9fabc9; font-size: 12px; } .bold { font-weight: 700; fill: #fff; }
    .faint { fill: #93a0c0; } .typed { fill: #8ff0c0; } .paper { fill: #fff; } .ink { fill: #10141f; }
"""


@dataclass(frozen=True, slots=True)
class Span:
    """Characters of one style in a row. `style`: a class of the SVG, "" for none, "painted" for dark on light."""

    column: int
    text: str
    style: str


class Terminal:
    """A shell in tmux, `columns` wide and `rows` high, with this project's commands.

    Runs while it is entered, on a server of its own, which would outlive this process if nobody ended it.
    """

    def __init__(self, folder: Path, env: dict[str, str], columns: int, rows: int) -> None:
        self._socket = str(folder / f"tmux-{columns}-{time.monotonic_ns()}")
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
        env = {**os.environ, **env, "PATH": path, "HOME": str(folder), "LANG": "C.UTF-8"}
        env.pop("NO_COLOR", None)
        self._tmux_env = env
        shell = "exec env PS1='$ ' bash --norc --noprofile"
        size = ("-x", str(columns), "-y", str(rows))
        self._start = ("-f", "/dev/null", "new-session", "-d", *size, "-c", str(folder), shell)

    @property
    def server(self) -> int:
        """Its process id."""
        return int(self._tmux("display-message", "-p", "#{pid}"))

    def _tmux(self, *words: str, check: bool = True) -> str:
        program = shutil.which("tmux")
        if program is None:
            raise SystemExit("make_pictures: tmux is not installed; apt install tmux")
        return subprocess.run(
            [program, "-S", self._socket, *words], env=self._tmux_env, check=check, capture_output=True, text=True
        ).stdout

    def enter(self, text: str) -> None:
        """Type a line."""
        self._tmux("send-keys", "-l", text)
        self._tmux("send-keys", "Enter")

    def wait_for(self, pattern: str) -> str:
        """Wait until the screen shows `pattern`; give the screen with its styles."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            shown = self._tmux("capture-pane", "-e", "-p", "-N")
            plain = "\n".join(line.rstrip() for line in _STYLED.sub("", shown).split("\n"))
            if re.search(pattern, plain, re.MULTILINE):
                return shown
            if time.monotonic() > deadline:
                raise SystemExit(f"make_pictures: {pattern!r} never came:\n{plain}")
            time.sleep(_LOOK_EVERY)  # a terminal does not tell

    def __enter__(self) -> Terminal:
        try:
            self._tmux(*self._start)
            self.wait_for(r"^\$")
        except BaseException:  # `with` does not leave what was not entered
            self._end()
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        self._tmux("kill-server", check=False)  # it may be gone already, with its shell


@contextmanager
def private_folder() -> Iterator[Path]:
    """For sockets and files of a run."""
    with tempfile.TemporaryDirectory(prefix="pictures-") as folder:
        yield Path(folder)


def rows_of(screen: str) -> list[list[Span]]:
    """Read what tmux shows, styles included; empty rows at the end are left out."""
    rows = []
    style = ""
    for line in screen.rstrip("\n").split("\n"):
        spans, column, at = [], 0, 0
        for found in [*_STYLED.finditer(line), None]:
            text = line[at : found.start() if found else len(line)]
            if text:
                spans.append(Span(column, text, style))
                column += len(text)
            if found:
                style = _style(found[1], style)
                at = found.end()
        rows.append([span for span in spans if span.style or span.text.strip()])
    while rows and not rows[-1]:
        rows.pop()
    return rows


def _style(codes: str, before: str) -> str:
    style = before
    for code in (codes or "0").split(";"):
        match code:
            case "0" | "":
                style = ""
            case "22" if style in ("bold", "faint"):
                style = ""
            case "49" if style == "painted":
                style = ""
            case "1":
                style = "bold"
            case "2":
                style = "faint"
            case "107" | "47":
                style = "painted"
    return style


def terminal_svg(windows: list[tuple[str, list[list[Span]], int]], label: str) -> str:
    """Windows side by side: title, rows, width in columns. `label` describes the picture in words."""
    height = max(len(rows) for _, rows, _ in windows) * _CELL_HEIGHT + 2 * _PADDING + _BAR
    parts, left = [], 0.0
    for title, rows, columns in windows:
        width = columns * _CELL_WIDTH + 2 * _PADDING
        parts.append(_window(left, width, height, title))
        parts.append(f'<g transform="translate({left + _PADDING:g} {_BAR + _PADDING})">{_text(rows)}</g>')
        left += width + 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left - 16:g} {height:g}" role="img" '
        f'aria-label="{escape(label)}">\n<style>{_SCREEN % _FONT_SIZE}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _window(left: float, width: float, height: float, title: str) -> str:
    dots = "".join(f'<circle class="dot" cx="{left + 22 + 18 * n:g}" cy="17" r="5"/>' for n in range(3))
    bar = f"M{left + 1:g} {_BAR}V12a11 11 0 0 1 11 -11h{width - 24:g}a11 11 0 0 1 11 11v{_BAR - 12}z"
    return (
        f'<rect class="screen" x="{left + 0.5:g}" y="0.5" width="{width - 1:g}" height="{height - 1:g}" rx="12"/>'
        f'<path class="bar" d="{bar}"/>{dots}<text class="title" x="{left + width / 2:g}" y="21" text-anchor="middle">'
        f"{escape(title)}</text>"
    )


def _text(rows: list[list[Span]]) -> str:
    parts = []
    ink: list[str] = []
    paper: list[str] = []
    for number, row in enumerate(rows):
        top = number * _CELL_HEIGHT
        for span in row:
            if span.style == "painted" or any(char in _BLOCKS for char in span.text):
                _draw_blocks(span, top, ink, paper)
                continue
            typed = span.column == 0 and span.text.startswith(("$ ", "> "))
            style = f' class="{"typed" if typed else span.style}"' if typed or span.style else ""
            text = span.text.rstrip()
            x, y, length = span.column * _CELL_WIDTH, top + _BASELINE, len(text) * _CELL_WIDTH
            parts.append(f'<text{style} x="{x:g}" y="{y:g}" textLength="{length:g}">{escape(text)}</text>')
    areas = [
        f'<path class="{kind}" shape-rendering="crispEdges" d="{"".join(paths)}"/>'
        for kind, paths in (("paper", paper), ("ink", ink))
        if paths
    ]
    return "".join(areas + parts)


def _draw_blocks(span: Span, top: float, ink: list[str], paper: list[str]) -> None:
    """Half blocks as areas: dark on a light ground if painted, else light by themselves."""
    half = _CELL_HEIGHT / 2
    if span.style == "painted":
        width = len(span.text) * _CELL_WIDTH
        paper.append(f"M{span.column * _CELL_WIDTH:g} {top:g}h{width:g}v{_CELL_HEIGHT:g}h-{width:g}z")
    target = ink if span.style == "painted" else paper
    for half_row, chars in enumerate(("▀█", "▄█")):
        for run in re.finditer(f"[{chars}]+", span.text):
            x, width = (span.column + run.start()) * _CELL_WIDTH, len(run[0]) * _CELL_WIDTH
            target.append(f"M{x:g} {top + half_row * half:g}h{width:g}v{half:g}h-{width:g}z")
