"""A target with a bug, so that the runner can be seen to report one."""

from __future__ import annotations

from collections.abc import Callable


def _fails(data: bytes) -> None:
    if data:
        raise KeyError(data[0])


TARGETS: dict[str, Callable[[bytes], None]] = {"planted": _fails}


def seeds(name: str) -> list[bytes]:
    return [b"seed"]
