"""The one exception inside the engine: a request that is answered with a status byte alone."""

from __future__ import annotations

from hybrid.protocol.ctap import Status


class Rejected(Exception):
    """This request is answered with `status` and nothing else. Never leaves the engine."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status
