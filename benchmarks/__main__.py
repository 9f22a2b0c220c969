"""``python -m benchmarks [all|pairs|relay|forwarding] [ROUNDS]``: medians, least and greatest of all or a part.

`pairs`: things of ours beside a yardstick, and how a vault grows. `relay`: the relay beside other ways to make one.
`forwarding`: joins that do not arrive at their owner.
"""

from __future__ import annotations

import argparse
import platform
import sys

from benchmarks import loopback_get, start_to_qr, trial_open, vault_growth
from benchmarks.relay import forwarding, measure


def pairs(rounds: int) -> None:
    for module in (start_to_qr, loopback_get, trial_open):
        for pair in module.run(rounds):
            print(f"\n{pair.name}")
            print(f"  ours       {pair.subject.show(1e3, ' ms')}")
            print(f"  yardstick  {pair.yardstick.show(1e3, ' ms')}")
            print(f"  ratio      {pair.ratio.show()}")
    vault_growth.show(vault_growth.run(rounds))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("what", nargs="?", choices=("all", "pairs", "relay", "forwarding"), default="all")
    parser.add_argument("rounds", nargs="?", type=int, help="default: 9 of pairs, 5 of the relay")
    options = parser.parse_args()
    print(f"python {platform.python_version()} on {platform.system()} {platform.machine()}", flush=True)
    if options.what in ("all", "pairs"):
        pairs(options.rounds or 9)
    code = measure.run(options.rounds or 5) if options.what in ("all", "relay") else 0
    return code or (forwarding.run(options.rounds or 5) if options.what in ("all", "forwarding") else 0)


if __name__ == "__main__":
    sys.exit(main())
