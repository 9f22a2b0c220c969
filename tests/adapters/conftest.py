from __future__ import annotations

import gc
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybrid.adapters import websocket_tunnel
from hybrid.testing.throwaway_ca import ThrowawayCA
from tests.adapters.relay_doubles import (
    DOMAIN,
)


@pytest.fixture(scope="session")
def ca() -> ThrowawayCA:
    return ThrowawayCA.create()


@pytest.fixture(scope="session")
def ca_file(ca: ThrowawayCA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    path.write_bytes(ca.certificate_pem)
    return path


@pytest.fixture(scope="session")
def tls(ca: ThrowawayCA) -> ssl.SSLContext:
    """A server that proves to be the tunnel service, and the loopback address besides."""
    return ca.server_context(DOMAIN, "127.0.0.1")


@pytest.fixture(autouse=True)
def no_proxy_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "wss", "ws", "socks", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)


@pytest.fixture(autouse=True)
def short_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that answers no close costs a second; tests need not wait so long."""
    monkeypatch.setattr(websocket_tunnel, "_CLOSE_SECONDS", 0.05)


@pytest.fixture
def no_socket_forgotten() -> Iterator[None]:
    """A resource warning of a forgotten socket comes with the garbage collector; make it come in the guilty test."""
    gc.collect()
    yield
    gc.collect()
