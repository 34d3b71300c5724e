"""One zygote for all tests of the runner; `agent(files, *tags)` starts a runner in a fork of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runner import driver


@pytest.fixture(scope="session")
def zygote() -> Iterator[driver.Zygote]:
    with driver.zygote() as running:
        yield running


@pytest.fixture
def agent(zygote: driver.Zygote, tmp_path: Path) -> Iterator[driver.Launch]:
    launch = driver.Launch(zygote, tmp_path)
    yield launch
    launch.close()
