"""A terminal that understands the few sequences our screen uses, and what a camera sees on it."""

from __future__ import annotations

import io
import os
import re

import zxingcpp
from PIL import Image

_SEQUENCE = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])")
_CELL = 4  # pixels of half a character


class FakeTerminal(io.StringIO):
    """Keeps what is written; `rows` is what a person sees, as (character, black on white?) cells."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    @property
    def rows(self) -> list[list[tuple[str, bool]]]:
        rows: list[list[tuple[str, bool]]] = [[]]
        line = column = 0
        painted = False
        columns = int(os.environ["COLUMNS"])
        text, at = self.getvalue(), 0
        while at < len(text):
            if sequence := _SEQUENCE.match(text, at):
                at = sequence.end()
                argument, letter = sequence.groups()
                match letter:
                    case "m":
                        painted = argument == "30;107"
                    case "A":
                        line -= int(argument)
                        if line < 0:
                            raise ValueError("the cursor leaves the screen")
                    case "J":
                        del rows[line + 1 :]
                        del rows[line][column:]
                    case "K":
                        del rows[line][column:]
                continue
            char, at = text[at], at + 1
            if char == "\n":
                line, column = line + 1, 0
                if line == len(rows):
                    rows.append([])
            elif char == "\r":
                column = 0
            else:
                if column == columns:
                    line, column = line + 1, 0
                    if line == len(rows):
                        rows.append([])
                rows[line][column : column + 1] = [(char, painted)]
                column += 1
        return rows

    @property
    def lines(self) -> list[str]:
        return ["".join(char for char, _ in row).rstrip() for row in self.rows]

    def scanned(self, *, dark_background: bool = True) -> str | None:
        """What a camera reads on this screen, white on black or black on white."""
        rows = self.rows
        width = max(len(row) for row in rows) + 8
        image = Image.new("L", (width * _CELL, (len(rows) + 4) * 2 * _CELL), 0 if dark_background else 255)
        for line, row in enumerate(rows):
            for column, (char, painted) in enumerate(row):
                ink, paper = (0, 255) if painted else ((255, 0) if dark_background else (0, 255))
                for half, inked in enumerate((char in "▀█", char in "▄█")):
                    box = ((column + 4) * _CELL, (2 * (line + 2) + half) * _CELL)
                    image.paste(ink if inked else paper, (*box, box[0] + _CELL, box[1] + _CELL))
        formats = zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode)
        found = zxingcpp.read_barcodes(image, formats=formats, try_invert=False)
        return found[0].text if found else None
