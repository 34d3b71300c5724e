"""Which tests may be skipped, and the judge that fails a session for any other skip.

tests/skips.toml is a list of tables: `test`, a glob over pytest's test ids, and `reason`, a sentence.
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass

import pytest


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedSkip:
    """Tests whose id matches `test` may be skipped, or expected to fail, for this reason."""

    test: str
    reason: str

    def covers(self, test_id: str) -> bool:
        # Brackets are part of the ids of parametrised tests, so they are no character class here.
        return fnmatch.fnmatchcase(test_id, self.test.replace("[", "[[]"))


def parse(text: str) -> tuple[AllowedSkip, ...]:
    """The entries of a skips.toml; ValueError, with the entry's number, where one is not complete."""
    document = tomllib.loads(text)
    unknown = document.keys() - {"skip"}
    if unknown:
        raise ValueError(f"tests/skips.toml: unknown tables {sorted(unknown)}")
    entries = []
    for number, entry in enumerate(document.get("skip", []), 1):
        if entry.keys() != {"test", "reason"} or not all(isinstance(v, str) and v.strip() for v in entry.values()):
            raise ValueError(f"tests/skips.toml: entry {number} needs exactly `test` and `reason`, both texts")
        entries.append(AllowedSkip(test=entry["test"], reason=entry["reason"]))
    return tuple(entries)


class SkipJudge:
    """A pytest plugin: notes each skip and xfail, and fails the session where one is not allowed."""

    def __init__(self, allowed: Sequence[AllowedSkip]) -> None:
        self._allowed = allowed
        self._used: set[AllowedSkip] = set()
        self._refused: list[tuple[str, str]] = []
        self._collected: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._collected = [item.nodeid for item in session.items]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._judge(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._judge(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._refused:
            terminalreporter.section("skipped, and not listed in tests/skips.toml", red=True)
            for test_id, reason in self._refused:
                terminalreporter.write_line(f"{test_id}: {reason}")
        stale = [
            entry
            for entry in self._allowed
            if entry not in self._used and any(entry.covers(test_id) for test_id in self._collected)
        ]
        if stale:
            terminalreporter.section("listed in tests/skips.toml, and not skipped here", yellow=True)
            for entry in stale:
                terminalreporter.write_line(f"{entry.test}: {entry.reason}")

    def _judge(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        expected_to_fail = getattr(report, "wasxfail", None)
        if not report.skipped and expected_to_fail is None:
            return
        allowing = [entry for entry in self._allowed if entry.covers(report.nodeid)]
        self._used.update(allowing)
        if not allowing:
            self._refused.append((report.nodeid, self._reason(report, expected_to_fail)))

    @staticmethod
    def _reason(report: pytest.TestReport | pytest.CollectReport, expected_to_fail: str | None) -> str:
        if expected_to_fail is not None:
            return f"expected to fail: {expected_to_fail or 'no reason given'}"
        if isinstance(report.longrepr, tuple):  # (file, line, "Skipped: reason")
            return report.longrepr[2]
        return str(report.longrepr)
