from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from .tls import Certificate, make_certificate

Factory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Factory]:
    """A module of tests names the event loops that it runs on in ``LOOPS``; asyncio's own if it does not."""
    names = getattr(item.getparent(pytest.Module), "obj", None)
    return {name: _FACTORIES[name] for name in getattr(names, "LOOPS", ("asyncio",))}


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


_FACTORIES: dict[str, Factory] = {"asyncio": asyncio.new_event_loop, "uvloop": _uvloop}
