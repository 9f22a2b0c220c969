"""Pictures with and without codes, and what zxing-cpp reads in them."""

from __future__ import annotations

import io

import png

_SCALE = 4


def qr_png(matrix: list[list[bool]], *, dark: int = 0, light: int = 255) -> bytes:
    """A picture of modules, dark ones True."""
    rows = [
        [dark if module else light for module in row for _ in range(_SCALE)] for row in matrix for _ in range(_SCALE)
    ]
    return _png(rows)


def blank_png() -> bytes:
    return _png([[255] * 64] * 64)


def _png(rows: list[list[int]]) -> bytes:
    file = io.BytesIO()
    png.Writer(width=len(rows[0]), height=len(rows), greyscale=True, bitdepth=8).write(file, rows)
    return file.getvalue()
