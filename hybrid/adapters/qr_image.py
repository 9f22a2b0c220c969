"""Finds the code in a screenshot or a photograph, with zxing-cpp and Pillow (the extra ``image``)."""

from __future__ import annotations

from pathlib import Path

import zxingcpp
from PIL import Image, UnidentifiedImageError

from hybrid.errors import InvalidQR, QRProblem
from hybrid.protocol.qr import SCHEME

_MAX_PIXELS = 100_000_000


def read_code(path: Path) -> str:
    """Give the text of the ``FIDO:/`` code in the picture; other codes in it do not matter.

    Raises:
        InvalidQR: `NOT_FOUND` if the file is no picture or shows no QR code, `NOT_FIDO` if only others, and if the
            picture shows two different FIDO codes.
        OSError: the file cannot be read.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise InvalidQR("the picture is too large", QRProblem.NOT_FOUND)
            grey = image.convert("L")
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        if isinstance(error, InvalidQR):
            raise
        raise InvalidQR("the file is not a picture", QRProblem.NOT_FOUND) from None
    texts = {
        found.text
        for found in zxingcpp.read_barcodes(grey, formats=zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode))
    }
    if not texts:
        raise InvalidQR("there is no QR code in the picture", QRProblem.NOT_FOUND)
    codes = [text for text in texts if text[: len(SCHEME)].upper() == SCHEME]
    if not codes:
        raise InvalidQR("the QR code in the picture is not a FIDO:/ code", QRProblem.NOT_FIDO)
    if len(codes) > 1:
        raise InvalidQR("there are several FIDO:/ codes in the picture", QRProblem.NOT_FOUND)
    return codes[0]
