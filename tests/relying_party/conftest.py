from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.relying_party.visitor import Phone, Site, Visitor, site


@pytest.fixture(name="site")
def make_site() -> Iterator[Site]:
    made = site()
    yield made
    made.website.close()


@pytest.fixture
async def ann(site: Site) -> AsyncIterator[Visitor]:
    """A browser."""
    async with site.browser() as visitor:
        yield visitor


@pytest.fixture
async def bob(site: Site) -> AsyncIterator[Visitor]:
    """Another one."""
    async with site.browser() as visitor:
        yield visitor


@pytest.fixture
def phone() -> Iterator[Phone]:
    made = Phone()
    with made.device:
        yield made


@pytest.fixture
def other_phone() -> Iterator[Phone]:
    made = Phone()
    with made.device:
        yield made


@pytest.fixture
def synced_phone() -> Iterator[Phone]:
    made = Phone(synced=True)
    with made.device:
        yield made
