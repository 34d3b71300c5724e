"""The hostile example reports truthfully: what worked is open, what was refused is blocked, what died was killed.

Runs as: the test process.
Reads from strangers: nothing.
Its attempts are not run here: they would work. `tests/system` runs them where they must not.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from tests.examples.load import example


@pytest.fixture
def agent() -> Iterator[ModuleType]:
    with example("hostile", "hostile") as module:
        yield module


def _attempt(agent: ModuleType, run: Callable[[], str]) -> tuple[object, ...]:
    report = agent._try(agent.Way("attempt", "test", "", run))
    return report.outcome, report.errno, report.detail


def test_what_works_is_reported_as_open(agent: ModuleType) -> None:
    """A function that returns has found a way."""
    assert _attempt(agent, lambda: "through the window") == ("open", None, "through the window")


def test_what_the_kernel_refuses_is_blocked_with_its_errno(agent: ModuleType) -> None:
    """The kernel's own word for the refusal is in the report."""

    def refused() -> str:
        return os.readlink("/proc/self/fd/99999")

    assert _attempt(agent, refused) == ("blocked", "ENOENT", "No such file or directory")


def test_finding_nothing_is_blocked(agent: ModuleType) -> None:
    """An attempt that was allowed and found nothing to take is no escape."""

    def nothing() -> str:
        raise agent.NothingThere("an empty room")

    assert _attempt(agent, nothing) == ("blocked", None, "an empty room")


def test_an_attempt_that_is_killed_is_reported_with_its_signal(agent: ModuleType) -> None:
    """A filter that kills ends the child, and the report goes on."""

    def killed() -> str:
        os.kill(os.getpid(), signal.SIGSYS)
        return "survived"

    assert _attempt(agent, killed) == ("killed", None, "SIGSYS")


def test_an_unknown_area_is_an_error_that_names_the_known_ones(agent: ModuleType) -> None:
    """The caller learns what may be asked for."""
    with pytest.raises(ValueError, match="there is no area 'roof'; the areas are files, namespaces, credentials,"):
        agent.try_to_escape("roof")


def test_there_are_about_forty_ways_and_each_has_its_idea(agent: ModuleType) -> None:
    """Each attempt explains in a sentence why it might work; names are unique."""
    assert len(agent.WAYS) >= 40
    assert len({way.name for way in agent.WAYS}) == len(agent.WAYS)
    assert all(way.idea.endswith((".", "first.", ")")) for way in agent.WAYS)
