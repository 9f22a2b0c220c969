from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.cli.stage import Stage, stage


@pytest.fixture(scope="package")
def made_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("stage")) as made:
        yield made
        gc.collect()  # a warning of a forgotten socket comes with the garbage collector; let it come here
