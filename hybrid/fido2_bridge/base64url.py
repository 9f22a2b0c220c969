"""base64url as WebAuthn's JSON uses it (WebAuthn Level 3, "Dependencies": without padding)."""

from __future__ import annotations

import base64
import binascii
import re

_TEXT = re.compile(r"[A-Za-z0-9_-]*={0,2}", re.ASCII)


def encode(data: bytes) -> str:
    """Text without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Bytes of a text, with padding or without, because servers write both.

    Raises:
        ValueError: other characters, or a length that no bytes have.
    """
    if not _TEXT.fullmatch(text):
        raise ValueError("not base64url")
    bare = text.rstrip("=")
    try:
        return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except binascii.Error:
        raise ValueError("not base64url") from None
