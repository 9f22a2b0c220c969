"""`python -m benchmarks [ROUNDS]`: every pair, with medians, least and greatest; then how a vault grows."""

from __future__ import annotations

import platform
import sys

from benchmarks import loopback_get, start_to_qr, trial_open, vault_growth


def main(rounds: int) -> None:
    print(f"python {platform.python_version()} on {platform.system()} {platform.machine()}, {rounds} rounds of pairs")
    for module in (start_to_qr, loopback_get, trial_open):
        for pair in module.run(rounds):
            print(f"\n{pair.name}")
            print(f"  ours       {pair.subject.show(1e3, ' ms')}")
            print(f"  yardstick  {pair.yardstick.show(1e3, ' ms')}")
            print(f"  ratio      {pair.ratio.show()}")
    vault_growth.show(vault_growth.run(rounds))


main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
