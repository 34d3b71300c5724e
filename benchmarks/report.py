"""The figures as a table for people, and as JSON for later comparison. Pure.

Runs as: `make bench`.
Reads from strangers: nothing.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.cold_start import ColdStart, Runs, launch_steps
from benchmarks.figures import Ratio, Target, ratio, summary
from benchmarks.machine import Machine
from benchmarks.warm_call import Round, Rounds

FROM_SPARE = Target(bound=1.0, at_most=True)
ON_DEMAND = Target(bound=2.0, at_most=True)
WARM_REQUIRED = Target(bound=1.5, at_most=False)
WARM_WANTED = Target(bound=2.0, at_most=False)
_STEPS_SHOWN = 8


def machine_lines(machine: Machine) -> Iterator[str]:
    kind = "virtual" if machine.virtual else "bare metal"
    yield f"{machine.date}   {machine.cpu}, {machine.processors} processors ({kind}), {machine.memory_bytes >> 20} MiB"
    yield f"{machine.kernel}, {machine.distribution}, {machine.python}"
    yield ", ".join(machine.programs)
    if machine.busy:
        yield f"note: the load average was {machine.load:.2f} before the first run, so others were at work here"


# ---- cold start


def cold_start_lines(runs: Runs) -> Iterator[str]:
    theirs = [float(value) for value in runs.bubblewrap_ns]
    yield f"cold start: nothing → sandbox → import → first answer over HTTP; {len(theirs)} runs each, in turns"
    yield f"  {'':<34}{'p50':>10}{'p95':>10}   × bubblewrap, middle half of pairs"
    yield _duration_row("bubblewrap, /usr/bin/true", theirs)
    for name, starts, target in (
        ("runagentd, from a spare", runs.from_spare, FROM_SPARE),
        ("runagentd, on demand", runs.on_demand, ON_DEMAND),
    ):
        ours = [float(start.answered) for start in starts]
        yield _duration_row(name, ours) + f"   {_ratio_text(ratio(ours, theirs), [target])}"
    yield ""
    for name, starts in (("from a spare", runs.from_spare), ("on demand", runs.on_demand)):
        yield f"  where the time goes, {name} (medians, ms)"
        yield from _stage_lines(starts)


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


def _stage_lines(starts: Sequence[ColdStart]) -> Iterator[str]:
    for name, value in stages(starts).items():
        yield f"    {name:<42}{value / 1e6:8.2f}"
        if name == "launch steps":
            shown = longest_steps(starts)[:_STEPS_SHOWN]
            yield f"      {', '.join(f'{step} {value / 1e6:.2f}' for step, value in shown)}"


# ---- warm call


def warm_call_lines(rounds: Sequence[Rounds], generator: str) -> Iterator[str]:
    yield f"warm call: echo(text: str) -> str; {len(rounds[0].ours)} rounds each, in turns; load by {generator}"
    for row in rounds:
        plural = "" if row.connections == 1 else "s"
        yield (
            f"  {f'{row.connections} connection{plural}':<34}{'calls/s':>10}{'p50':>10}{'p99':>10}"
            "   calls/s × FastAPI, middle half of rounds"
        )
        targets = [WARM_REQUIRED, WARM_WANTED] if row.connections == 16 else []
        yield _rounds_row("FastAPI on uvicorn, in-process", row.fastapi)
        for name, ours, aims in (
            ("runagentd, sandboxed", row.ours, targets),
            ("bare aiohttp handler", row.aiohttp, []),
        ):
            yield _rounds_row(name, ours) + f"   {_ratio_text(ratio(_rates(ours), _rates(row.fastapi)), aims)}"
        cpu = (
            f"{name}: {', '.join(f'{process} {value:.0f}' for process, value in cpu_microseconds(one).items())}"
            for name, one in (("FastAPI", row.fastapi), ("runagentd", row.ours), ("aiohttp", row.aiohttp))
        )
        yield f"      processor time a call, µs: {'; '.join(cpu)}"


def cpu_microseconds(rounds: Sequence[Round]) -> dict[str, float]:
    """The median of each process's processor time for one call."""
    names = rounds[0].cpu_ns_per_call
    return {name: statistics.median(one.cpu_ns_per_call[name] for one in rounds) / 1e3 for name in names}


def _rates(rounds: Sequence[Round]) -> list[float]:
    return [one.load.per_second for one in rounds]


def _rounds_row(name: str, rounds: Sequence[Round]) -> str:
    p50 = statistics.median(one.load.p50_seconds for one in rounds)
    p99 = statistics.median(one.load.p99_seconds for one in rounds)
    return f"    {name:<32}{statistics.median(_rates(rounds)):>10,.0f}{p50 * 1e3:>7.2f} ms{p99 * 1e3:>7.2f} ms"


def _duration_row(name: str, nanoseconds: Sequence[float]) -> str:
    found = summary(nanoseconds)
    return f"    {name:<32}{found.p50 / 1e6:>7.2f} ms{found.p95 / 1e6:>7.2f} ms"


def _ratio_text(found: Ratio, targets: Sequence[Target]) -> str:
    text = f"{found.of_medians:5.2f}  ({found.low:.2f} to {found.high:.2f})"
    for target in targets:
        text += f"   {target} {'met' if target.met(found) else 'missed'}"
    return text


# ---- JSON


def as_json(machine: Machine, runs: Runs | None, rounds: Sequence[Rounds] | None, generator: str) -> dict[str, Any]:
    """Everything that was measured, raw values too."""
    found: dict[str, Any] = {"machine": dataclasses.asdict(machine)}
    if runs is not None:
        theirs = [float(value) for value in runs.bubblewrap_ns]
        found["cold_start"] = {
            "unit": "ns",
            "bubblewrap": list(runs.bubblewrap_ns),
            **{
                name: {
                    "ratio": dataclasses.asdict(ratio([float(start.answered) for start in starts], theirs)),
                    "stages": stages(starts),
                    "steps": dict(longest_steps(starts)),
                    "runs": [[start.imported, start.called, start.answered] for start in starts],
                }
                for name, starts in (("from_spare", runs.from_spare), ("on_demand", runs.on_demand))
            },
        }
    if rounds is not None:
        found["warm_call"] = [
            {
                "connections": row.connections,
                "generator": generator,
                "ratio": dataclasses.asdict(ratio(_rates(row.ours), _rates(row.fastapi))),
                **{
                    name: [dataclasses.asdict(one) for one in found_there]
                    for name, found_there in (
                        ("runagentd", row.ours),
                        ("fastapi", row.fastapi),
                        ("aiohttp", row.aiohttp),
                    )
                },
            }
            for row in rounds
        ]
    return found
