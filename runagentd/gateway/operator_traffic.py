"""What is called, how often and how long it takes, as `runagentctl top` and `describe` ask for it.

Runs as: the gateway.
Reads from strangers: nothing; the question comes from the supervisor.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from runagentd.gateway.agents import Agent
from runagentd.gateway.directory import Directory
from runagentd.gateway.histogram import SECONDS, Histogram
from runagentd.gateway.kept.invocation import GOOD
from runagentd.gateway.metrics import AgentCounts, CallCounts, TagCounts
from runagentd.wire import record
from runagentd.wire.figures import Count
from runagentd.wire.traffic import BYTES_MAX, AgentTraffic, InstanceTraffic, TagTraffic, Times, Traffic

INSTANCES_MAX = 256
_BOUNDS = tuple(round(seconds * 1e6) for seconds in SECONDS)


def page(agents: Sequence[str], *, detailed: bool, directory: Directory, counts: CallCounts) -> bytes:
    """The record of a page; of one agent in detail, with its entrypoints and instances."""
    found = counts.by_agent()
    rows = [
        _row(agent, found.get(agent.id, AgentCounts()), detailed=detailed)
        for agent in map(directory.find_id, agents)
        if agent is not None
    ]
    while len(data := _encode(rows, counts)) > BYTES_MAX:
        rows = _shorter(rows)
    return data


def _encode(rows: Sequence[AgentTraffic], counts: CallCounts) -> bytes:
    return record.encode(
        Traffic(
            since_ns=counts.since_ns,
            made_ns=time.monotonic_ns(),
            bounds_microseconds=_BOUNDS,
            agents=tuple(rows),
        )
    )


def _shorter(rows: list[AgentTraffic]) -> list[AgentTraffic]:
    """Less of what can be long: half of the entrypoints, those that are called most; or else half of the agents."""
    if not any(row.tags for row in rows):
        return rows[: len(rows) // 2]
    return [dataclasses.replace(row, tags=row.tags[: len(row.tags) // 2]) for row in rows]


def _row(agent: Agent, counts: AgentCounts, *, detailed: bool) -> AgentTraffic:
    tags: list[TagTraffic] = []
    if detailed:
        tags = [
            TagTraffic(tag=tag, calls=found.calls, failed=found.failed, times=_times(found.took))
            for tag, found in ((tag, counts.tags.get(tag, TagCounts())) for tag in agent.entrypoints)
        ]
        tags.sort(key=lambda each: -each.calls)
    instances = list(agent.instances.values())[:INSTANCES_MAX] if detailed else []
    return AgentTraffic(
        agent=agent.id,
        state=agent.state(),
        open=agent.open_calls(),
        waiting=agent.waiting,
        bound=agent.bound(),
        calls=sum(counts.outcomes.values()),
        failed=sum(count for outcome, count in counts.outcomes.items() if outcome != GOOD),
        times=_times(counts.took),
        outcomes=tuple(Count(name=name, count=count) for name, count in counts.outcomes.most_common())
        if detailed
        else (),
        tags=tuple(tags),
        instances=tuple(
            InstanceTraffic(instance=each.name, open=each.load, calls=each.calls, bound=each.caller is not None)
            for each in instances
        ),
    )


def _times(histogram: Histogram) -> Times:
    return Times(buckets=tuple(histogram.buckets), microseconds=round(histogram.sum * 1e6))
