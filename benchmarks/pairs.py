"""Pairs run alternately, so that a machine that slows down slows both; medians with their spread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of some figures."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: list[float]) -> Spread:
        return cls(median(figures), min(figures), max(figures))

    def show(self, scale: float = 1, unit: str = "") -> str:
        return f"{self.median * scale:.3g}{unit} ({self.low * scale:.3g} to {self.high * scale:.3g})"


@dataclass(frozen=True, slots=True)
class Pair:
    """What is measured against what, and the ratio of each round."""

    name: str
    subject: Spread
    yardstick: Spread
    ratio: Spread


def measure(name: str, subject: Callable[[], float], yardstick: Callable[[], float], rounds: int) -> Pair:
    """Run both `rounds` times, in turn; each gives seconds."""
    subjects: list[float] = []
    yardsticks: list[float] = []
    for _ in range(rounds):
        yardsticks.append(yardstick())
        subjects.append(subject())
    ratios = [mine / other for mine, other in zip(subjects, yardsticks, strict=True)]
    return Pair(name, Spread.of(subjects), Spread.of(yardsticks), Spread.of(ratios))
