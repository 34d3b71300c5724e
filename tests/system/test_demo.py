"""`make demo` is the first thing that a newcomer sees: it has to work, and to look well."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.system.daemon import ROOT

pytestmark = [pytest.mark.root, pytest.mark.slow]


def test_every_step_of_the_demo_goes_as_expected() -> None:
    """Ten steps, each with its verdict; no line that a terminal would wrap, no colour where there is no terminal."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py"],
        cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    assert sum(line.startswith("   ok, ") for line in lines) == 10
    assert not any("FAILED" in line or "\x1b" in line for line in lines)
    assert max(map(len, lines)) <= 96
    assert any(line.startswith("All of it as expected, in ") for line in lines)
