"""ruff, mypy --strict and codespell as tests: what a reader need not look for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "--no-cache", "--output-format", "concise", "."),
        ("ruff", "format", "--no-cache", "--check", "."),
        ("mypy",),
        ("codespell_lib",),
    ],
    ids=["ruff-check", "ruff-format", "mypy-strict", "codespell"],
)
def test_the_tree_is_clean(command: tuple[str, ...]) -> None:
    """The configuration is in pyproject.toml, so an editor says the same."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=290, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
