"""What an operator is told of what runs: messages of `admin.sock`.

Runs as: the supervisor and runagentctl (and the foreman). Pure.
Reads from strangers: no; see `wire.admin`, which packs and parses them, and under whose name they are used.
"""

from __future__ import annotations

from dataclasses import dataclass

from runagentd.wire import figures

ROWS_MAX = 128
"""Instances in one answer: with the times of their steps each takes up to 3 KiB."""
INSTANCES_DESCRIBED_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ListInstances:
    """The rows after the first `skip`, at most ROWS_MAX."""

    skip: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """How long one step of a spawn took."""

    step: str
    microseconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """One running sandbox, or an agent that has none at the moment (`instance` and `pid` empty)."""

    agent: str
    agent_name: str
    instance: str
    state: str
    policy: str
    pid: int
    """Of the runner, on the host."""
    reaper_pid: int
    uid: int
    started_unix_ms: int
    version: str
    """its digest"""
    cpu_microseconds: int
    memory_bytes: int
    memory_max: int
    pids: int
    restarts: int
    last_cause: str
    spawn_started_ns: int
    """CLOCK_MONOTONIC when the supervisor began this spawn."""
    ready_ns: int
    from_spare: bool
    stood_by: bool
    """it was at its gate already when it was needed"""
    steps: tuple[StepTime, ...]
    number: int = 0
    """of its version"""
    python: str = ""
    """the release of the CPython that it runs on, where that is not the daemon's own"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonRow:
    """One process of the daemon's own."""

    name: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    instances: tuple[InstanceRow, ...]
    total: int
    """how many rows there are in all"""
    daemons: tuple[DaemonRow, ...]
    spares: int
    standbys: int
    """agents whose next instance is at its gate"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewAsk:
    """All agents at a glance, some at a time: page 0, 1, …"""

    page: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """One page."""

    pages: int
    made_ns: int
    """CLOCK_MONOTONIC when the figures were made: they are kept for a second"""
    names: tuple[str, ...]
    """of the agents in the figures, in their order"""
    figures: figures.Figures
    traffic: bytes
    """the record of a `traffic.Traffic`, as the gateway made it; empty where none has answered"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeAsk:
    """All about an agent, an id or a unique name."""

    agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRow:
    """An instance that is over."""

    unix_ms: int
    instance: str
    lived_ms: int
    """since it was ready; 0 where it never was"""
    cause: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What an agent may have, as its policy and an operator say. Times are milliseconds, sizes bytes."""

    memory_max: int
    pids_max: int
    cpu_max_thousandths: int
    concurrency: int
    queue: int
    deadline: int
    cancel_grace: int
    instances_min: int
    instances_max: int
    instances_most: int
    """that the policy allows an operator to ask for"""
    target: int
    idle: int
    freeze: int
    spawn: str
    isolation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """All about one agent; at most INSTANCES_DESCRIBED_MAX of its instances."""

    agent: str
    manifest: bytes
    """the record of a `manifest.Manifest`, without its environment"""
    version: str
    policy: str
    policy_digest: str
    bounds: Bounds
    restarts: int
    retry_after_ms: int
    """until the next start after a failure; 0 is no delay"""
    instances: tuple[InstanceRow, ...]
    total: int
    """how many instances there are in all"""
    ends: tuple[EndRow, ...]
    """the last ones, the oldest first"""
    traffic: bytes
    """as in `Overview`"""
    number: int = 0
    """of the version that serves"""
    warm: int = 0
    """the number of the version that served before, while instances of it are kept"""
    warm_until_unix_ms: int = 0
    python: str = ""
    """as in `InstanceRow`"""
