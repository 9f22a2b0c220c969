from __future__ import annotations

import pytest

from hybrid.adapters.memory import MemoryTunnels
from tests.ceremony.rig import Place


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture(params=["bounded", "unbounded"])
def either_place(request: pytest.FixtureRequest) -> Place:
    """A relay of messages, and one of bytes in odd pieces as L2CAP would be."""
    return Place(tunnels=MemoryTunnels(bounded=request.param == "bounded"))


@pytest.fixture
def stream_place() -> Place:
    return Place(tunnels=MemoryTunnels(bounded=False))
