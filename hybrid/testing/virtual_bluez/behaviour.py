"""How versions of BlueZ and kinds of controllers differ, as one value.

Measured on Debian 12 (Linux 6.1, BlueZ 5.66) and Debian 13 (Linux 6.12, BlueZ 5.82), each with an emulated dual-mode
controller that has extended advertising and with an LE-only one that has the legacy commands only.
"""

from __future__ import annotations

from dataclasses import dataclass

VERSIONS = ("5.66", "5.82")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One BlueZ on one kind of controller."""

    version: str
    le_only: bool

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise ValueError(f"the virtual BlueZ knows the versions {' and '.join(VERSIONS)}, not {self.version}")

    @property
    def transport_is_a_filter(self) -> bool:
        """Whether ``{Transport: le}`` alone lets adverts of non-discoverable devices through."""
        return self.version == "5.66" or not self.le_only

    @property
    def matches_service_data(self) -> bool:
        """Whether a passive scan's patterns are compared with service data and UUID lists as they are on the air."""
        return self.version == "5.66"

    @property
    def lists_service_data(self) -> bool:
        """Whether the UUIDs of a Device1 have those of its service data among them. The filter does not."""
        return self.version == "5.82"

    @property
    def adverts_survive_power(self) -> bool:
        """Whether an advert that was registered before an adapter went off is on the air when it is back."""
        return self.le_only

    @property
    def broadcasts_while_scanning(self) -> bool:
        """Whether an adapter that scans takes a broadcast: with legacy commands it cannot change its address then."""
        return not self.le_only

    @property
    def hears_extended(self) -> bool:
        """Whether the controller hears adverts of more than 31 bytes."""
        return not self.le_only

    @property
    def sends_extended(self) -> bool:
        """Whether an advert of more than 31 bytes is accepted, and sent so that legacy scanners cannot hear it."""
        return self.version == "5.82" and not self.le_only

    @property
    def advertising_sets(self) -> int:
        """Adverts that one adapter sends at a time: the controller's sets, or the kernel's with legacy commands."""
        return 5 if self.le_only else 3
