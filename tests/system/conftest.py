"""A daemon without agents, for tests that deploy them. Modules with other daemons have fixtures of these names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.ctl import forget_all, with_token
from tests.system.daemon import Daemon, serve


@pytest.fixture(scope="module")
def running() -> Iterator[Daemon]:
    """A daemon that was given no folder."""
    with serve([]) as served:
        yield with_token(served)


@pytest.fixture
def daemon(running: Daemon) -> Iterator[Daemon]:
    """It, with nothing deployed at the begin and at the end of a test."""
    yield running
    forget_all(running)
