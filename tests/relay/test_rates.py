"""So many tunnels a minute for each address, in a table that does not grow."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_server.rates import Rates


def test_all_at_once_then_one_by_one() -> None:
    rates = Rates(60, 10)
    assert [rates.take("a", 100.0) for _ in range(60)] == [0.0] * 60
    assert rates.take("a", 100.0) == pytest.approx(1.0)
    assert rates.take("a", 100.5) == pytest.approx(0.5)
    assert rates.take("b", 100.5) == 0.0, "everybody has an allowance"
    assert rates.take("a", 101.0) == 0.0
    assert rates.take("a", 101.0) == pytest.approx(1.0)
    assert [rates.take("a", 161.0) for _ in range(60)] == [0.0] * 60, "a minute later it is full again"


def test_one_a_minute() -> None:
    rates = Rates(1, 10)
    assert rates.take("a", 0.0) == 0.0
    assert rates.take("a", 59.0) == pytest.approx(1.0)
    assert rates.take("a", 60.0) == 0.0


def test_who_is_refused_does_not_wait_longer_for_asking() -> None:
    rates = Rates(1, 10)
    rates.take("a", 0.0)
    for _ in range(100):
        assert rates.take("a", 30.0) == pytest.approx(30.0)
    assert rates.take("a", 60.0) == 0.0


def test_the_table_keeps_its_size_and_whoever_comes_often() -> None:
    rates = Rates(2, 100)
    size = 0
    assert [rates.take("neighbour", 1.0) for _ in range(2)] == [0.0, 0.0]
    for number in range(20_000):
        assert rates.take(f"stranger {number}", 1.0) == 0.0, "nobody pays for strangers"
        assert rates.take("neighbour", 1.0) > 0, "who asks often is not forgotten"
        if number == 1000:
            size = sys.getsizeof(rates._full_at)
    assert len(rates) == 100
    assert sys.getsizeof(rates._full_at) <= size


@given(st.integers(1, 100), st.lists(st.floats(0, 20), max_size=300))
def test_never_more_than_the_allowance_and_what_came_back(per_minute: int, pauses: list[float]) -> None:
    rates, now, taken = Rates(per_minute, 3), 0.0, 0
    for pause in pauses:
        now += pause
        taken += rates.take("a", now) == 0.0
    assert taken <= per_minute + now * per_minute / 60 + 1e-3
