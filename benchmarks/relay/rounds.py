"""One round of every measurement. What is compared runs within seconds of each other, in an order that rotates."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from benchmarks.relay.connection_tracking import wait_for_room
from benchmarks.relay.generator import Load, on_core
from benchmarks.relay.servers import ROOT, Server, relay, yardstick
from hybrid.testing.throwaway_ca import TLSFiles

CORE = 1
SLOW, JUNK = 1000, 200  # slow-loris connections; junk connections a second
IDLE = 4000  # tunnels beside which frames are timed

_SPREAD = ("-S", "16")  # source addresses, so that no port is waited for
_WARM_UP = ("-w", "0.3")
TRANSACTIONS = ("-m", "tx", "-c", "16", "-f", "8", "-s", "256", "-d", "2", *_WARM_UP)
LOW_LOAD = ("-m", "tx", "-r", "40", "-f", "8", "-s", "256", "-d", "2.5", *_WARM_UP)
HANDSHAKES = ("-m", "tls", "-c", "16", "-d", "1.5", *_WARM_UP)
MEMORY = ("-m", "idle", "-n", "2000", "-c", "32", "-H", "1")

LOOPS = ("uvloop", "asyncio")
OTHER_WAYS = {"picows": "picows_relay", "sans-I/O websockets": "sans_io_relay"}  # with a bare minimum of checks

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Bench:
    """What every round needs."""

    program: Path  # the generator
    tls: TLSFiles

    def load(self, server: Server, *arguments: str) -> Load:
        """Run the generator against `server`."""
        wait_for_room()
        command = [str(self.program), "-h", "127.0.0.1", "-p", str(server.port), "-P", str(server.pid)]
        done = subprocess.run(
            on_core(CORE, [*command, *_SPREAD, *server.options, *arguments]),
            capture_output=True,
            text=True,
            check=True,
            timeout=180,
        )
        load = Load(json.loads(done.stdout))
        if load.fields.get("failed"):
            raise RuntimeError(f"{load.failed} transactions failed: {load.fields['errors']} {done.stderr}")
        if load.fields.get("ok") == 0:
            raise RuntimeError("not one transaction came to its end")
        return load


def round_of(bench: Bench, turn: int) -> Figures:
    """Every figure once, by name, in SI units."""
    figures: Figures = {}
    for part in (_transactions, _latency, _beside_idle_tunnels, _under_attack, _memory):
        print(f"  round {turn + 1}: {part.__name__.strip('_').replace('_', ' ')}", file=sys.stderr, flush=True)
        figures |= part(bench, turn)
    return figures


def _rotated(names: Mapping[str, AbstractContextManager[Server]], turn: int) -> list[str]:
    order = list(names)
    return order[turn % len(order) :] + order[: turn % len(order)]


def _transactions(bench: Bench, turn: int) -> Figures:
    figures: Figures = {}
    for kind, tls in (("plain", None), ("TLS", bench.tls)):
        contenders = {
            "ours": relay(tls),
            "websockets": yardstick("websockets_relay", tls),
            "copier": yardstick("byte_copier", tls, "-L"),
        }
        if tls is None:
            contenders |= {name: yardstick(module, None) for name, module in OTHER_WAYS.items()}
        with ExitStack() as stack:
            servers = {name: stack.enter_context(server) for name, server in contenders.items()}
            for name in _rotated(contenders, turn):
                load = bench.load(servers[name], *TRANSACTIONS)
                figures[f"{kind} transaction, {name}"] = load.cpu_per_transaction
            if tls:
                for name in ("copier", "ours"):
                    load = bench.load(servers[name], *HANDSHAKES)
                    figures[f"TLS handshake, {name}"] = load.cpu_per_handshake
    return figures


def _latency(bench: Bench, turn: int) -> Figures:
    contenders = {"ours": relay(None), "copier": yardstick("byte_copier", None, "-L")}
    figures: Figures = {}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(server) for name, server in contenders.items()}
        for name in _rotated(contenders, turn):
            figures[f"frame, {name}"] = bench.load(servers[name], *LOW_LOAD).frame_p50
    return figures


def _beside_idle_tunnels(bench: Bench, turn: int) -> Figures:
    """The frame's time alone and beside idle tunnels; in odd rounds the other way round."""
    figures: Figures = {}

    def alone() -> None:
        with relay(None) as server:
            figures["frame, alone"] = bench.load(server, *LOW_LOAD).frame_p50

    def beside() -> None:
        with relay(None) as server, _idle_tunnels(bench, server):
            figures["frame, beside idle tunnels"] = bench.load(server, *LOW_LOAD).frame_p50

    for step in (alone, beside) if turn % 2 == 0 else (beside, alone):
        step()
    return figures


def _under_attack(bench: Bench, turn: int) -> Figures:
    """One relay in peace, attacked, attacked, in peace, so that a drift of the machine counts on both sides."""
    loads: dict[str, list[Load]] = {"peace": [], "attack": []}
    with relay(None) as server:
        loads["peace"].append(bench.load(server, *TRANSACTIONS))
        with _attack(server):
            alone = _busy(server, seconds=3)
            loads["attack"] += [bench.load(server, *TRANSACTIONS) for _ in range(2)]
        loads["peace"].append(bench.load(server, *TRANSACTIONS))
    figures = {"attack, share of a core": alone}
    for name, pair in loads.items():
        figures[f"{name}, transactions a second"] = mean(load.transactions_per_second for load in pair)
        figures[f"{name}, CPU"] = mean(load.cpu_per_transaction for load in pair)
    return figures


def _memory(bench: Bench, turn: int) -> Figures:
    figures: Figures = {}
    for loop in LOOPS:
        for kind, tls in (("plain", None), ("TLS", bench.tls)):
            with relay(tls, uvloop=loop == "uvloop") as server:
                load = bench.load(server, *MEMORY)
                if load.fields["echoed"] != load.fields["opened"]:
                    raise RuntimeError(f"of {load.fields['opened']} tunnels {load.fields['echoed']} work")
                figures[f"memory, {kind}, {loop}"] = load.memory_per_tunnel
    return figures


def _busy(server: Server, seconds: float) -> float:
    """Share of a core that the server takes for a while; it hardly depends on who else is on the machine."""

    def used() -> float:
        threads = Path(f"/proc/{server.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    before, start = used(), time.monotonic()
    time.sleep(seconds)  # the share is of this while
    return (used() - before) / (time.monotonic() - start)


@contextmanager
def _idle_tunnels(bench: Bench, server: Server) -> Iterator[None]:
    command = [str(bench.program), "-h", "127.0.0.1", "-p", str(server.port), *_SPREAD, *server.options]
    with _running(on_core(CORE, [*command, "-m", "idle", "-n", str(IDLE), "-c", "32", "-H", "60"])) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        if said != f"holding {IDLE}\n":
            raise RuntimeError(f"no {IDLE} idle tunnels: {said}{process.stderr.read()}")
        yield


@contextmanager
def _attack(server: Server) -> Iterator[None]:
    arguments = [sys.executable, "-m", "benchmarks.relay.attack", str(server.port), str(SLOW), str(JUNK)]
    with _running(on_core(CORE, arguments)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.send_signal(signal.SIGTERM)
        done = json.loads(process.stdout.read())
        if done["slow"] < SLOW or done["junk"] < JUNK * done["seconds"] * 0.9 - JUNK:
            raise RuntimeError(f"the attack was weaker than it should be: {done}")


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
