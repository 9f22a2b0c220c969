"""For every test: with CI=true a skip that is not on the committed list fails; HYBRID_SOAK=1 asks more of properties.

Tests with counts of their own read HYBRID_SOAK too, carry the mark `soak`, and tell their figures to `record_property`.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

from hybrid.testing.browser import MissingParts
from hybrid.testing.virtual_bluez import DbusDaemonMissing
from tests.allowed_skips import LIST, is_allowed, read_list

IN_CI = os.environ.get("CI") == "true"
SOAK = os.environ.get("HYBRID_SOAK") == "1"
ALLOWED = read_list(LIST.read_text(encoding="utf-8")) if IN_CI else {}

_SOAK_FACTOR = 50

# No property is judged by the clock, which a shared machine slows down; and none leaves a database behind.
settings.register_profile(
    "project", deadline=None, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("project")


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    expected_failure = hasattr(report, "wasxfail")
    if IN_CI and report.skipped and not expected_failure and not is_allowed(report.nodeid, ALLOWED):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, and not listed in .ci/{LIST.name}: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.excinfo is not None and call.excinfo.errisinstance((DbusDaemonMissing, MissingParts)) and not IN_CI:
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, f"Skipped: {call.excinfo.value}")
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skip(report)
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under HYBRID_SOAK=1 every property is tried many times as often as it asks for."""
    if not SOAK:
        return
    done: list[object] = []
    for item in items:
        test = getattr(item, "obj", None)
        if test is None or not is_hypothesis_test(test):
            continue
        # Hypothesis has no public way to ask more of a property that names its own number of examples.
        function = getattr(test, "__func__", test)
        name = "_hypothesis_internal_use_settings"
        holder, name = (function, name) if hasattr(function, name) else (test.__self__, "settings")  # a state machine
        if holder in done:  # the cases of a parametrised test share one function
            continue
        done.append(holder)
        own = getattr(holder, name)
        more = settings(own, max_examples=own.max_examples * _SOAK_FACTOR, suppress_health_check=list(HealthCheck))
        setattr(holder, name, more)
