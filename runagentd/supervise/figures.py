"""Counts what happens to instances, for whoever watches.

Runs as: the supervisor.
Reads from strangers: a question of a gateway that may be captured; the answer costs some reads of cgroup files for each
instance, so it is kept for a second.
"""

from __future__ import annotations

import bisect
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from runagentd.supervise.agent import Agent
from runagentd.supervise.instance import Instance
from runagentd.wire.figures import AGENTS_MAX, STEP_SECONDS, AgentFigures, Count, Durations, Figures

KEEP_SECONDS = 1.0


class _Histogram:
    def __init__(self) -> None:
        self.buckets = [0] * (len(STEP_SECONDS) + 1)
        self.microseconds = 0

    def add(self, seconds: float) -> None:
        self.buckets[bisect.bisect_left(STEP_SECONDS, seconds)] += 1
        self.microseconds += round(seconds * 1e6)

    def told(self, name: str) -> Durations:
        return Durations(name=name, buckets=tuple(self.buckets), microseconds=self.microseconds)


class Counters:
    """What has happened since the supervisor started."""

    def __init__(self) -> None:
        self._steps: dict[str, _Histogram] = {}
        self._starts: Counter[str] = Counter()
        self.gateways = 0
        """that said hello"""
        self._times: dict[str, _Histogram] = {}

    def proven(self, instance: Instance) -> None:
        """An instance has become ready."""
        kind = "gate" if instance.stood_by else "spare" if instance.from_spare else "demand"
        self._starts[kind] += 1
        self._times.setdefault(kind, _Histogram()).add((instance.ready_ns - instance.spawn_started_ns) / 1e9)
        for step in instance.launched.steps if instance.launched is not None else ():
            self._steps.setdefault(step.verb, _Histogram()).add(step.nanoseconds / 1e9)

    def told(self, agents: Sequence[AgentFigures], *, more: bool, spares: int, pressed: bool, first: bool) -> Figures:
        """One page of all of it."""
        return Figures(
            agents=tuple(agents),
            more=more,
            steps=tuple(each.told(name) for name, each in sorted(self._steps.items())) if first else (),
            starts=_counts(self._starts) if first else (),
            start_times=tuple(each.told(name) for name, each in sorted(self._times.items())) if first else (),
            gateways=self.gateways,
            spares=spares,
            pressed=pressed,
        )


class FigureTeller:
    """`agents`, `sides` of one, `spares` and `pressed` give what there is at the moment."""

    def __init__(
        self,
        counters: Counters,
        *,
        agents: Callable[[], Iterable[Agent]],
        sides: Callable[[str], Mapping[int, Agent]],
        spares: Callable[[], int],
        pressed: Callable[[], bool],
    ) -> None:
        self._counters = counters
        self._agents = agents
        self._sides = sides
        self._spares = spares
        self._pressed = pressed
        self._pages: tuple[Figures, ...] = ()
        self._made = -KEEP_SECONDS
        self.made_ns = 0
        """on CLOCK_MONOTONIC"""

    def pages(self) -> tuple[Figures, ...]:
        """All figures, at most a second old."""
        now = time.monotonic()
        if now - self._made >= KEEP_SECONDS:
            self._pages, self._made, self.made_ns = tuple(self._make()), now, time.monotonic_ns()
        return self._pages

    def _make(self) -> Iterable[Figures]:
        found = [figures_of(agent, tuple(self._sides(agent.id).values())) for agent in self._agents()]
        for start in range(0, max(1, len(found)), AGENTS_MAX):
            yield self._counters.told(
                found[start : start + AGENTS_MAX],
                more=start + AGENTS_MAX < len(found),
                spares=self._spares(),
                pressed=self._pressed(),
                first=start == 0,
            )


def figures_of(agent: Agent, sides: Sequence[Agent]) -> AgentFigures:
    """What the cgroups of all its versions say, and what the policy of the one that serves allows."""
    versions = (agent, *sides)
    instances = [each for version in versions for each in version.instances.values()]
    groups = [each.launched.spare.group for each in instances if each.alive and each.launched is not None]
    pressure: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for version in versions:
        pressure.update(version.pressure)
        ends.update(version.ends)
    for group in groups:
        pressure.update(group.pressure())
    resources = agent.policy.resources
    cpu_seconds = sum(version.cpu_seconds for version in versions) + sum(group.cpu_seconds() for group in groups)
    return AgentFigures(
        agent=agent.id,
        states=_counts(Counter(each.shown_state for each in instances)),
        ends=_counts(ends),
        memory=sum(group.memory_current() for group in groups),
        tasks=sum(group.pids_current() for group in groups),
        cpu_microseconds=round(1e6 * cpu_seconds),
        pressure=_counts(pressure),
        memory_max=resources.memory_max,
        tasks_max=resources.pids_max,
        cpu_max_thousandths=round(resources.cpu_max * 1000),
        instances_min=agent.minimum,
        instances_max=agent.maximum,
    )


def _counts(counter: Counter[str]) -> tuple[Count, ...]:
    return tuple(Count(name=name, count=counter[name]) for name in sorted(counter))
