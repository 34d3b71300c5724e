"""A fresh gateway for each test that asks for one; where a module says so, also one for which workers read HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import fakes_gateway

BY_WORKERS_TOO = "BY_WORKERS_TOO"
"""what a module calls a true value that wants both"""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "gateway" in metafunc.fixturenames and getattr(metafunc.module, BY_WORKERS_TOO, False):
        metafunc.parametrize("gateway", [1, 2], ids=["alone", "workers"], indirect=True)


@pytest.fixture
def gateway(request: pytest.FixtureRequest) -> Iterator[fakes_gateway.Gateway]:
    yield from fakes_gateway.running(workers=getattr(request, "param", 1))
