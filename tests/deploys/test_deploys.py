"""The short form of `make deploys`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploys.deploys import deploys

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.mark.timeout(180)
def test_under_load_versions_come_and_go_and_no_call_fails_but_those_at_a_kill(tmp_path: Path) -> None:
    """Every answer is of a version that served, what fails is retryable, and the state is right at the end."""
    findings = deploys(tmp_path, deploys=6, rollbacks=6, broken=3, kills=2, seed=20261128)
    assert findings.wrong == []
    assert findings.calls > 200
    assert findings.commands == {"deploy": 7, "rollback": 6, "broken": 3}
    assert findings.kills == 2
