"""What becomes of an instance, and why it ended: the table and two pure functions."""

from __future__ import annotations

import signal

import pytest

from runagentd.supervise.lifecycle import Event, LifecycleError, State, after, cause_of_end, restart_delay_ms
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
    assert [restart_delay_ms(n, one_callers=True) for n in (1, 2, 5, 6, 1000)] == [0, 100, 800, 1000, 1000]
