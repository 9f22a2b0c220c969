"""How to start the browser rig."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class BrowserOptions:
    """How to start the browser.

    `size`: of the screen in pixels; `dark`: the browser's own windows; `language`: of its user interface, which tests
    that read the screen rely on; `relay`: ``HOST:PORT`` of a plain relay to use in place of ours, TLS is put in front
    of it; `service_ids`: the relay's numbers that phones may use; `hosts`: where other names lead, e.g.
    ``{"shop.test:443": "127.0.0.1:8443"}``, for a server with `Browser.tls`; `strangers`: adverts of other people a
    second; `flags`: more for Chromium.
    """

    size: tuple[int, int] = (1280, 1000)
    dark: bool = False
    language: str = "en-US"
    relay: str | None = None
    service_ids: tuple[int, ...] = (0, 1)
    hosts: Mapping[str, str] = field(default_factory=dict)
    strangers: float = 0.0
    flags: tuple[str, ...] = ()
