"""[telemetry]: whether spans are written down, in how much, and of which calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from runagentd.config import load
from runagentd.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "size", "share"),
    [
        ("", 0, 1.0),
        ('spans = "none"', 0, 1.0),
        ('spans = "file"', 67_108_864, 1.0),
        ('spans = "file"\nsize = "1MiB"\nshare = 0.25', 1_048_576, 0.25),
        ('spans = "file"\nshare = 0', 67_108_864, 0.0),
        ('size = "1MiB"', 0, 1.0),
    ],
)
def test_nothing_is_written_unless_it_is_asked_for(text: str, size: int, share: float) -> None:
    """64 MiB of all calls, if nothing else is said."""
    settings = load.parse(f"[telemetry]\n{text}".encode(), "runagentd.toml", Path()).settings
    assert (settings.telemetry.spans_bytes, settings.telemetry.share) == (size, share)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('spans = "otlp"', 'runagentd.toml: telemetry.spans: must be "file" or "none", not \'otlp\''),
        (
            'size = "8GiB"',
            "runagentd.toml: telemetry.size: must be a size from 1MiB to 4GiB such as \"64MiB\", not '8GiB'",
        ),
        ("share = 1.5", "runagentd.toml: telemetry.share: must be a number from 0 to 1, not 1.5"),
        ("share = true", "runagentd.toml: telemetry.share: must be a number from 0 to 1, not True"),
        ("share = nan", "runagentd.toml: telemetry.share: must be a number from 0 to 1, not nan"),
        ('share = "1"', "runagentd.toml: telemetry.share: must be a number from 0 to 1, not '1'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, problem: str) -> None:
    """And nothing starts."""
    with pytest.raises(ConfigurationError) as refused:
        load.parse(f"[telemetry]\n{text}".encode(), "runagentd.toml", Path())
    assert str(refused.value) == problem
