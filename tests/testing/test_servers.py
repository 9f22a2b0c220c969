"""What a server of the rig leaves when it ends in the moment that somebody connects."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings

from hybrid.testing.browser.relay import terminate_tls
from hybrid.testing.throwaway_ca import ThrowawayCA


async def _down_while_somebody_connects(ca: ThrowawayCA, turns: int) -> None:
    async def visit(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.abort()

    async with terminate_tls(0, ca.server_context("cable.ua5v.com"), "127.0.0.1", 1) as port:
        visiting = asyncio.create_task(visit(port))
        for _ in range(turns):
            await asyncio.sleep(0)
    with contextlib.suppress(OSError):
        await visiting
    for _ in range(20):  # the loop of a rig goes on: whoever has left is seen to have left
        await asyncio.sleep(0)


def test_a_relay_that_goes_down_leaves_no_socket() -> None:
    ca = ThrowawayCA.create()
    gc.collect()
    with warnings.catch_warnings(record=True) as forgotten:
        warnings.simplefilter("always", ResourceWarning)
        for turns in range(8):
            asyncio.run(_down_while_somebody_connects(ca, turns))
        gc.collect()
    assert not [str(warning.message) for warning in forgotten]
