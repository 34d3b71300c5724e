"""The short form of `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.soak import soak

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.mark.timeout(180)
def test_under_changing_load_and_random_kills_nothing_is_lost_or_left(tmp_path: Path) -> None:
    """Half a minute of it: every refusal retryable and true, every place free at the end, nothing left."""
    findings = soak(tmp_path, 30.0, seed=20261128, workers=2)
    assert findings.wrong == []
    assert findings.outcomes["ok"] > 100
    assert findings.spawns > 50
    assert set(findings.kills) >= {"runner", "reaper"}
