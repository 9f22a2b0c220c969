"""Names as they are kept with a passkey (WebAuthn Level 3 §6.4.1, "String Truncation")."""

from __future__ import annotations

_MAX_NAME_SIZE = 256  # UTF-8 bytes; CTAP wants at least 64 kept


def truncated(name: str) -> str:
    """Cut a name to what is kept of it, between characters."""
    return name.encode()[:_MAX_NAME_SIZE].decode(errors="ignore")


def kept_icon(icon: str | None) -> str | None:
    """The address of a picture whole or not at all: WebAuthn has none any more, clients of CTAP 2.0 ask for it back."""
    return icon if icon and len(icon.encode()) <= _MAX_NAME_SIZE else None
