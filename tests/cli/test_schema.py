"""`runagentctl schema`: what is published is what the command prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


@pytest.mark.parametrize(
    ("of", "file"),
    [("policy", "policy"), ("config", "runagentd"), ("agent", "agent"), ("agent-file", "agent-file")],
)
def test_the_command_prints_the_published_schema(of: str, file: str) -> None:
    """Exit status 0, without any state directory."""
    command = [sys.executable, "-m", "runagentd.cli.runagentctl", "schema", of]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == (SCHEMAS / f"{file}.schema.json").read_text()
