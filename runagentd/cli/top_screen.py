"""What `runagentctl top` shows, from two looks at the counters: rates between them, and what there is now.

Runs as: root. Pure.
Reads from strangers: counts of a gateway that may be captured, and names of agents; names are escaped, and a counter
that goes down counts as one that began anew.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runagentd.cli import table
from runagentd.cli.quantities import NONE, count, duration, quantile, size
from runagentd.log import escape
from runagentd.wire.figures import AgentFigures
from runagentd.wire.traffic import AgentTraffic

COLUMNS = ("AGENT", "CALLS/S", "FAIL/S", "P50", "P99", "OPEN", "WAIT", "INSTANCES", "CPU", "MEMORY", "TASKS")
_NAME = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """All agents at one moment. Times are on CLOCK_MONOTONIC."""

    figures: Mapping[str, AgentFigures]
    names: Mapping[str, str]
    figures_ns: int
    spares: int
    pressed: bool
    traffic: Mapping[str, AgentTraffic]
    """empty where no gateway answers"""
    traffic_ns: int
    """0 where no gateway answers"""
    since_ns: int
    bounds_microseconds: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One agent. Rates are per second; None where they are not known."""

    agent: str
    name: str
    calls: float | None
    failed: float | None
    p50: float | None
    p99: float | None
    """in seconds"""
    open: int | None
    waiting: int | None
    ready: int
    coming: int
    """instances that are not ready yet"""
    instances_max: int
    cpu: float | None
    """in cores"""
    memory: int
    tasks: int


def rows(before: Look | None, now: Look) -> list[Row]:
    """One for each agent, those with most calls first."""
    found = [_row(agent, before, now) for agent in now.figures]
    return sorted(found, key=lambda row: (-(row.calls or 0.0), -(row.open or 0), row.name, row.agent))


def _row(agent: str, before: Look | None, now: Look) -> Row:
    figures = now.figures[agent]
    states = {each.name: each.count for each in figures.states}
    ready = states.get("ready", 0) + states.get("frozen", 0)
    calls = now.traffic.get(agent)
    rates = _rates(agent, before, now)
    return Row(
        agent=agent,
        name=now.names.get(agent, "") or agent,
        calls=rates.calls,
        failed=rates.failed,
        p50=quantile(0.5, rates.buckets, now.bounds_microseconds, most=rates.took),
        p99=quantile(0.99, rates.buckets, now.bounds_microseconds, most=rates.took),
        open=calls.open if calls is not None else None,
        waiting=calls.waiting if calls is not None else None,
        ready=ready,
        coming=states.get("starting", 0) + states.get("importing", 0),
        instances_max=figures.instances_max,
        cpu=_cpu(agent, before, now),
        memory=figures.memory,
        tasks=figures.tasks,
    )


@dataclass(frozen=True, slots=True)
class _Rates:
    calls: float | None
    failed: float | None
    buckets: tuple[int, ...] = ()
    took: float = math.inf
    """seconds of all calls together: none of them can have taken longer"""


def _rates(agent: str, before: Look | None, now: Look) -> _Rates:
    current = now.traffic.get(agent)
    if before is None or current is None or before.since_ns != now.since_ns:
        return _Rates(None, None)
    seconds = (now.traffic_ns - before.traffic_ns) / 1e9
    if seconds <= 0:
        return _Rates(None, None)
    earlier = before.traffic.get(agent)
    if earlier is None:
        earlier = dataclasses.replace(
            current,
            calls=0,
            failed=0,
            times=dataclasses.replace(current.times, buckets=(0,) * len(current.times.buckets), microseconds=0),
        )
    buckets = tuple(
        max(0, after - first) for after, first in zip(current.times.buckets, earlier.times.buckets, strict=False)
    )
    failed = max(0, current.failed - earlier.failed)
    took = (current.times.microseconds - earlier.times.microseconds) / 1e6
    return _Rates(max(0, current.calls - earlier.calls) / seconds, failed / seconds, buckets, max(0.0, took))


def _cpu(agent: str, before: Look | None, now: Look) -> float | None:
    earlier = before.figures.get(agent) if before is not None else None
    if before is None or earlier is None or now.figures_ns <= before.figures_ns:
        return None
    used = now.figures[agent].cpu_microseconds - earlier.cpu_microseconds
    return max(0.0, used * 1000 / (now.figures_ns - before.figures_ns))


def screen(found: Sequence[Row], look: Look, *, moment: str, width: int | None, height: int | None) -> list[str]:
    """Lines that fit into so many columns and rows; all of it where it goes to no terminal."""
    lines = [_heading(found, look, moment), "", *table.lines(COLUMNS, [_cells(row) for row in found])]
    if height is not None and len(lines) > height:
        hidden = len(lines) - (height - 1)
        lines = [*lines[: height - 1], f"and {hidden} more"]
    return lines if width is None else [line[:width] for line in lines]


def _heading(found: Sequence[Row], look: Look, moment: str) -> str:
    calls = [row.calls for row in found if row.calls is not None]
    parts = [
        moment,
        count(len(found), "agent"),
        count(sum(row.ready for row in found), "instance"),
        count(look.spares, "spare"),
        f"{sum(calls):.1f} calls/s" if calls else "",
        "" if look.traffic_ns else "NO GATEWAY ANSWERS",
        "THE HOST IS SHORT OF MEMORY" if look.pressed else "",
    ]
    return "  ".join(part for part in parts if part)


def _cells(row: Row) -> tuple[str, ...]:
    name = escape(row.name)
    coming = f"+{row.coming}" if row.coming else ""
    return (
        name if len(name) <= _NAME else name[: _NAME - 1] + "…",
        _rate(row.calls),
        _rate(row.failed),
        duration(row.p50),
        duration(row.p99),
        NONE if row.open is None else str(row.open),
        NONE if row.waiting is None else str(row.waiting),
        f"{row.ready}{coming}/{row.instances_max}",
        NONE if row.cpu is None else f"{row.cpu * 100:.0f}%",
        size(row.memory),
        str(row.tasks),
    )


def _rate(rate: float | None) -> str:
    return NONE if rate is None else f"{rate:.1f}"
