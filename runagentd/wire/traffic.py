"""What the gateway counts of calls, as an operator's commands show it: the supervisor passes it on unread.

Runs as: the gateway makes it, runagentctl reads it. Pure.
Reads from strangers: yes. The gateway may be captured, so every text in it is escaped before it is shown.
Counters begin when the gateway does. A page has the agents that were asked for and are known, in that order.
"""

from __future__ import annotations

from dataclasses import dataclass

from runagentd.wire import record
from runagentd.wire.figures import Count

BYTES_MAX = 128 * 1024
"""Of a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long calls took: how many in each bucket by itself, and all together. The last bucket has no upper bound."""

    buckets: tuple[int, ...]
    microseconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TagTraffic:
    """An entrypoint; only in the answer about one agent."""

    tag: str
    calls: int
    failed: int
    times: Times


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceTraffic:
    """Likewise."""

    instance: str
    open: int
    calls: int
    """that it was given"""
    bound: bool
    """whether it takes calls of one caller only, and has one"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentTraffic:
    """`calls` have ended one way or another, `failed` of them otherwise than well; `times` are of those that ran."""

    agent: str
    state: str
    open: int
    waiting: int
    bound: int
    """instances that are bound, as in `InstanceTraffic`"""
    calls: int
    failed: int
    times: Times
    outcomes: tuple[Count, ...] = ()
    tags: tuple[TagTraffic, ...] = ()
    instances: tuple[InstanceTraffic, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """One page. Both times are on CLOCK_MONOTONIC, which all processes of a host share."""

    since_ns: int
    """when the counters began"""
    made_ns: int
    bounds_microseconds: tuple[int, ...]
    """of the buckets but the last"""
    agents: tuple[AgentTraffic, ...]


def parse(page: bytes) -> Traffic:
    """RecordError for anything that is not one page, also where a histogram does not fit the bounds."""
    found = record.decode(Traffic, page, bytes_max=BYTES_MAX)
    wanted = len(found.bounds_microseconds) + 1
    for agent in found.agents:
        for times in (agent.times, *(tag.times for tag in agent.tags)):
            if len(times.buckets) != wanted:
                raise record.RecordError("a histogram has another number of buckets than there are")
    return found
