"""What becomes of an instance, and why it ended: the table and pure functions."""

from __future__ import annotations

import signal
import time
from types import SimpleNamespace
from typing import cast

import pytest

from runagentd.supervise.agent import Agent
from runagentd.supervise.instance import Instance, Surroundings
from runagentd.supervise.lifecycle import (
    Event,
    LifecycleError,
    State,
    after,
    can_be_brought_about,
    cause_of_end,
    restart_delay_ms,
)
from runagentd.supervise.version import Version
from runagentd.wire.control import Cause
from runagentd.wire.launch import ExitKind, ExitRecord


def _record(kind: ExitKind, status: int) -> ExitRecord:
    return ExitRecord(kind=kind, status=status, user_microseconds=0, system_microseconds=0, memory_peak=0)


def test_a_life_without_trouble_goes_through_every_state() -> None:
    """importing, ready, ending, gone."""
    state = State.STARTING
    seen = []
    for event in (Event.GATE_OPENED, Event.BECAME_READY, Event.KILLED, Event.ENDED, Event.CLEANED_UP):
        state = after(state, event)
        seen.append(str(state))
    assert seen == ["importing", "ready", "ending", "ending", "gone"]


def test_an_event_without_meaning_is_a_defect_and_not_ignored() -> None:
    """What is gone cannot become ready."""
    with pytest.raises(LifecycleError, match="became-ready in state gone"):
        after(State.GONE, Event.BECAME_READY)


@pytest.mark.parametrize(
    ("killed_for", "record", "out_of_memory", "was_ready", "expected"),
    [
        (Cause.DEADLINE, _record(ExitKind.SIGNALLED, 9), False, True, "deadline"),
        (Cause.OPERATOR, None, True, True, "operator"),
        (None, _record(ExitKind.SIGNALLED, 9), True, True, "oom"),
        (None, None, False, True, "signal"),
        (None, _record(ExitKind.SIGNALLED, signal.SIGSYS), False, True, "seccomp"),
        (None, _record(ExitKind.SIGNALLED, signal.SIGSEGV), False, True, "signal"),
        (None, _record(ExitKind.EXITED, 1), False, False, "import"),
        (None, _record(ExitKind.EXITED, 0), False, True, "exit"),
    ],
)
def test_every_end_has_one_true_cause(
    killed_for: Cause | None, record: ExitRecord | None, out_of_memory: bool, was_ready: bool, expected: str
) -> None:
    """What we did comes first, then what the kernel counted, then how the process ended; a status is a claim."""
    cause, _ = cause_of_end(killed_for=killed_for, record=record, out_of_memory=out_of_memory, was_ready=was_ready)
    assert cause == expected


def test_the_first_restart_is_immediate_and_later_ones_wait_longer_up_to_thirty_seconds() -> None:
    """A crash costs nothing, a crash loop is slowed down."""
    assert [restart_delay_ms(n) for n in (1, 2, 3, 4, 5, 10, 11, 1000)] == [0, 100, 200, 400, 800, 25600, 30000, 30000]


def test_who_ends_their_own_instance_delays_others_by_a_second_at_most() -> None:
    assert [restart_delay_ms(n, by_calls=True) for n in (1, 2, 5, 6, 1000)] == [0, 100, 800, 1000, 1000]


@pytest.mark.parametrize(
    ("cause", "ready", "one_caller", "expected"),
    [
        (Cause.DEADLINE, True, False, True),
        (Cause.DEADLINE, False, False, False),
        (Cause.SIGNAL, True, False, False),
        (Cause.SIGNAL, True, True, True),
        (Cause.IMPORT, False, True, False),
    ],
)
def test_a_call_that_does_not_stop_is_what_any_caller_can_bring_about(
    cause: Cause, ready: bool, one_caller: bool, expected: bool
) -> None:
    """A deadline of a millisecond, or to go away, is all that it takes where a function computes for a while."""
    assert can_be_brought_about(cause, was_ready=ready, one_caller=one_caller) is expected


def test_a_caller_in_a_hurry_keeps_others_waiting_for_a_second_at_most() -> None:
    """An agent whose process crashes as often is slowed down all the same."""

    def delays_after(cause: Cause) -> list[int]:
        scaling, calls = SimpleNamespace(instances_min=0, instances_max=1), SimpleNamespace(one_caller=False)
        version = SimpleNamespace(policy=SimpleNamespace(scaling=scaling, calls=calls))
        agent = Agent(cast(Version, version), cast(Surroundings, None))
        instance = cast(Instance, SimpleNamespace(ready_ns=time.monotonic_ns()))
        return [agent._count(instance, cause) for _ in range(12)]

    assert max(delays_after(Cause.DEADLINE)) <= 1000
    assert max(delays_after(Cause.SIGNAL)) > 29_000
