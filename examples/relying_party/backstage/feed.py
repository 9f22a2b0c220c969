"""What happened, in order, for everybody who looks: lines that stay, and the state of the moment. Never a secret."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

_KEPT = 200  # lines


class Side(StrEnum):
    """Who acts."""

    WEBSITE = "website"
    LAPTOP = "laptop"
    PHONE = "phone"
    RELAY = "relay"
    PERSON = "person"


class Medium(StrEnum):
    """What something travels by."""

    HTTPS = "https"
    CAMERA = "camera"
    BLUETOOTH = "bluetooth"
    RELAY = "relay"
    NONE = "none"  # it happens inside


class Step(StrEnum):
    """The stages of a ceremony, for the bar above the lines."""

    CODE = "code"
    NEAR = "near"
    MEET = "meet"
    SECURE = "secure"
    ASK = "ask"
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened. `at`: seconds since the ceremony began; `quiet`: of interest to the curious only;
    `trouble`: something went wrong; `begins`: the first line of a ceremony."""

    number: int
    at: float
    source: Side
    target: Side | None
    medium: Medium
    text: str
    step: Step | None = None
    quiet: bool = False
    trouble: bool = False
    begins: bool = False


class Feed:
    """Keeps the last lines and tells all listeners. `state` gives what the panel draws besides them, as JSON values."""

    def __init__(self, state: Callable[[], dict[str, Any]]) -> None:
        self._state = state
        self._lines: deque[Line] = deque(maxlen=_KEPT)
        self._number = 0
        self._began = time.monotonic()
        self._news = asyncio.Event()
        self._closed = False

    @property
    def lines(self) -> tuple[Line, ...]:
        return tuple(self._lines)

    def tell(
        self,
        source: Side,
        text: str,
        *,
        to: Side | None = None,
        by: Medium = Medium.NONE,
        step: Step | None = None,
        quiet: bool = False,
        trouble: bool = False,
        begins: bool = False,
    ) -> None:
        """Add a line."""
        if begins:
            self._began = time.monotonic()
        self._number += 1
        at = round(time.monotonic() - self._began, 2)
        self._lines.append(Line(self._number, at, source, to, by, text, step, quiet, trouble, begins))
        self.changed()

    def changed(self) -> None:
        """The state is another one."""
        self._news.set()
        self._news = asyncio.Event()

    def close(self) -> None:
        """Let all listeners go."""
        self._closed = True
        self.changed()

    async def follow(self, after: int = 0) -> AsyncIterator[str]:
        """Server-sent events from the line after number `after` on, each with the state; ends after `close`."""
        if after > self._number:  # a number of a server that ran here before
            after = 0
        while not self._closed:
            news = self._news
            fresh = [asdict(line) for line in self._lines if line.number > after]
            after = max([after, *(line["number"] for line in fresh)])
            yield f"id: {after}\ndata: {json.dumps({'lines': fresh, 'state': self._state()})}\n\n"
            await news.wait()
