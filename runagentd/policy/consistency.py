"""What must hold between the values of a policy, beyond each value's own bounds.

Runs as: the supervisor and runagentctl. Pure.
Reads from strangers: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from runagentd.errors import Problem
from runagentd.policy.keys import BY_NAME, MIB, value_of
from runagentd.policy.model import CallIsolation, Policy
from runagentd.policy.units import size_text

INTERPRETER_BYTES = 64 * MIB
"""What an interpreter with some of the standard library takes of memory_max, when every tmpfs is full."""

RUNNER_TASKS = 8
"""The reaper, the runner's own threads, and some for the agent: what pids_max must hold beside one thread a call."""


def contradictions(policy: Policy, label: str) -> tuple[Problem, ...]:
    """Each contradiction, named after the key that gives in; `label` is the file that the policy was made from."""
    return tuple(_contradictions(policy, label))


def _contradictions(policy: Policy, label: str) -> Iterator[Problem]:
    files, calls, resources, scaling = policy.files, policy.calls, policy.resources, policy.scaling
    needed = files.app_size + files.tmp_size + files.shm_size + INTERPRETER_BYTES
    if needed > resources.memory_max:
        # tmpfs pages are charged to the memory cgroup (cgroup-v2.rst, "Memory Ownership"): an agent that fills its
        # own /tmp would be killed for it and its author would look for a leak.
        yield Problem(
            f"{label}: resources.memory_max",
            f"{_text(policy, 'resources.memory_max')} cannot hold files.app_size, files.tmp_size, files.shm_size and "
            f"{size_text(INTERPRETER_BYTES)} for the interpreter, together {size_text(needed)}",
            (
                "raise it, or lower "
                + " or ".join(_set_as(policy, name) for name in ("files.app_size", "files.tmp_size", "files.shm_size")),
            ),
        )
    if calls.concurrency + RUNNER_TASKS > resources.pids_max:
        yield Problem(
            f"{label}: calls.concurrency",
            f"{calls.concurrency} calls at a time need as many threads and {RUNNER_TASKS} more, beyond "
            f"{_set_as(policy, 'resources.pids_max')}",
            (f"lower it, or raise resources.pids_max to {calls.concurrency + RUNNER_TASKS}",),
        )
    if calls.isolation is CallIsolation.CALL and calls.concurrency > 1:
        yield Problem(
            f"{label}: calls.concurrency",
            f"{calls.concurrency} calls at a time cannot each be alone in an instance, as "
            f"{_set_as(policy, 'calls.isolation')} says",
            ('set it to 1, or calls.isolation = "instance"',),
        )
    if calls.one_caller and files.persistent:
        # Both are the operator's own words, but only one of them can be meant: what is kept is kept for every caller.
        yield Problem(
            f"{label}: files.persistent",
            f"kept folders are shared by all callers, who are to share nothing, as "
            f"{_set_as(policy, 'calls.isolation')} says",
            ('set it to false, or calls.isolation = "instance"',),
        )
    if calls.one_caller and not calls.queue:
        yield Problem(
            f"{label}: calls.queue",
            f"a call whose caller has no instance waits for one, as {_set_as(policy, 'calls.isolation')} says, and "
            "with 0 nothing can wait",
            ("raise it",),
        )
    if calls.log_line_bytes > calls.log_bytes_per_minute:
        yield Problem(
            f"{label}: calls.log_line_bytes",
            f"{_text(policy, 'calls.log_line_bytes')} is more than a minute may hold, "
            f"{_set_as(policy, 'calls.log_bytes_per_minute')}",
            ("lower it, or raise calls.log_bytes_per_minute",),
        )
    if scaling.instances_min > scaling.instances_max:
        yield Problem(
            f"{label}: scaling.instances_min",
            f"{scaling.instances_min} is more than {_set_as(policy, 'scaling.instances_max')}",
            ("lower it, or raise scaling.instances_max",),
        )
    if scaling.target > calls.concurrency:
        yield Problem(
            f"{label}: scaling.target",
            f"no instance has {scaling.target} calls at a time with {_set_as(policy, 'calls.concurrency')}",
            ("lower it, or raise calls.concurrency",),
        )


def _text(policy: Policy, name: str) -> str:
    key = BY_NAME[name]
    return key.kind.text(value_of(policy, key))


def _set_as(policy: Policy, name: str) -> str:
    """A key with its value and who set it: the reader may never have seen the file that did."""
    return f"{name} = {_text(policy, name)} ({dict(policy.origins)[name]})"
