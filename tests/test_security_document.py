"""SECURITY.md names a test for each promise, and the tests are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runagentd import uids

ROOT = Path(__file__).resolve().parents[1]


def promises() -> list[tuple[str, list[str]]]:
    text = (ROOT / "SECURITY.md").read_text()
    table = text.partition("## Promises")[2].partition("## What is not promised")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ") and "`tests/" in line]
    return [(promise.strip(), re.findall(r"`(tests/[^`]+)`", tests)) for promise, tests in rows]


def test_the_uids_that_belong_to_instances_are_those_that_are_leased() -> None:
    """Whoever gives other software uids beside them reads the numbers here."""
    [numbers] = re.findall(r"under the uids from ([0-9]+) to ([0-9]+)", (ROOT / "SECURITY.md").read_text())
    assert [int(number) for number in numbers] == [uids.UID_BASE, uids.UID_BASE + uids.UID_COUNT - 1]


def test_there_are_promises() -> None:
    """An empty table would pass every other test here."""
    assert len(promises()) >= 20


@pytest.mark.parametrize(
    ("promise", "tests"), promises(), ids=lambda value: value[:40] if isinstance(value, str) else ""
)
def test_each_promise_names_tests_that_exist(promise: str, tests: list[str]) -> None:
    """A promise without a test is a wish."""
    assert tests
    for test in tests:
        file, _, name = test.partition("::")
        assert (ROOT / file).is_file()
        assert not name or f"def {name}(" in (ROOT / file).read_text()
