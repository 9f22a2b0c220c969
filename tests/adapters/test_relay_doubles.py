"""The doubles themselves: what they leave would be found by the garbage collector, in somebody else's test."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import warnings

import pytest

from hybrid.testing.throwaway_ca import ThrowawayCA
from tests.adapters.relay_doubles import raw_relay

_NAME = "cable.ua5v.com"


async def _left_after(turns: int, ca: ThrowawayCA | None) -> None:
    """A relay whose client goes away so many turns of the loop after it began to connect, and which ends at once."""

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_relay(None if ca is None else ca.server_context(_NAME), never) as relay:
        client = None if ca is None else ssl.create_default_context(cadata=ca.certificate_pem.decode())
        name = None if ca is None else _NAME

        async def visit() -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", relay.port, ssl=client, server_hostname=name)
            writer.transport.abort()

        visiting = asyncio.create_task(visit())
        for _ in range(turns):
            await asyncio.sleep(0)
        visiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await visiting


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_relay_that_ends_leaves_no_socket(ca: ThrowawayCA, tls: bool) -> None:
    gc.collect()
    with warnings.catch_warnings(record=True) as forgotten:
        warnings.simplefilter("always", ResourceWarning)
        for turns in range(12):
            asyncio.run(_left_after(turns, ca if tls else None))
        gc.collect()
    assert not [str(warning.message) for warning in forgotten]
