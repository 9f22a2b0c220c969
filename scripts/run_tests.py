"""``python -m scripts.run_tests check|fast|test|soak``: what the Makefile's commands of these names run after set-up.

Each part runs whatever became of the others. All end with what failed, a line each, and one line,
``N passed, N failed, N skipped``, over everything: the tests of every pytest run, and one for each other part.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

from tests.allowed_skips import LIST, is_allowed, read_list

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / ".test-results"
IN_CI = os.environ.get("CI") == "true"

PYTEST = (sys.executable, "-m", "pytest", "-q", "-rfEs")
CHECKS = {
    "lint": ("ruff", "check", "."),
    "format": ("ruff", "format", "--check", "."),
    "types": ("mypy",),
    "import contracts": ("lint-imports",),
}
VM_PROGRAMS = ("qemu-system-x86_64", "busybox", "cpio", "modprobe", "mke2fs", "flock", "xz", "apt-get")
RELAY_RIGS = {  # they need root, and programs
    "relay under systemd": ("hardware/systemd/try.sh", "mmdebstrap", "cpio", "flock", "qemu-system-x86_64"),
    "relay in a container": ("hardware/container/try.sh", "mmdebstrap", "buildah", "runc"),
}
FUZZ_SECONDS = 3


@dataclass
class Totals:
    """What the closing lines say, and the figures that tests recorded."""

    passed: int = 0
    skipped: int = 0
    examples: int = 0
    figures: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return len(self.failures)

    def add_part(self, name: str, good: bool) -> None:
        """A part that has no tests of its own counts as one."""
        if good:
            self.passed += 1
        else:
            self.failures.append(name)

    def add_junit(self, path: Path, prefix: str = "") -> None:
        """Add the tests of a JUnit file; with CI=true its skips must be listed (pytest here has seen to its own)."""
        allowed = read_list(LIST.read_text(encoding="utf-8"))
        report = ElementTree.parse(path)
        self.examples += sum(map(_examples, report.iter("property")))
        for case in report.iter("testcase"):
            test_id = f"{prefix}{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
            broken = [*case.iter("failure"), *case.iter("error")]
            if broken:
                sentence, *_ = broken[0].get("message", "").split("\n")
                self.failures.append(f"{test_id}: {sentence[:300]}")
            elif case.find("skipped") is None:
                self.passed += 1
            elif prefix and IN_CI and not is_allowed(test_id, allowed):
                self.failures.append(f"{test_id}: skipped in CI, and not listed in .ci/{LIST.name}")
            else:
                self.skipped += 1
            for figure in case.iter("property"):
                self.figures.append(f"{case.get('name')}: {figure.get('name')} {figure.get('value')}")


def _examples(figure: ElementTree.Element) -> int:
    """How often a property was tried, from the statistics that Hypothesis leaves in a JUnit file."""
    if not figure.get("name", "").startswith("hypothesis-statistics-"):
        return 0
    return sum(map(int, re.findall(r"(\d+) passing", base64.b64decode(figure.get("value", "")).decode())))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.run_tests")
    parser.add_argument("what", choices=("check", "fast", "test", "soak"))
    parser.add_argument("--seconds", type=int, default=300, help="soak: time for each fuzz target")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    os.chdir(ROOT)
    os.environ["PATH"] = os.pathsep.join(
        (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin")
    )
    shutil.rmtree(RESULTS, ignore_errors=True)
    totals = Totals()
    match options.what:
        case "check":
            check(totals)
        case "fast":
            pytest(totals, "fast", "-m", "not slow")
        case "test":
            check(totals)
            pytest(totals, "tests")
            radio_vms(totals)
            part(totals, "fuzzing", sys.executable, "-m", "tests.fuzz", "--seconds", str(FUZZ_SECONDS))
        case "soak":
            os.environ["HYBRID_SOAK"] = "1"
            pytest(totals, "soak", "-m", "soak or hypothesis", "--timeout", "0")
            radio_vms(totals)
            relay_rigs(totals)
            part(totals, "fuzzing", sys.executable, "-m", "tests.fuzz", "--seconds", str(options.seconds))
    for figure in totals.figures:
        print(figure)
    if totals.examples:
        print(f"properties: {totals.examples} examples")
    for failure in totals.failures:  # at the end, where a log that was cut still has them
        print(f"failed: {failure}")
    print(f"{totals.passed} passed, {totals.failed} failed, {totals.skipped} skipped", flush=True)
    return 1 if totals.failed else 0


def check(totals: Totals) -> None:
    """Lint, format, types, import contracts."""
    for name, command in CHECKS.items():
        part(totals, name, *command)


def part(totals: Totals, name: str, *command: str) -> None:
    """A command that is right if its exit code is 0."""
    totals.add_part(name, run(name, *command) == 0)


def pytest(totals: Totals, name: str, *arguments: str) -> None:
    """A run of pytest; one that dies before it has results counts as one failure."""
    junit = RESULTS / f"{name}.xml"
    status = run(name, *PYTEST, f"--junitxml={junit}", *arguments)
    before = totals.failed
    if junit.exists():
        totals.add_junit(junit)
    if status and totals.failed == before:
        totals.add_part(name, False)


def radio_vms(totals: Totals) -> None:
    """The radio tests on the real kernel and BlueZ."""
    missing = [program for program in VM_PROGRAMS if shutil.which(program) is None]
    if missing and not IN_CI:
        print(f"radio VMs: skipped, not installed: {' '.join(missing)}", flush=True)
        totals.skipped += 1
        return
    logs = RESULTS / "vm"
    os.environ["PYTHON"] = sys.executable
    status = run("radio VMs", "hardware/vm/test.sh", "--out", str(logs))
    before = totals.failed
    for junit in sorted(logs.glob("*/junit.xml")):
        totals.add_junit(junit, f"vm/{junit.parent.name}/")
    if status and totals.failed == before:
        totals.add_part("radio VMs", False)


def relay_rigs(totals: Totals) -> None:
    """The relay as Debian's systemd and a container's runtime start it."""
    os.environ["PYTHON"] = sys.executable
    for name, (script, *programs) in RELAY_RIGS.items():
        missing = [program for program in programs if shutil.which(program) is None]
        if missing or os.geteuid() != 0:
            reason = f"not installed: {' '.join(missing)}" if missing else "not root"
            print(f"{name}: skipped, {reason}", flush=True)
            totals.skipped += 1
        else:
            part(totals, name, script)


def run(name: str, *command: str) -> int:
    """Run a part with its output on ours, and say how long it took. What it started ends with it."""
    print(f"== {name}", flush=True)
    start = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            status = process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
    print(f"== {name}: {'ok' if status == 0 else f'exit code {status}'}, {time.monotonic() - start:.0f} s", flush=True)
    return status


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)  # on the way out, `run` ends what it started


if __name__ == "__main__":
    sys.exit(main())
