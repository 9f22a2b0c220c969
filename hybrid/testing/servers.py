"""Ending a server of asyncio without forgetting a connection."""

from __future__ import annotations

import asyncio


async def stop_accepting(server: asyncio.Server) -> None:
    """Accept nothing more, before `server.close()`; what was being accepted meanwhile is a connection afterwards.

    asyncio of 3.11 drops one in that state without closing its socket, of which the garbage collector complains later.
    """
    for listener in server.sockets:
        asyncio.get_running_loop().remove_reader(listener.fileno())
    for _ in range(3):  # it is made, it is announced, its handler begins
        await asyncio.sleep(0)
