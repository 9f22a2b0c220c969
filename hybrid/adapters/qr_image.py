"""Finds the code in a screenshot or a photograph, with zxing-cpp and Pillow (the extra ``image``)."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import zxingcpp
from PIL import Image

from hybrid.errors import InvalidQR, QRProblem
from hybrid.protocol.qr import SCHEME

_MAX_SIZE = 1 << 28  # bytes
_MAX_PIXELS = 80_000_000  # below the number at which Pillow warns

# What Pillow's decoders raise for files that are none of theirs, cut off, or bombs.
_NOT_A_PICTURE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def read_code(path: Path) -> str:
    """Give the text of the ``FIDO:/`` code in the picture; other codes in it do not matter.

    Raises:
        InvalidQR: `NOT_A_PICTURE`; `NOT_FOUND` if it shows no QR code, `NOT_FIDO` if only others, `SEVERAL` if it
            shows two different FIDO codes.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(_MAX_SIZE + 1)
    try:
        if len(data) > _MAX_SIZE:
            raise ValueError
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
        with image:
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError
            grey = image.convert("L")
    except _NOT_A_PICTURE:
        raise InvalidQR("the file is not a picture that can be read", QRProblem.NOT_A_PICTURE) from None
    return find_code(grey)


def find_code(image: Image.Image) -> str:
    """The same for a picture in memory. Raises `InvalidQR`."""
    texts = {
        found.text
        for found in zxingcpp.read_barcodes(image, formats=zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode))
    }
    if not texts:
        raise InvalidQR("there is no QR code in the picture", QRProblem.NOT_FOUND)
    codes = [text for text in texts if text[: len(SCHEME)].upper() == SCHEME]
    if not codes:
        raise InvalidQR("the QR code in the picture is not a FIDO:/ code", QRProblem.NOT_FIDO)
    if len(codes) > 1:
        raise InvalidQR("there are several FIDO:/ codes in the picture", QRProblem.SEVERAL)
    return codes[0]
