"""Waiting for what tells nobody when it happens: files of other programs, pixels, pages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

_T = TypeVar("_T")

INTERVAL = 0.05  # seconds


async def wait_for(look: Callable[[], _T | None], seconds: float, interval: float = INTERVAL) -> _T | None:
    """Look again and again; give the first value that is not None, or None when the time is over."""

    async def looking() -> _T | None:
        return look()

    return await wait_until(looking, seconds, interval)


async def wait_until(look: Callable[[], Awaitable[_T | None]], seconds: float, interval: float = INTERVAL) -> _T | None:
    """The same for a look that takes time itself."""
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    while True:
        value = await look()
        if value is not None or clock() >= until:
            return value
        await asyncio.sleep(interval)  # what is looked at does not tell
