"""How often an address may create tunnels: so many a minute, in a table of a fixed size. Pure, `now` is passed in.

Each address has a time at which its allowance is full again (GCRA, the leaky bucket of ATM). When the table is full,
who came longest ago is forgotten: somebody with that many addresses is not stopped by a limit per address, and nobody
is refused for what a stranger did.
"""

from __future__ import annotations

from collections import OrderedDict


class Rates:
    """`per_minute` tunnels for each address, all at once or spread, for `size` addresses."""

    def __init__(self, per_minute: int, size: int) -> None:
        self._interval = 60.0 / per_minute
        self._allowance = 60.0 - self._interval
        self._size = size
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, group: str, now: float) -> float:
        """Count one tunnel of `group`; 0.0 if that is allowed, else how many seconds later it would be."""
        full_at = max(self._full_at.get(group, now), now)
        late = full_at - now - self._allowance
        refused = late > 1e-9  # rounding must not cost anybody a tunnel
        self._full_at[group] = full_at if refused else full_at + self._interval
        self._full_at.move_to_end(group)
        if refused:
            return late
        if len(self._full_at) > self._size:
            self._full_at.popitem(last=False)
        return 0.0
