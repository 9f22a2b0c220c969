"""Figures of a relay, and how Prometheus reads them (text exposition format 0.0.4). Labels hold no id and no address.

Each process counts for itself; with several workers the supervisor asks each one and labels what it gets by worker, so
nothing is shared and a worker that starts anew is a counter that starts anew. That is also why `prometheus-client` is
not used: its way with several processes is a folder of memory maps that outlive the workers.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from tunnel_server.observing import Outcome

TYPE = "text/plain; version=0.0.4; charset=utf-8"

# name without the prefix: type, help
_FAMILIES: Mapping[str, tuple[str, str]] = {
    "info": ("gauge", "Always 1; the version of the relay."),
    "ready": ("gauge", "1 if new tunnels are welcome."),
    "workers": ("gauge", "Processes that serve."),
    "worker_restarts_total": ("counter", "Workers that ended unasked and were started anew."),
    "tunnels_total": ("counter", "Tunnels that ended, by outcome."),
    "refused_total": ("counter", "Requests that were not answered with 101, by status."),
    "dropped_total": ("counter", "Connections that were ended without an answer."),
    "handed_over_total": ("counter", "Joins that were passed on to the worker or node that owns the tunnel."),
    "handshake_failures_total": ("counter", "TLS handshakes that failed or did not end."),
    "handshake_seconds": ("histogram", "From accepting a connection to the end of its TLS handshake."),
    "upgrade_seconds": ("histogram", "From accepting a connection to the answer 101."),
    "tunnel_seconds": ("histogram", "Life of a tunnel."),
    "messages_total": ("counter", "Messages that were passed on."),
    "bytes_total": ("counter", "Bytes of messages that were passed on."),
    "pending": ("gauge", "Tunnels that wait for the other side."),
    "joined": ("gauge", "Tunnels with both sides."),
    "connections": ("gauge", "Open connections in any state."),
    "memory_bytes": ("gauge", "Resident memory."),
    "cpu_seconds_total": ("counter", "Processor time, user and system."),
    "open_files": ("gauge", "Open file descriptors."),
}
_PREFIX = "tunnel_server_"
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0)

Samples = list[tuple[str, dict[str, str], float]]
"""Name without the prefix, labels, value: what one process knows. JSON carries it as lists."""


class Histogram:
    """Counts in buckets with given upper bounds, and one above them."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def samples(self, name: str) -> Samples:
        total, made = 0, []
        for bound, count in zip((*map(repr, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            made.append((f"{name}_bucket", {"le": bound}, float(total)))
        return [*made, (f"{name}_sum", {}, self._sum), (f"{name}_count", {}, float(total))]


class Meter:
    """A `tunnel_server.observing.Observer` that counts."""

    def __init__(self) -> None:
        self._outcomes = dict.fromkeys(Outcome, 0)
        self._refused: Counter[int] = Counter({status: 0 for status in (400, 403, 404, 409, 429, 503)})
        self._dropped = self._handed_over = self._failed_handshakes = 0
        self._handshakes = Histogram(_SHORT)
        self._upgrades = Histogram(_SHORT)
        self._tunnels = Histogram(_LONG)

    def handshake_done(self, seconds: float) -> None:
        self._handshakes.add(seconds)

    def handshake_failed(self) -> None:
        self._failed_handshakes += 1

    def upgraded(self, seconds: float) -> None:
        self._upgrades.add(seconds)

    def refused(self, status: int) -> None:
        self._refused[status] += 1

    def dropped(self) -> None:
        self._dropped += 1

    def handed_over(self) -> None:
        self._handed_over += 1

    def tunnel_ended(self, outcome: Outcome, seconds: float) -> None:
        self._outcomes[outcome] += 1
        self._tunnels.add(seconds)

    def samples(self) -> Samples:
        """Everything counted so far."""
        return [
            *(("tunnels_total", {"outcome": outcome.value}, count) for outcome, count in self._outcomes.items()),
            *(("refused_total", {"status": str(status)}, count) for status, count in sorted(self._refused.items())),
            ("dropped_total", {}, self._dropped),
            ("handed_over_total", {}, self._handed_over),
            ("handshake_failures_total", {}, self._failed_handshakes),
            *self._handshakes.samples("handshake_seconds"),
            *self._upgrades.samples("upgrade_seconds"),
            *self._tunnels.samples("tunnel_seconds"),
        ]


def process_samples() -> Samples:
    """Processor time of this process and, where the system tells, its memory and descriptors."""
    samples: Samples = [("cpu_seconds_total", {}, time.process_time())]
    with contextlib.suppress(OSError):  # another system, or no descriptor left to look with
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        samples.append(("memory_bytes", {}, pages * resource.getpagesize()))
        samples.append(("open_files", {}, len(os.listdir("/proc/self/fd"))))
    return samples


def version_sample() -> tuple[str, dict[str, str], float]:
    """Which version this is."""
    return "info", {"version": version("fido-hybrid")}, 1


def label(samples: Samples, **labels: str) -> Samples:
    """The same samples with more labels."""
    return [(name, {**own, **labels}, value) for name, own, value in samples]


def merge(*parts: Samples) -> Samples:
    """Sums of the samples with the same name and labels."""
    sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for name, labels, value in itertools.chain(*parts):
        key = name, tuple(labels.items())
        sums[key] = sums.get(key, 0) + value
    return [(name, dict(labels), value) for (name, labels), value in sums.items()]


def lasting(samples: Samples) -> Samples:
    """Only what goes on counting after its process is gone: no gauges."""
    return [sample for sample in samples if _FAMILIES[_family(sample[0])][0] != "gauge"]


def exposition(samples: Iterable[tuple[str, Mapping[str, str], float]]) -> str:
    """Text for Prometheus, family by family.

    Raises:
        KeyError: a sample that belongs to no family.
    """
    families: dict[str, list[str]] = {name: [] for name in _FAMILIES}
    for name, labels, value in samples:
        inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
        number = repr(float(value)).removesuffix(".0")
        families[_family(name)].append(
            f"{_PREFIX}{name}{{{inside}}} {number}" if inside else f"{_PREFIX}{name} {number}"
        )
    lines = []
    for name, found in families.items():
        if found:
            kind, text = _FAMILIES[name]
            lines += [f"# HELP {_PREFIX}{name} {text}", f"# TYPE {_PREFIX}{name} {kind}", *found]
    return "\n".join(lines) + "\n"


def _family(name: str) -> str:
    if name not in _FAMILIES:
        for ending in ("_bucket", "_sum", "_count"):
            if name.endswith(ending) and _FAMILIES[name.removesuffix(ending)][0] == "histogram":
                return name.removesuffix(ending)
    _FAMILIES[name]
    return name


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
