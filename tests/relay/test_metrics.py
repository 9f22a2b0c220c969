"""Figures, read by Prometheus' own parser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tunnel_server.metrics import Histogram, Meter, Samples, exposition, label, process_samples
from tunnel_server.observing import Outcome

GRAFANA = Path(__file__).parents[2] / "packaging" / "grafana" / "tunnel-server.json"

# What only the serving process and the supervisor know.
OTHERS: Samples = [
    ("info", {"version": '1"\\\n'}, 1),
    ("ready", {}, 1),
    ("workers", {}, 2),
    ("worker_restarts_total", {}, 0),
    ("messages_total", {}, 5),
    ("bytes_total", {}, 2**53),
    ("pending", {}, 1),
    ("joined", {}, 2),
    ("connections", {}, 5),
]


def parsed(samples: Samples) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Samples as Prometheus sees them; none twice."""
    found = {}
    for family in text_string_to_metric_families(exposition(samples)):
        assert family.type != "unknown"
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    return parsed(samples)[f"tunnel_server_{name}", frozenset(labels.items())]


def test_counts_what_it_is_told() -> None:
    meter = Meter()
    meter.handshake_done(0.003)
    meter.handshake_failed()
    meter.upgraded(0.2)
    meter.refused(404)
    meter.refused(404)
    meter.refused(431)
    meter.dropped()
    meter.handed_over()
    meter.tunnel_ended(Outcome.LONELY, 120.0)
    samples = meter.samples()
    assert value(samples, "tunnels_total", outcome="lonely") == 1
    assert value(samples, "tunnels_total", outcome="joined") == 0
    assert value(samples, "refused_total", status="404") == 2
    assert value(samples, "refused_total", status="431") == 1
    assert value(samples, "refused_total", status="503") == 0
    for name in ("dropped_total", "handed_over_total", "handshake_failures_total"):
        assert value(samples, name) == 1
    assert value(samples, "handshake_seconds_bucket", le="0.0025") == 0
    assert value(samples, "handshake_seconds_bucket", le="0.005") == 1
    assert value(samples, "handshake_seconds_sum") == 0.003
    assert value(samples, "upgrade_seconds_count") == 1
    assert value(samples, "tunnel_seconds_bucket", le="120.0") == 1
    assert value(samples, "tunnel_seconds_bucket", le="60.0") == 0


def test_every_outcome_is_there_from_the_start() -> None:
    for outcome in Outcome:
        assert value(Meter().samples(), "tunnels_total", outcome=outcome.value) == 0


def test_buckets() -> None:
    histogram = Histogram((1.0, 2.0))
    for number in (0.5, 1.0, 1.5, 2.5, 99.0):
        histogram.add(number)
    assert histogram.samples("tunnel_seconds") == [
        ("tunnel_seconds_bucket", {"le": "1.0"}, 2),
        ("tunnel_seconds_bucket", {"le": "2.0"}, 3),
        ("tunnel_seconds_bucket", {"le": "+Inf"}, 5),
        ("tunnel_seconds_sum", {}, 104.5),
        ("tunnel_seconds_count", {}, 5),
    ]


def test_two_workers_keep_apart_even_through_json() -> None:
    first, second = Meter(), Meter()
    second.dropped()
    samples = label(first.samples(), worker="0") + label(json.loads(json.dumps(second.samples())), worker="1")
    assert value(samples, "dropped_total", worker="0") == 0
    assert value(samples, "dropped_total", worker="1") == 1


def test_large_numbers_and_odd_labels_survive() -> None:
    assert value(OTHERS, "bytes_total") == 2**53
    assert value(OTHERS, "info", version='1"\\\n') == 1


def test_this_process() -> None:
    samples = process_samples()
    assert value(samples, "memory_bytes") > 1_000_000
    assert value(samples, "cpu_seconds_total") > 0
    assert value(samples, "open_files") >= 3


@pytest.mark.parametrize("name", ["nothing", "ready_bucket", "_sum"])
def test_a_name_without_a_family_is_a_bug(name: str) -> None:
    with pytest.raises(KeyError):
        exposition([(name, {}, 1)])


def test_the_dashboard_shows_metrics_that_exist() -> None:
    there = {name for name, _ in parsed(Meter().samples() + OTHERS + process_samples())}
    dashboard = json.loads(GRAFANA.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    named = {name for text in expressions for name in re.findall(r"\btunnel_server_\w+", text)}
    assert named
    assert named <= there
    helpers = {"tunnel_server_info", "tunnel_server_cpu_seconds_total"}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in there}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}
    assert families - shown <= helpers, "every family is on the dashboard"


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads(GRAFANA.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    outcomes = {outcome.value for outcome in Outcome}
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert {"x", "y", "w", "h"} == set(panel["gridPos"])
        for target in panel["targets"]:
            assert set(re.findall(r'outcome=~?"([a-z|]+)"', target["expr"].replace("|", "|"))) <= outcomes
            assert target["expr"].count("(") == target["expr"].count(")")
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
