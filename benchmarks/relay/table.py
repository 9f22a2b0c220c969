"""What the relay promises about speed and size, and whether a run kept it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import ge, le

from benchmarks.pairs import Spread
from benchmarks.relay.rounds import IDLE, JUNK, LOOPS, OTHER_WAYS, SLOW, Figures


@dataclass(frozen=True, slots=True)
class Row:
    """A figure, or its ratio to another one of the same round. `at_least`: more is better, otherwise less is."""

    name: str
    subject: str
    yardstick: str | None
    must: float
    aim: float
    scale: float = 1e6
    unit: str = "µs"
    times: float = 1  # how often the yardstick counts
    at_least: bool = False

    def verdict(self, median: float) -> str:
        good = ge if self.at_least else le
        return "aim" if good(median, self.aim) else "must" if good(median, self.must) else "MISSED"


ROWS = [
    Row(
        "CPU per plain transaction, to a least `websockets` relay",
        "plain transaction, ours",
        "plain transaction, websockets",
        must=0.40,
        aim=0.25,
    ),
    Row(
        "the same over TLS",
        "TLS transaction, ours",
        "TLS transaction, websockets",
        must=0.60,
        aim=0.50,
    ),
    Row(
        "CPU per plain transaction, to a byte copier",
        "plain transaction, ours",
        "plain transaction, copier",
        must=2.2,
        aim=1.5,
    ),
    Row(
        "CPU per TLS transaction, to two bare TLS handshakes",
        "TLS transaction, ours",
        "TLS handshake, copier",
        must=1.7,
        aim=1.5,
        times=2,
    ),
    *(
        Row(f"memory per idle {kind} tunnel, {loop}, kB", f"memory, {kind}, {loop}", None, must, aim, 1 / 1024, "kB")
        for kind, must, aim in (("plain", 8, 4), ("TLS", 90, 55))
        for loop in LOOPS
    ),
    Row(
        "one-way frame at low load, p50, to a byte copier",
        "frame, ours",
        "frame, copier",
        must=1.5,
        aim=1.2,
    ),
    Row(
        f"the same beside {IDLE} idle tunnels, to alone",
        "frame, beside idle tunnels",
        "frame, alone",
        must=1.2,
        aim=1.05,
    ),
    Row(
        f"good transactions beside {SLOW} slow-loris and {JUNK} junk connections a second, to peace",
        "attack, transactions a second",
        "peace, transactions a second",
        must=0.85,
        aim=0.95,
        scale=1,
        unit="a second",
        at_least=True,
    ),
    Row(
        "CPU per good transaction under this attack, to peace",
        "attack, CPU",
        "peace, CPU",
        must=1.15,
        aim=1.15,
    ),
    # What follows from these two where nobody else wants the core: 1 - 1 / 1.15, and 1 - 0.95.
    Row("share of a core that this attack takes by itself", "attack, share of a core", None, 0.13, 0.05, 1, ""),
]


def markdown(rounds: Sequence[Figures]) -> Iterator[str]:
    """Lines of the table: medians, with least and greatest."""
    yield "| figure | must | aim | measured | kept | ours | yardstick |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in ROWS:
        ours = [figures[row.subject] for figures in rounds]
        sign = "≥" if row.at_least else "≤"
        if row.yardstick is None:
            measured, left, right = Spread.of([value * row.scale for value in ours]), "", ""
        else:
            others = [figures[row.yardstick] * row.times for figures in rounds]
            measured = Spread.of([mine / other for mine, other in zip(ours, others, strict=True)])
            left, right = _show(Spread.of(ours), row), _show(Spread.of(others), row)
        yield (
            f"| {row.name} | {sign} {row.must:g} | {sign} {row.aim:g} "
            f"| {measured.median:.2f} ({measured.low:.2f} to {measured.high:.2f}) "
            f"| {row.verdict(measured.median)} | {left} | {right} |"
        )


def other_ways(rounds: Sequence[Figures]) -> Iterator[str]:
    """Lines of a table: what other libraries cost for a plain transaction."""
    yield "| plain transaction | CPU | to ours |"
    yield "| --- | --- | --- |"
    for name in ("ours", "websockets", *OTHER_WAYS, "copier"):
        cost = [figures[f"plain transaction, {name}"] for figures in rounds]
        ours = [figures["plain transaction, ours"] for figures in rounds]
        ratio = Spread.of([theirs / mine for theirs, mine in zip(cost, ours, strict=True)])
        shown = f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
        yield f"| {name} | {_show(Spread.of(cost), ROWS[0])} | {shown} |"


def _show(spread: Spread, row: Row) -> str:
    median, low, high = (
        f"{figure * row.scale:.{1 if figure * row.scale < 100 else 0}f}"
        for figure in (spread.median, spread.low, spread.high)
    )
    return f"{median} {row.unit} ({low} to {high})"
