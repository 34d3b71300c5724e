"""[gateway]: in how many processes HTTP is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from runagentd.config import load
from runagentd.errors import ConfigurationError


@pytest.mark.parametrize(("text", "workers"), [("", 1), ("workers = 1", 1), ("workers = 64", 64)])
def test_the_gateway_reads_http_itself_unless_workers_are_asked_for(text: str, workers: int) -> None:
    assert load.parse(f"[gateway]\n{text}".encode(), "runagentd.toml", Path()).settings.workers == workers


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("workers = 0", "runagentd.toml: gateway.workers: must be from 1 to 64, not 0"),
        ("workers = 65", "runagentd.toml: gateway.workers: must be from 1 to 64, not 65"),
        ("workers = true", "runagentd.toml: gateway.workers: must be a whole number"),
        ('workers = "2"', "runagentd.toml: gateway.workers: must be a whole number"),
        ("worker = 2", "runagentd.toml: gateway.worker: there is no such key\nhint: did you mean 'workers'?"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, problem: str) -> None:
    """And nothing starts."""
    with pytest.raises(ConfigurationError) as refused:
        load.parse(f"[gateway]\n{text}".encode(), "runagentd.toml", Path())
    assert str(refused.value) == problem
