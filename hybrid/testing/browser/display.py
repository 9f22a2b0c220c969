"""A screen that nobody sees: Xvfb with a small window manager, read as a picture and typed at.

The picture comes from the frame buffer that Xvfb keeps in a file (XWD format, X.Org's ``XWDFile.h``): no program has
to run for it.
"""

from __future__ import annotations

import re
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hybrid.testing.browser.keeper import Keeper, ProgramFailed
from hybrid.testing.browser.patience import wait_for

_START_TIMEOUT = 20.0
_KEY_TIMEOUT = 10.0
_HEADER = struct.Struct(">25I")
_COLOR_SIZE = 12  # bytes of one entry of the colour map


@dataclass(frozen=True, slots=True)
class Display:
    """A running X display. `name`: e.g. ":1"."""

    name: str
    _frame_buffer: Path
    _xdotool: str

    def picture(self) -> Image.Image:
        """What is on the screen now."""
        data = self._frame_buffer.read_bytes()
        header = _HEADER.unpack_from(data)
        header_size, width, height, row_size, colors = header[0], header[4], header[5], header[12], header[19]
        start = header_size + colors * _COLOR_SIZE
        pixels = data[start : start + row_size * height]
        return Image.frombuffer("RGB", (width, height), pixels, "raw", "BGRX", row_size, 1)

    def press(self, key: str) -> None:
        """Press a key in the window that has the keyboard. `key`: as X calls it, e.g. "Escape", "Return", "Tab"."""
        subprocess.run(  # noqa: S603 - the program that was found for this
            [self._xdotool, "key", "--clearmodifiers", key],
            env={"DISPLAY": self.name},
            check=True,
            capture_output=True,
            timeout=_KEY_TIMEOUT,
        )


async def open_display(keeper: Keeper, programs: dict[str, str], env: dict[str, str], size: tuple[int, int]) -> Display:
    """Start Xvfb on a free display number, and openbox on it. `size`: width and height in pixels."""
    folder = keeper.folder / "screen"
    folder.mkdir()
    width, height = size
    argv = [programs["xvfb"], "-displayfd", "1", "-screen", "0", f"{width}x{height}x24"]
    server = keeper.start("xvfb", [*argv, "-fbdir", str(folder), "-nolisten", "tcp", "-nocursor"], env)

    def number() -> str | None:
        server.check()
        # Complaints about numbers that are taken come before it.
        line = re.search(r"^\d+$(?=\n)", server.log.read_text(errors="replace"), re.MULTILINE)
        return line[0] if line else None

    found = await wait_for(number, _START_TIMEOUT)
    if found is None:
        raise ProgramFailed(f"Xvfb does not start: {server.last_words()}")
    display = Display(f":{found}", folder / "Xvfb_screen0", programs["xdotool"])
    keeper.start("openbox", [programs["openbox"]], env | {"DISPLAY": display.name})
    return display
