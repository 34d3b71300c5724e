"""[history]: how long calls are kept, and in how much."""

from __future__ import annotations

from pathlib import Path

import pytest

from runagentd.config import load
from runagentd.errors import ConfigurationError


def bounds(text: str) -> tuple[int, int]:
    settings = load.parse(f"[history]\n{text}".encode(), "runagentd.toml", Path()).settings
    return settings.history_seconds, settings.history_bytes


@pytest.mark.parametrize(
    ("text", "seconds", "size"),
    [
        ("", 604_800, 67_108_864),
        ('keep = "12h"', 43_200, 67_108_864),
        ('size = "1MiB"', 604_800, 1_048_576),
        ('keep = "0"', 0, 67_108_864),
        ('size = "0"\nkeep = "30d"', 2_592_000, 0),
    ],
)
def test_bounds_are_a_time_and_a_size(text: str, seconds: int, size: int) -> None:
    """A week and 64 MiB, if nothing else is said; "0" keeps nothing."""
    assert bounds(text) == (seconds, size)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            'keep = "7"',
            'runagentd.toml: history.keep: must be a time up to ten years such as "7d" or "12h", or "0", not \'7\'',
        ),
        (
            'keep = "9999d"',
            'runagentd.toml: history.keep: must be a time up to ten years such as "7d" or "12h", or "0", not \'9999d\'',
        ),
        (
            'size = "64KiB"',
            'runagentd.toml: history.size: must be a size from 1MiB to 4GiB such as "64MiB", or "0", not \'64KiB\'',
        ),
        (
            'size = "much"',
            'runagentd.toml: history.size: must be a size from 1MiB to 4GiB such as "64MiB", or "0", not \'much\'',
        ),
        ("days = 7", "runagentd.toml: history.days: there is no such key\nhint: known here: keep, size"),
    ],
)
def test_other_bounds_are_problems(text: str, problem: str) -> None:
    """Each with its place."""
    with pytest.raises(ConfigurationError) as raised:
        bounds(text)
    assert [str(each) for each in raised.value.problems] == [problem]
