"""Many tunnels, bytes cut and sides killed at random: nothing lost, reordered or crossed, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from .probe_rig import RelayProcess, running, works
from .soak_rig import Soak
from .tls import Certificate

SOAK = os.environ.get("HYBRID_SOAK") == "1"
AT_ONCE = 32
pytestmark = [pytest.mark.soak, pytest.mark.slow]


def memory(relay: RelayProcess) -> int:
    """Resident memory, kB."""
    status = Path(f"/proc/{relay.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def descriptors(relay: RelayProcess) -> int:
    return len(os.listdir(f"/proc/{relay.process.pid}/fd"))


@pytest.mark.parametrize(("kind", "count"), [("plain", 1_000_000 if SOAK else 2000), ("tls", 50_000 if SOAK else 150)])
def test_tunnels_cut_and_killed(
    kind: str, count: int, certificate: Certificate, record_property: Callable[[str, object], None]
) -> None:
    files = ("--cert", str(certificate.cert), "--key", str(certificate.key)) if kind == "tls" else ()
    tls = certificate.client_context() if kind == "tls" else None
    seed = secrets.randbits(64)
    print(f"seed {seed}")
    with running(*files, tls=tls) as relay:
        works(relay)
        files_before, memory_before = descriptors(relay), memory(relay)
        start = time.monotonic()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            soak = Soak(relay.port, tls, random.Random(seed))
            runner.run(soak.run(count, AT_ONCE))
        took = time.monotonic() - start
        while descriptors(relay) > files_before:  # the time-out of the test is the limit
            time.sleep(0.01)  # another process cannot call us
        memory_after = memory(relay)
        works(relay)
    counts, delays = soak.counts, sorted(soak.delays)
    assert counts["transactions"] == count
    assert counts["joined"] > count / 3
    record_property("transactions", f"{count} in {took:.0f} s, {dict(sorted(counts.items()))}")
    record_property("memory", f"{memory_before} kB, then {memory_after} kB")
    told = " ".join(f"{share} {delays[int(share * (len(delays) - 1))] * 1e3:.1f}" for share in (0.5, 0.99, 1.0))
    record_property("the other side knows after", f"{told} ms, of {AT_ONCE} tunnels at once")
    assert memory_after <= 1.1 * memory_before
