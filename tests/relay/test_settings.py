"""How many connections there is room for, as the system sees it."""

from __future__ import annotations

import resource

import pytest

from tunnel_server import logs
from tunnel_server.__main__ import parse

from .tls import Certificate


@pytest.mark.parametrize(
    ("options", "allowed", "limit", "connections"),
    [
        ("", (1024, 4096), 1128, 1000),
        ("tls", (1024, 4096), 1128, 1000),
        ("--workers 2", (1024, 4096), 1128, 1000),
        ("--workers 2 tls", (1024, 4096), 2128, 1000),  # a join may need a second one, towards the tunnel's owner
        ("peers", (1024, 4096), 2128, 1000),
        ("", (1024, 1024), 1024, 896),
        ("peers", (1024, 1024), 1024, 448),
        ("peers", (4096, 4096), 4096, 1000),
        ("peers", (1024, resource.RLIM_INFINITY), 2128, 1000),
        ("peers", (resource.RLIM_INFINITY, resource.RLIM_INFINITY), resource.RLIM_INFINITY, 1000),
    ],
)
def test_descriptors(
    options: str,
    allowed: tuple[int, int],
    limit: int,
    connections: int,
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {"cert": certificate.cert, "key": certificate.key}
    tls = " ".join(f"--{name} {path}" for name, path in files.items())
    peers = f"--node 1 --peer 2=localhost:1 --peer-ca {certificate.ca} "
    peers += " ".join(f"--peer-{name} {path}" for name, path in files.items())
    now = [allowed]
    monkeypatch.setattr(resource, "getrlimit", lambda _: now[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: now.append(pair))
    monkeypatch.setattr(logs, "set_up", lambda *_, **__: None)  # it would take pytest's own handlers away
    words = options.replace("tls", tls).replace("peers", peers).split()
    settings = parse([*words, "--max-connections", "1000"]).with_file_limit()
    assert settings.limits.connections == connections
    assert now[-1] == (limit, allowed[1])
