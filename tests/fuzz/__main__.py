"""``python -m tests.fuzz --seconds N [--target NAME]``: runs the targets under atheris, each in a process of its own.

Prints how often each target ran. Exit code 1, with the input in hexadecimal, if one of them raised anything but a
`HybridError`; 2 if atheris is missing.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_RUNS = re.compile(r"Done (\d+) runs|stat::number_of_executed_units: *(\d+)")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=10, help="time for each target")
    parser.add_argument("--target", action="append", help="only this one; may be repeated")
    parser.add_argument("--targets-from", default="tests.fuzz.targets", help=argparse.SUPPRESS)
    parser.add_argument("--child", metavar="CORPUS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("fuzzing needs atheris: pip install atheris", file=sys.stderr)
        return 2
    if options.child is not None:
        _fuzz(options.targets_from, options.target[0], options.seconds, Path(options.child))
    targets = importlib.import_module(options.targets_from)
    names = options.target or sorted(targets.TARGETS)
    if unknown := set(names) - set(targets.TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(sorted(targets.TARGETS))}")
    crashed = [name for name in names if not _run(options.targets_from, name, options.seconds, targets.seeds(name))]
    return 1 if crashed else 0


def _run(module: str, name: str, seconds: int, seeds: list[bytes]) -> bool:
    """Fuzz one target in a child; True if it survived."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, seed in enumerate(seeds):
            (corpus / f"seed-{number:03}").write_bytes(seed)
        command = [sys.executable, "-m", "tests.fuzz", "--child", folder, "--target", name]
        command += ["--seconds", str(seconds), "--targets-from", module]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        output = done.stdout + done.stderr
        runs = next((next(filter(None, found.groups())) for found in _RUNS.finditer(output)), "an unknown number of")
        inputs = sorted(path for path in Path(folder).iterdir() if path.is_file())
        if done.returncode == 0 and not inputs:
            print(f"{name}: {runs} executions")
            return True
        print(f"{name}: failed, exit code {done.returncode}")
        for path in inputs:
            print(f"{name}: input {path.read_bytes().hex()}")
        print(output[-4000:], file=sys.stderr)
        return False


def _fuzz(module: str, name: str, seconds: int, folder: Path) -> None:
    """Never returns: the fuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["hybrid", "tunnel_server"]):
        target = importlib.import_module(module).TARGETS[name]
    arguments = [sys.argv[0], f"-max_total_time={seconds}", f"-artifact_prefix={folder}/", "-max_len=4096"]
    atheris.Setup([*arguments, "-print_final_stats=1", str(folder / "corpus")], target)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
