"""What becomes of an instance: its states, why it ended, and when the next one starts. A table and two pure functions.

Runs as: the supervisor. Pure.
Reads from strangers: an exit status that an agent gave itself, which is recorded as a claim.
"""

from __future__ import annotations

import enum
import signal

from runagentd import backoff
from runagentd.wire.control import Cause
from runagentd.wire.launch import ExitKind, ExitRecord


class State(enum.StrEnum):
    """Where an instance stands."""

    STARTING = "starting"
    """a spare is being made or assigned; nothing of the agent's runs"""
    IMPORTING = "importing"
    """the gate is open; the runner imports the agent"""
    READY = "ready"
    ENDING = "ending"
    """killed or ended; its cgroup, uid and descriptors are not free yet"""
    GONE = "gone"
    """nothing is left of it"""


class Absence(enum.StrEnum):
    """Why an agent has no instance."""

    BACKOFF = "backoff"
    """the delay after a failure is not over"""
    ASLEEP = "asleep"
    """nobody calls, and its policy has scaling.instances_min = 0"""


class Event(enum.StrEnum):
    GATE_OPENED = "gate-opened"
    BECAME_READY = "became-ready"
    LAUNCH_REFUSED = "launch-refused"
    KILLED = "killed"
    ENDED = "ended"
    CLEANED_UP = "cleaned-up"


TABLE: dict[tuple[State, Event], State] = {
    (State.STARTING, Event.GATE_OPENED): State.IMPORTING,
    (State.STARTING, Event.LAUNCH_REFUSED): State.GONE,
    (State.IMPORTING, Event.BECAME_READY): State.READY,
    (State.IMPORTING, Event.KILLED): State.ENDING,
    (State.IMPORTING, Event.ENDED): State.ENDING,
    (State.READY, Event.KILLED): State.ENDING,
    (State.READY, Event.ENDED): State.ENDING,
    (State.ENDING, Event.KILLED): State.ENDING,
    (State.ENDING, Event.ENDED): State.ENDING,
    (State.ENDING, Event.CLEANED_UP): State.GONE,
}


class LifecycleError(Exception):
    """An event came that has no meaning in this state: a defect of ours."""


def after(state: State, event: Event) -> State:
    """The next state; LifecycleError where the table has no row."""
    following = TABLE.get((state, event))
    if following is None:
        raise LifecycleError(f"{event} in state {state}")
    return following


def cause_of_end(
    *, killed_for: Cause | None, record: ExitRecord | None, out_of_memory: bool, was_ready: bool
) -> tuple[Cause, str]:
    """The one true cause of an instance's end, and a sentence about it for people.

    `killed_for` is why the supervisor itself killed it, if it did; `out_of_memory` whether the kernel's count of
    out-of-memory kills in its cgroup rose.
    """
    if killed_for is not None:
        return killed_for, _WHY_KILLED[killed_for]
    if out_of_memory:
        return Cause.OUT_OF_MEMORY, "the agent used more memory than resources.memory_max"
    if record is None or record.kind is ExitKind.LIFELINE:
        return Cause.SIGNAL, "the instance was killed from outside"
    if record.kind is ExitKind.SIGNALLED:
        name = signal.Signals(record.status).name if record.status in _SIGNALS else f"signal {record.status}"
        if record.status == signal.SIGSYS:
            return Cause.SECCOMP, "the agent made a system call that ends its process (SIGSYS)"
        return Cause.SIGNAL, f"the agent's process was ended by {name}"
    if not was_ready:
        return Cause.IMPORT, f"the agent ended while it was being loaded, with status {record.status}"
    return Cause.EXIT, f"the agent's process ended itself with status {record.status}"


_SIGNALS = frozenset(int(number) for number in signal.Signals)

_WHY_KILLED = {
    Cause.DEADLINE: "a call did not stop within its grace after its deadline or cancel",
    Cause.PROTOCOL: "the agent's process broke the channel's protocol",
    Cause.START_TIMEOUT: "the agent was not loaded within calls.start_timeout",
    Cause.IMPORT: "the agent cannot be loaded",
    Cause.OPERATOR: "an operator ended the instance",
    Cause.SHUTDOWN: "the daemon is stopping",
    Cause.SCALE_DOWN: "fewer instances are enough",
    Cause.REPLACED: "its version does not serve",
    Cause.EVICTED: "its place went to another caller",
    Cause.GATEWAY_LOST: "the gateway that knew whom it had served has ended",
    Cause.OUT_OF_MEMORY: "the agent used more memory than resources.memory_max",
}

STEADY_SECONDS = 10.0
"""An instance that was ready this long has proven itself: its end starts the delays anew."""
_DELAY_MAX_MS = 30_000
_DELAY_BY_CALLS_MAX_MS = 1_000


def can_be_brought_about(cause: Cause, *, was_ready: bool, one_caller: bool) -> bool:
    """Whether it may be a caller who had this end come, and not the agent by itself.

    Nearly every function has a moment in which it does not stop, and whoever calls chooses when it is told to.
    """
    return was_ready and (one_caller or cause is Cause.DEADLINE)


def restart_delay_ms(failures: int, *, by_calls: bool = False) -> int:
    """How long to wait after the `failures`-th end in a row (1, 2, …): 0, 100, 200, 400 ms, … up to 30 s.

    `by_calls`: the end can be brought about by a caller. Who does that is not to keep instances from being started for
    others, so that delay ends at a second.
    """
    if failures <= 1:
        return 0
    return round(backoff.doubled(100, failures - 2, most=_DELAY_BY_CALLS_MAX_MS if by_calls else _DELAY_MAX_MS))
