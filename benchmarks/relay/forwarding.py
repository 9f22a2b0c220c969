"""What it costs when a join does not arrive at its owner: passed on by a worker, or led there by HAProxy in front.

Every process but the generator is pinned to one core, and their CPU counts together.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.pairs import Spread
from benchmarks.relay.generator import CannotBuild, build, on_core
from benchmarks.relay.rounds import TRANSACTIONS, Bench
from benchmarks.relay.servers import CORE, Server, free_port, started, tls_options
from hybrid.testing.throwaway_ca import ThrowawayCA, TLSFiles
from tunnel_server.proxies import Front, Node, haproxy

# Ten tunnels a second with many frames each: on one core the end of the join would slow down the first frames.
LONG_TUNNELS = ("-m", "tx", "-r", "10", "-f", "60", "-s", "256", "-d", "2.5", "-w", "0.3")

_OWNER, _OTHER = "010401", "010802"


def run(rounds: int) -> int:
    """Measure and print; exit code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            bench = Bench(build(folder), ThrowawayCA.create().write(folder))
        except CannotBuild as exc:
            print(f"benchmarks: error: the load generator cannot be built\nbenchmarks: hint: {exc}", file=sys.stderr)
            return 1
        for kind, tls in (("plain", None), ("TLS", bench.tls)):
            figures: dict[str, list[tuple[float, float]]] = {}
            for turn in range(rounds):
                for way, found in _round(bench, folder, tls, turn).items():
                    figures.setdefault(way, []).append(found)
            _show(kind, figures)
    return 0


def _round(bench: Bench, folder: Path, tls: TLSFiles | None, turn: int) -> dict[str, tuple[float, float]]:
    """CPU of a transaction and one-way time of a frame, in seconds, by the way that a join takes."""
    with ExitStack() as stack, tempfile.TemporaryDirectory() as sockets:
        owner = stack.enter_context(_worker(_OWNER, sockets, tls))
        other = stack.enter_context(_worker(_OTHER, sockets, tls))
        passed_on = Server(
            owner.pid, owner.port, (*owner.options, "-C", str(other.port), "-P", f"{owner.pid},{other.pid}")
        )
        ways = {"local": owner, "passed on": passed_on}
        if tls is None and shutil.which("haproxy"):
            ways["behind HAProxy"] = stack.enter_context(_haproxy(folder, owner))
        order = list(ways)
        order = order[turn % len(order) :] + order[: turn % len(order)]
        return {
            way: (
                bench.load(ways[way], *TRANSACTIONS).cpu_per_transaction,
                bench.load(ways[way], *LONG_TUNNELS).frame_p50,
            )
            for way in order
        }


def _worker(routing_id: str, folder: str, tls: TLSFiles | None) -> contextlib.AbstractContextManager[Server]:
    port = free_port()
    files = (str(tls.chain), str(tls.key)) if tls else ()
    arguments = ("-m", "benchmarks.relay.worker", str(port), folder, routing_id, *files)
    return started(arguments, port, tls_options(tls))


@contextmanager
def _haproxy(folder: Path, owner: Server) -> Iterator[Server]:
    port = free_port()
    path = folder / "haproxy.cfg"
    config = haproxy([Node("a", "127.0.0.1", owner.port, 1, None)], Front("127.0.0.1", port, None))
    # the worker of this benchmark knows no proxies
    path.write_text(config.replace(" send-proxy-v2", "") + "global\n    nbthread 1\n")
    with subprocess.Popen(on_core(CORE, ["haproxy", "-db", "-f", str(path)]), stderr=subprocess.DEVNULL) as process:
        try:
            yield Server(process.pid, port, (*owner.options, "-P", f"{owner.pid},{process.pid}"))
        finally:
            process.terminate()


def _show(kind: str, figures: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    for column, what in enumerate(("CPU per transaction", "one-way frame, p50")):
        for way, found in figures.items():
            ratios = [mine[column] / local[column] for mine, local in zip(found, figures["local"], strict=True)]
            own = Spread.of([one[column] for one in found])
            print(f"{kind}, {way}: {what} {own.show(1e6, ' µs')}, to local {Spread.of(ratios).show()}", flush=True)
