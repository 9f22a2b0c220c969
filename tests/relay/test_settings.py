"""How many connections there is room for, as the system sees it."""

from __future__ import annotations

import resource

import pytest

from tunnel_server import logs
from tunnel_server.__main__ import parse


@pytest.mark.parametrize(
    ("workers", "allowed", "limit", "connections"),
    [
        (1, (1024, 4096), 1128, 1000),
        (2, (1024, 4096), 2128, 1000),  # each one may need a second descriptor, towards the tunnel's owner
        (1, (1024, 1024), 1024, 896),
        (2, (1024, 1024), 1024, 448),
        (2, (4096, 4096), 4096, 1000),
        (2, (1024, resource.RLIM_INFINITY), 2128, 1000),
        (2, (resource.RLIM_INFINITY, resource.RLIM_INFINITY), resource.RLIM_INFINITY, 1000),
    ],
)
def test_descriptors(
    workers: int, allowed: tuple[int, int], limit: int, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [allowed]
    monkeypatch.setattr(resource, "getrlimit", lambda _: now[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: now.append(pair))
    monkeypatch.setattr(logs, "set_up", lambda *_, **__: None)  # it would take pytest's own handlers away
    settings = parse(["--workers", str(workers), "--max-connections", "1000"]).with_file_limit()
    assert settings.limits.connections == connections
    assert now[-1] == (limit, allowed[1])
