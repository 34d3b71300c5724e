"""A fresh gateway for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import fakes_gateway


@pytest.fixture
def gateway() -> Iterator[fakes_gateway.Gateway]:
    yield from fakes_gateway.running()
