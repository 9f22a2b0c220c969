"""What a server of the rig leaves when it ends in the moment that somebody connects."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import warnings
from collections.abc import Callable, Coroutine

from hybrid.passkeys.consent import NeverApprove
from hybrid.testing.browser.relay import terminate_tls
from hybrid.testing.door import Door, Presence
from hybrid.testing.throwaway_ca import ThrowawayCA
from tests.door.rig import Scripted


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


async def _closed_while_somebody_connects(turns: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with Door(Scripted(), Presence(NeverApprove())).open(listener):
            visiting = asyncio.create_task(asyncio.open_connection(*listener.getsockname()))
            for _ in range(turns):
                await asyncio.sleep(0)
        visiting.cancel()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            _, writer = await visiting
            writer.transport.abort()
        await asyncio.sleep(0)


def forgotten(moment: Callable[[int], Coroutine[None, None, None]]) -> list[str]:
    """What the garbage collector finds of servers that end in each of the first turns of a visit."""
    gc.collect()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ResourceWarning)
        for turns in range(8):
            asyncio.run(moment(turns))
        gc.collect()
    return [str(warning.message) for warning in told]


def test_a_relay_that_goes_down_leaves_no_socket() -> None:
    ca = ThrowawayCA.create()
    assert not forgotten(lambda turns: _down_while_somebody_connects(ca, turns))


def test_a_door_that_closes_leaves_no_socket() -> None:
    assert not forgotten(_closed_while_somebody_connects)
