"""Room in the kernel's table of connections, if it keeps one (netfilter's connection tracking).

A machine with a firewall remembers every connection for two minutes after its end, those over loopback too. When the
table is full, packets are dropped without a word: nothing connects, and a connection's end arrives seconds late.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

_FOLDER = Path("/proc/sys/net/netfilter")
_NEEDED = 60_000  # connections; more than any load makes between two looks
_PATIENCE = 180.0  # s; an entry lives for 120 s by default
_PAUSE = 1.0  # s between two looks


def is_full() -> bool:
    """Whether the table might not take the connections of the next load; never if there is none."""
    try:
        most, taken = (int((_FOLDER / f"nf_conntrack_{name}").read_text()) for name in ("max", "count"))
    except FileNotFoundError:
        return False
    return most - taken < min(_NEEDED, most // 2)


def wait_for_room() -> None:
    """Wait until there is room for a load.

    Raises:
        TimeoutError: there is none, because somebody else fills the table.
    """
    deadline = time.monotonic() + _PATIENCE
    while is_full():
        if time.monotonic() > deadline:
            raise TimeoutError("the kernel's table of connections stays full; see nf_conntrack_max")
        time.sleep(_PAUSE)  # entries end by themselves, and nothing tells


async def let_others_end() -> None:
    """`wait_for_room`, for programs that share a loop; without a limit."""
    while is_full():  # noqa: ASYNC110 - entries end by themselves, and nothing tells
        await asyncio.sleep(_PAUSE)  # the same
