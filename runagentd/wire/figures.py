"""What only the supervisor knows and a scrape of /metrics shows: counters and gauges of instances and their cgroups.

Runs as: the supervisor makes them, the gateway shows them. Pure.
Reads from strangers: nothing; numbers, and names of agents that their authors chose.
Counters begin when the supervisor does. A page holds as many agents as fit into a datagram.
"""

from __future__ import annotations

from dataclasses import dataclass

AGENTS_MAX = 128
"""On one page."""

STEP_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
"""Upper bounds of the buckets of spawn steps; the last one is for all that is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """So many of a kind: instances in a state, ends of a cause."""

    name: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """A histogram: how many took so long, in each bucket by itself (one more than STEP_SECONDS), and all together."""

    name: str
    buckets: tuple[int, ...]
    microseconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFigures:
    """One agent; sizes are bytes, sums over its instances."""

    agent: str
    states: tuple[Count, ...]
    ends: tuple[Count, ...]
    memory: int
    tasks: int
    cpu_microseconds: int
    """of all instances there were"""
    pressure: tuple[Count, ...]
    """microseconds in which some process of it waited for cpu, memory or io; nothing where no account is kept"""
    memory_max: int
    tasks_max: int
    cpu_max_thousandths: int
    """of a core"""
    instances_min: int
    instances_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One page. What is not of one agent is on the first."""

    agents: tuple[AgentFigures, ...]
    more: bool
    steps: tuple[Durations, ...]
    starts: tuple[Count, ...]
    """instances that became ready, by where they came from: spare, demand"""
    start_times: tuple[Durations, ...]
    """from the begin of a spawn to being ready, likewise"""
    gateways: int
    """that said hello: more than one where one was lost"""
    spares: int
    pressed: bool
