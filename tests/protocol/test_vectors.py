"""Known answers: every case of ``tests/vectors/hybrid-v1.json``, and a runner that cannot be fooled by a wrong file."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from hybrid.testing.vectors import OPERATIONS, SKIPPED_OPS, BadVectorFile, Report, run_document

FILE = Path(__file__).parents[1] / "vectors" / "hybrid-v1.json"
SHA_256 = "b1332e1b63504da12e1b7dc327baa77f29b8c5afde92c734f12d3429af04ac68"
DOCUMENT: dict[str, Any] = json.loads(FILE.read_bytes())
OPS = sorted({case["op"] for case in DOCUMENT["cases"]})
RUN_OPS = [op for op in OPS if op not in SKIPPED_OPS]


def cases_of(op: str) -> list[dict[str, Any]]:
    return [case for case in DOCUMENT["cases"] if case["op"] == op]


def run(*cases: dict[str, Any]) -> Report:
    return run_document({"schema": DOCUMENT["schema"], "cases": list(cases)}, "file")


def test_the_file_is_the_one_that_was_checked() -> None:
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == SHA_256
    assert len(DOCUMENT["cases"]) == DOCUMENT["count"] == 435
    assert {op: len(cases_of(op)) for op in OPS} == DOCUMENT["ops"]


def test_every_operation_is_known_and_used() -> None:
    assert set(RUN_OPS) == set(OPERATIONS)


@pytest.mark.parametrize("op", RUN_OPS)
def test_every_case_passes(op: str) -> None:
    cases = cases_of(op)
    report = run(*cases)
    assert report.failures == []
    assert report.ok
    assert (report.ops[op].passed, report.ops[op].skipped) == (len(cases), 0)


def test_only_the_retired_construction_is_skipped() -> None:
    report = run(*cases_of("transport.seal_legacy"))
    assert report.ok
    assert (report.ops["transport.seal_legacy"].skipped, report.total().passed) == (5, 0)


def altered(value: Any) -> Any:
    """Give the value with its last digit, character or element changed."""
    match value:
        case None:
            return 0
        case bool():
            return not value
        case int():
            return value + 1
        case "":
            return "00"
        case str():
            return value[:-1] + ("1" if value[-1] == "0" else "0")
        case []:
            return [0]
        case [*head, last]:
            return [*head, altered(last)]
        case dict():
            return {name: altered(item) for name, item in value.items()}
    raise AssertionError(value)


@pytest.mark.parametrize("op", [op for op in RUN_OPS if any("out" in case for case in cases_of(op))])
def test_any_tampered_result_fails(op: str) -> None:
    shapes: dict[frozenset[str], dict[str, Any]] = {}
    for case in cases_of(op):
        if "out" in case:
            shapes.setdefault(frozenset(case["out"]), case)
    for case in shapes.values():
        for name in case["out"]:
            tampered = copy.deepcopy(case)
            tampered["out"][name] = altered(case["out"][name])
            report = run(tampered)
            assert [failure.id for failure in report.failures] == [case["id"]], name
            assert not report.ok


@pytest.mark.parametrize("op", [op for op in RUN_OPS if any("error" in case for case in cases_of(op))])
def test_an_invalid_case_that_expects_success_fails(op: str) -> None:
    for case in cases_of(op):
        if "error" in case:
            swapped = {"id": case["id"], "op": op, "in": case["in"], "out": {}}
            assert [failure.id for failure in run(swapped).failures] == [case["id"]]


@pytest.mark.parametrize("op", [op for op in RUN_OPS if any("out" in case for case in cases_of(op))])
def test_a_valid_case_that_expects_a_refusal_fails(op: str) -> None:
    case = next(case for case in cases_of(op) if "out" in case)
    swapped = {"id": case["id"], "op": op, "in": case["in"], "error": "refused"}
    assert [failure.id for failure in run(swapped).failures] == [case["id"]]


def test_an_undocumented_exception_is_no_refusal() -> None:
    (failure,) = run({"id": "x", "op": "derive", "in": {}, "error": "refused"}).failures
    assert failure.got == "undocumented KeyError: 'ikm'"


def test_a_result_that_we_do_not_compute_fails() -> None:
    case = copy.deepcopy(cases_of("derive")[0])
    case["out"]["another"] = "00"
    assert not run(case).ok


@pytest.mark.parametrize(
    "case",
    [
        {"id": "x", "op": "no.such.operation", "in": {}, "out": {}, "optional": True},
        {"id": "x", "op": "transport.seal_legacy", "in": {}, "out": {}},
    ],
)
def test_other_skips_are_not_ok(case: dict[str, Any]) -> None:
    report = run(case)
    assert report.total().skipped == 1
    assert not report.ok


def test_a_file_without_a_case_is_not_ok() -> None:
    assert not run().ok


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"schema": "hybrid-vectors/2", "cases": []},
        {"schema": "hybrid-vectors/1"},
        {"schema": "hybrid-vectors/1", "cases": {}},
        {"schema": "hybrid-vectors/1", "cases": [1]},
        {"schema": "hybrid-vectors/1", "cases": [{}]},
    ],
)
def test_another_schema_is_refused(document: object) -> None:
    with pytest.raises(BadVectorFile):
        run_document(document, "file")
