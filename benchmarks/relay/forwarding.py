"""What it costs when a join does not arrive at its owner: passed on by a worker or a node, or led there by HAProxy.

Every process but the generator is pinned to one core, and their CPU counts together. The ways are measured in turn, in
slices of a second, so that two neighbours see the same machine; a round's ratio is the median of its slices' ratios.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.pairs import Spread
from benchmarks.relay.generator import CannotBuild, build, on_core
from benchmarks.relay.rounds import Bench
from benchmarks.relay.servers import CORE, Server, free_port, started, tls_options
from hybrid.testing.throwaway_ca import ThrowawayCA, TLSFiles
from tunnel_server.proxies import Front, Node, haproxy

SLICES = 6  # of each kind and way in a round
_CPU = ("-m", "tx", "-c", "16", "-f", "8", "-s", "256", "-d", "1", "-w", "0.1")
# Ten tunnels a second with many frames each, some 1,200 in a slice: the end of a join on the same core would slow down
# the first frames, and more tunnels each other's.
_FRAMES = ("-m", "tx", "-r", "10", "-f", "120", "-s", "256", "-d", "1", "-w", "0.15")
_MEMORY = ("-m", "idle", "-n", "1000", "-c", "16", "-H", "1")

_OWNER, _OTHER, _ANOTHER_NODE = "010401", "010802", "020403"
_LOCAL = "local"

Figures = dict[str, list[float]]
"""CPU of a transaction or one-way time of a frame, in seconds, a slice, by the way that a join takes."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """`tls`: what clients see, None for plain; `files`: what nodes see."""

    name: str
    tls: TLSFiles | None
    files: TLSFiles


def run(rounds: int) -> int:
    """Measure and print; exit code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            bench = Bench(build(folder), ThrowawayCA.create().write(folder, "localhost", "127.0.0.1"))
        except CannotBuild as exc:
            print(f"benchmarks: error: the load generator cannot be built\nbenchmarks: hint: {exc}", file=sys.stderr)
            return 1
        for kind in (_Kind("plain", None, bench.tls), _Kind("TLS", bench.tls, bench.tls)):
            measured = [_round(bench, folder, kind, turn) for turn in range(rounds)]
            _show(f"{kind.name}, CPU per transaction", [cpu for cpu, _ in measured])
            _show(f"{kind.name}, one-way frame, p50", [frame for _, frame in measured])
        for loop in ("uvloop", "asyncio"):
            _show_memory(bench, _Kind("plain", None, bench.tls), loop)
    return 0


def _round(bench: Bench, folder: Path, kind: _Kind, turn: int) -> tuple[Figures, Figures]:
    cpu: Figures = {}
    frame: Figures = {}
    with _ways(kind, folder=folder) as ways:
        for step in range(SLICES):
            first = (turn + step) % len(ways)
            order = [*ways, *ways][first : first + len(ways)]
            for way in order:
                load = bench.load(ways[way], *_CPU)
                cpu.setdefault(way, []).append(load.cpu_per_transaction)
            for way in order:
                frame.setdefault(way, []).append(bench.load(ways[way], *_FRAMES).frame_p50)
    return cpu, frame


@contextmanager
def _ways(kind: _Kind, loop: str = "uvloop", folder: Path | None = None) -> Iterator[dict[str, Server]]:
    """Relays by the way that a join takes; HAProxy is one of them if there is a `folder` for its configuration."""
    with ExitStack() as stack:
        here, there = (stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(2))
        files = kind.files
        node_tls = ("--node-tls", str(files.chain), str(files.key), str(files.ca), "--loop", loop)
        peers = free_port()
        owner = stack.enter_context(_worker(_OWNER, here, kind, *node_tls, "--peer-port", str(peers)))
        other = stack.enter_context(_worker(_OTHER, here, kind, "--loop", loop))
        node = stack.enter_context(_worker(_ANOTHER_NODE, there, kind, *node_tls, "--peer", f"1={peers}"))
        ways = {_LOCAL: owner, "another worker": _through(owner, other), "another node": _through(owner, node)}
        if kind.tls is None and folder is not None and shutil.which("haproxy"):
            ways["HAProxy in front"] = stack.enter_context(_haproxy(folder, owner))
        yield ways


def _through(owner: Server, accepting: Server) -> Server:
    """Tunnels of `owner` whose joins arrive at another one."""
    pids = f"{owner.pid},{accepting.pid}"
    return Server(owner.pid, owner.port, (*owner.options, "-C", str(accepting.port), "-P", pids))


def _worker(routing_id: str, folder: str, kind: _Kind, *more: str) -> contextlib.AbstractContextManager[Server]:
    port = free_port()
    files = ("--tls", str(kind.tls.chain), str(kind.tls.key)) if kind.tls else ()
    arguments = ("-m", "benchmarks.relay.worker", str(port), folder, routing_id, *files, *more)
    return started(arguments, port, tls_options(kind.tls))


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


def _show(what: str, rounds: list[Figures]) -> None:
    for way in rounds[0]:
        own = Spread.of([median(figures[way]) for figures in rounds])
        ratios = Spread.of([_ratio(figures, way) for figures in rounds])
        print(f"{what}, {way}: {own.show(1e6, ' µs')}, to local {ratios.show()}", flush=True)


def _ratio(figures: Mapping[str, list[float]], way: str) -> float:
    return median(mine / local for mine, local in zip(figures[way], figures[_LOCAL], strict=True))


def _show_memory(bench: Bench, kind: _Kind, loop: str) -> None:
    """Of all processes that hold a part of an idle tunnel; fresh ones for each way, as memory does not come back."""
    for way in (_LOCAL, "another node"):
        with _ways(kind, loop) as ways:
            load = bench.load(ways[way], *_MEMORY)
        if load.fields["echoed"] != load.fields["opened"]:
            raise RuntimeError(f"of {load.fields['opened']} tunnels {load.fields['echoed']} work")
        print(f"memory of a {kind.name} tunnel, {loop}, {way}: {load.memory_per_tunnel / 1024:.1f} kB", flush=True)
