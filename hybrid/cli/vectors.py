"""``hybrid vectors``: known-answer files as a table, or as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from hybrid.cli.files import reason
from hybrid.cli.messages import EXIT_BUG, UsageProblem
from hybrid.testing.vectors import BadVectorFile, Count, Report, run_document


def run_files(files: tuple[Path, ...], *, as_json: bool) -> int:
    """Run every file; exit code 0 if all cases passed that may not be skipped."""
    reports = [_run_file(file) for file in files]
    if as_json:
        document = {
            "files": [
                {
                    "file": report.file,
                    "ops": {op: asdict(count) for op, count in report.ops.items()},
                    "failures": [asdict(failure) for failure in report.failures],
                }
                for report in reports
            ]
        }
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        _print_table(reports)
    return 0 if all(report.ok for report in reports) else EXIT_BUG


def _run_file(file: Path) -> Report:
    try:
        return run_document(json.loads(file.read_text(encoding="utf-8")), str(file))
    except OSError as error:
        raise UsageProblem(f"{file} cannot be read: {reason(error)}", "check the path") from None
    except (BadVectorFile, ValueError, RecursionError) as error:
        message = str(error) if isinstance(error, BadVectorFile) else f"{file} is not JSON"
        raise UsageProblem(message, "give files of the schema hybrid-vectors/1") from None


def _print_table(reports: list[Report]) -> None:
    total = Count()
    for report in reports:
        if len(reports) > 1:
            print(report.file)
        for op, count in report.ops.items():
            print(f"{op:26} passed {count.passed:4}  failed {count.failed:4}  skipped {count.skipped:4}")
        for failure in report.failures:
            print(f"FAILED {failure.id}\n  expected {failure.expected}\n  got      {failure.got}")
        if not report.ops:
            print(f"FAILED {report.file} holds no case")
        of_file = report.total()
        total.passed += of_file.passed
        total.failed += of_file.failed
        total.skipped += of_file.skipped
    print(f"passed {total.passed} failed {total.failed} skipped {total.skipped}")
