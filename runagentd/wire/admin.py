"""What an operator's command says to the supervisor over `admin.sock`: records, one datagram each way.

Runs as: the supervisor and runagentctl (and the foreman). Pure.
Reads from strangers: no. The socket goes by peer credentials (root only).
A connection carries one request and one answer, before which `Progress` may come; a folder travels as a descriptor
beside `Deploy`, never as a path.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from runagentd.wire import figures, record

# Messages that are written down elsewhere: for who sends or receives them, each is `admin.NAME`.
from runagentd.wire.versions import AliasChange as AliasChange
from runagentd.wire.versions import Deploy as Deploy
from runagentd.wire.versions import Deployed as Deployed
from runagentd.wire.versions import Divide as Divide
from runagentd.wire.versions import Divided as Divided
from runagentd.wire.versions import InstanceBounds as InstanceBounds
from runagentd.wire.versions import KeyChange as KeyChange
from runagentd.wire.versions import Managed as Managed
from runagentd.wire.versions import ManagedAsk as ManagedAsk
from runagentd.wire.versions import ManagedRow as ManagedRow
from runagentd.wire.versions import Planned as Planned
from runagentd.wire.versions import PolicyChoice as PolicyChoice
from runagentd.wire.versions import Progress as Progress
from runagentd.wire.versions import Promote as Promote
from runagentd.wire.versions import Promoted as Promoted
from runagentd.wire.versions import Relation as Relation
from runagentd.wire.versions import Remove as Remove
from runagentd.wire.versions import SetAlias as SetAlias
from runagentd.wire.versions import VersionRow as VersionRow
from runagentd.wire.versions import Versions as Versions
from runagentd.wire.versions import VersionsAsk as VersionsAsk
from runagentd.wire.versions import WantedShare as WantedShare
from runagentd.wire.versions import WiderSide as WiderSide

MESSAGE_BYTES_MAX = 512 * 1024
ROWS_MAX = 128
"""Instances in one answer: with the times of their steps each takes up to 3 KiB."""
CALLS_PAGE_BYTES_MAX = 128 * 1024
INSTANCES_DESCRIBED_MAX = 64
EVENTS_MAX = 256
"""In one answer."""


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
class Restart:
    """Kill the instances of an agent and start others at once, without backoff."""

    agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """Have that many instances of an agent now, within its maximum; they stay for the idle time of its policy."""

    agent: str
    instances: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Other bounds for the number of an agent's instances, within its policy's, until the daemon starts again."""

    agent: str
    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """The answer to `Warm` and `Scale`: the bounds that hold, and how many instances were made sure of."""

    minimum: int
    maximum: int
    warm: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The request was refused: one sentence."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AllDeployed:
    """What is to be served from the start was deployed: until then a fresh supervisor names no complete list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustChanged:
    """Keys or revocations in the state directory are other ones: read them, and tell the gateway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustSpread:
    """The answer to `TrustChanged`: whether the gateway has said in time that they hold now."""

    taken: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheAsk:
    """What is in the response cache; with `purge`, throw it away first. Empty texts stand for all.

    `agent` is an id or a unique name.
    """

    purge: bool
    agent: str
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRow:
    """One agent's part of the cache; the counters run since the gateway started."""

    agent: str
    entries: int
    size: int
    hits: int
    stale: int
    misses: int
    joined: int
    stored: int
    evicted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheState:
    """The whole cache, in bytes, and how many entries were thrown away just now."""

    size: int
    size_max: int
    purged: int
    rows: tuple[CacheRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsAsk:
    """The last calls, of an agent (an id or a unique name) and with a status, where these are not empty.

    None is older than `since_unix_ms`; with `before`, which a page before this one told, the calls that follow it.
    """

    agent: str
    status: str
    since_unix_ms: int
    before: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRow:
    """One call. What callers and agents wrote is in it: nothing of it may reach a terminal as it is."""

    request_id: str
    trace_id: str
    agent: str
    tag: str | None
    subject: str
    status: str
    outcome: str
    cause: str | None
    detail: str | None
    started_unix_ms: int
    microseconds: int
    queue_microseconds: int | None
    """from its arrival until a runner had it"""
    request_bytes: int | None
    result_bytes: int
    chunks: int
    door: str
    peer: str
    instance: str | None
    client: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsPage:
    """Some calls, the last one first. `before` leads to the next page; 0 where there is none."""

    rows: tuple[CallRow, ...]
    before: int
    lost: int
    """calls that could not be written down since the gateway started"""
    kept: bool
    """whether calls are kept at all"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsTold:
    """The record of a `CallsPage`, as the gateway made it."""

    page: bytes


class EventKind(enum.StrEnum):
    """What happened."""

    STARTED = "supervisor-started"
    GATEWAY = "gateway-connected"
    GATEWAY_LOST = "gateway-lost"
    ZYGOTE = "zygote-restarted"
    SERVED = "served"
    """an agent is there from now on"""
    DEPLOYED = "deployed"
    """another version of an agent serves"""
    PROMOTED = "promoted"
    """one that was deployed before serves again"""
    TRAFFIC = "traffic"
    """calls go to other versions than before"""
    ROLLED_BACK = "rolled-back"
    """a version that got a part of the calls gets none any more, for too many failed"""
    WIDENED = "policy-widened"
    """a version that gets calls from now on has a policy that is wider in one key than that of the one before"""
    COOLED = "cooled"
    """instances of the version that served before are kept no longer"""
    NOT_DEPLOYED = "not-deployed"
    NOT_RESTORED = "not-restored"
    """what is deployed cannot be served after a start of the supervisor's"""
    REMOVED = "removed"
    INSTANCE_STARTED = "instance-started"
    """its sandbox stands, and imports the agent"""
    INSTANCE_READY = "instance-ready"
    INSTANCE_ENDED = "instance-ended"
    SCALED = "scaled"
    """more instances are started beside those there are, or an operator wants other bounds"""
    RESTARTED = "restarted"
    """an operator ended all instances of an agent"""
    PRESSED = "memory-short"
    RELIEVED = "memory-enough"
    TRUST = "trust-changed"
    SETTINGS = "settings-changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened. `detail` is for the operator: an agent's author and the host's paths are in it."""

    number: int
    """counts from 1, without gaps"""
    unix_ms: int
    kind: EventKind
    agent: str
    agent_name: str
    instance: str
    cause: str
    """of an instance's end"""
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsAsk:
    """What happened after the event `after` of the supervisor's life `life`; of another one, from its begin.

    Only of one agent, an id or a unique name, where `agent` is not empty. Where there is nothing, the answer waits for
    `wait_ms`, ten seconds at most.
    """

    life: str
    after: int
    agent: str
    wait_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsTold:
    """At most EVENTS_MAX, the oldest first."""

    life: str
    """a text that every supervisor chooses anew"""
    events: tuple[Event, ...]
    looked: int
    """the last event that was looked at: what to ask for next comes after it"""
    lost: int
    """events after the one that was asked for that are not kept any more"""
    more: bool
    """whether there is more already"""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChanged:
    """The foreman has read runagentd.toml again, and told the daemons."""

    taken: bool
    """or the file has problems, and nothing has changed"""


def parse_page(data: bytes) -> CallsPage:
    """RecordError for anything that is not one page."""
    return record.decode(CallsPage, data, bytes_max=CALLS_PAGE_BYTES_MAX)


Request = (
    Deploy
    | ListInstances
    | Restart
    | AllDeployed
    | TrustChanged
    | CacheAsk
    | Warm
    | Scale
    | CallsAsk
    | EventsAsk
    | SettingsChanged
    | OverviewAsk
    | DescribeAsk
    | VersionsAsk
    | Promote
    | Divide
    | Remove
    | SetAlias
    | ManagedAsk
)
Reply = (
    Deployed
    | Instances
    | Done
    | Failed
    | TrustSpread
    | CacheState
    | Scaled
    | CallsTold
    | EventsTold
    | Overview
    | Described
    | Progress
    | Versions
    | Promoted
    | Divided
    | Planned
    | Managed
)

_REQUESTS: dict[int, type[Request]] = {
    1: Deploy,
    2: ListInstances,
    3: Restart,
    4: AllDeployed,
    5: TrustChanged,
    6: CacheAsk,
    7: Warm,
    8: Scale,
    9: CallsAsk,
    20: EventsAsk,
    21: SettingsChanged,
    22: OverviewAsk,
    23: DescribeAsk,
    40: VersionsAsk,
    41: Promote,
    42: Remove,
    43: SetAlias,
    44: Divide,
    45: ManagedAsk,
}
_REPLIES: dict[int, type[Reply]] = {
    65: Deployed,
    66: Instances,
    67: Done,
    68: Failed,
    69: TrustSpread,
    70: CacheState,
    71: Scaled,
    72: CallsTold,
    90: EventsTold,
    91: Overview,
    92: Described,
    93: Progress,
    110: Versions,
    111: Promoted,
    112: Divided,
    113: Planned,
    114: Managed,
}
_NUMBER = {kind: number for table in (_REQUESTS, _REPLIES) for number, kind in table.items()}


def pack(message: Request | Reply) -> bytes:
    """One datagram."""
    return record.encode_numbered(_NUMBER[type(message)], message)


def parse_request(data: bytes) -> Request:
    """RecordError for anything that is not one request."""
    return record.decode_numbered(_REQUESTS, data, what="a request", bytes_max=MESSAGE_BYTES_MAX)


def parse_reply(data: bytes) -> Reply:
    """RecordError for anything that is not one reply."""
    return record.decode_numbered(_REPLIES, data, what="a reply", bytes_max=MESSAGE_BYTES_MAX)
