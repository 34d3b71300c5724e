"""`served`: the agent that a module names as its AGENT, under the policy that it names as its POLICY."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.frameworks import served as frameworks
from tests.system.daemon import Daemon


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Once for all tests of a module: building an environment takes seconds."""
    agent, policy = request.module.AGENT, request.module.POLICY
    with frameworks.serve(tmp_path_factory.mktemp(agent), agent, policies=[policy]) as running:
        yield running
