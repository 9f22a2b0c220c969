"""What all connections here have in common: whoever they feed may be full, and make them wait."""

from __future__ import annotations

import asyncio


class Pausing(asyncio.Protocol):
    """Reads only when it may. uvloop's transports cannot bear to be told so when they are closed."""

    __slots__ = ("_transport",)

    _transport: asyncio.Transport

    def pause_reading(self) -> None:
        """Make this side wait."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take more bytes from this side."""
        if not self._transport.is_closing():
            self._transport.resume_reading()
