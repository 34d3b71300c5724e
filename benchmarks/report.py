"""What is said for people beside the table: the machine, and where the time of a cold start goes. Pure.

Runs as: `make bench`.
Reads from strangers: nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from benchmarks.cold_start import ColdStart, Runs, launch_steps
from benchmarks.machine import Machine

_STEPS_SHOWN = 8


def machine_lines(machine: Machine) -> Iterator[str]:
    kind = "virtual" if machine.virtual else "bare metal"
    yield f"{machine.date}   {machine.cpu}, {machine.processors} processors ({kind}), {machine.memory_bytes >> 20} MiB"
    yield f"{machine.kernel}, {machine.distribution}, {machine.python}"
    yield ", ".join(machine.programs)
    if machine.busy:
        yield f"note: the load average was {machine.load:.2f} before the first run, so others were at work here"


def stage_lines(runs: Runs) -> Iterator[str]:
    """Consecutive parts of each kind of cold start, medians."""
    for name, starts in runs.kinds:
        yield f"  where the time goes, {name} (medians, ms)"
        for stage, value in stages(starts).items():
            yield f"    {stage:<42}{value / 1e6:8.2f}"
            if stage == "launch steps":
                shown = longest_steps(starts)[:_STEPS_SHOWN]
                yield f"      {', '.join(f'{step} {value / 1e6:.2f}' for step, value in shown)}"


def stages(starts: Sequence[ColdStart]) -> dict[str, float]:
    """Medians in nanoseconds: consecutive parts of a cold start, whose sum is about its median."""
    steps = [sum(launch_steps(start).values()) for start in starts]
    return {
        "launch steps": statistics.median(steps),
        "supervisor, hand-over, import": statistics.median(
            start.imported - all_steps for start, all_steps in zip(starts, steps)
        ),
        "ready, offered to the gateway, call sent": statistics.median(
            start.called - start.imported for start in starts
        ),
        "answer to the client": statistics.median(start.answered - start.called for start in starts),
    }


def longest_steps(starts: Sequence[ColdStart]) -> list[tuple[str, float]]:
    """Launch steps by the median of what they take in one start, in nanoseconds; the longest first."""
    per_start = [launch_steps(start) for start in starts]
    names = sorted({name for steps in per_start for name in steps})
    medians = [(name, float(statistics.median(steps.get(name, 0) for steps in per_start))) for name in names]
    return sorted(medians, key=lambda item: (-item[1], item[0]))
