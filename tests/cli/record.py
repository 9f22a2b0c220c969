"""Write golden transcripts anew: ``python -m tests.cli.record NAME...``, or ``--missing`` for those that are not there.

Look at what it wrote before you commit it. A test run never does this.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.cli.scenarios import SCENARIOS
from tests.cli.stage import stage
from tests.cli.transcript import GOLDEN, render, try_out


def main(names: list[str]) -> int:
    if names == ["--missing"]:
        names = [name for name in SCENARIOS if not (GOLDEN / f"{name}.txt").exists()]
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown or not names:
        print(f"no such scenario: {' '.join(unknown)}" if unknown else "nothing to record", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, stage(Path(folder)) as made:
        for name in names:
            place = Path(folder) / name
            place.mkdir(mode=0o700)
            text = render(SCENARIOS[name], try_out(made, SCENARIOS[name], place))
            (GOLDEN / f"{name}.txt").write_text(text, encoding="utf-8")
            print(f"{name}\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
