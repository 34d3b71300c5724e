"""What an operator's command says to the supervisor over `admin.sock`: records, one datagram each way.

Runs as: the supervisor and runagentctl (and the foreman). Pure.
Reads from strangers: no. The socket goes by peer credentials (root only).
A connection carries one request and one answer, before which `Progress` may come; a folder travels as a descriptor
beside `Deploy`, never as a path.
"""

from __future__ import annotations

from dataclasses import dataclass

from runagentd.wire import record

# Messages that are written down elsewhere: for who sends or receives them, each is `admin.NAME`.
from runagentd.wire.calls import CALLS_PAGE_BYTES_MAX as CALLS_PAGE_BYTES_MAX
from runagentd.wire.calls import CacheAsk as CacheAsk
from runagentd.wire.calls import CacheRow as CacheRow
from runagentd.wire.calls import CacheState as CacheState
from runagentd.wire.calls import CallRow as CallRow
from runagentd.wire.calls import CallsAsk as CallsAsk
from runagentd.wire.calls import CallsPage as CallsPage
from runagentd.wire.calls import CallsTold as CallsTold
from runagentd.wire.calls import parse_page as parse_page
from runagentd.wire.events import EVENTS_MAX as EVENTS_MAX
from runagentd.wire.events import Event as Event
from runagentd.wire.events import EventKind as EventKind
from runagentd.wire.events import EventsAsk as EventsAsk
from runagentd.wire.events import EventsTold as EventsTold
from runagentd.wire.instances import INSTANCES_DESCRIBED_MAX as INSTANCES_DESCRIBED_MAX
from runagentd.wire.instances import ROWS_MAX as ROWS_MAX
from runagentd.wire.instances import Bounds as Bounds
from runagentd.wire.instances import DaemonRow as DaemonRow
from runagentd.wire.instances import DescribeAsk as DescribeAsk
from runagentd.wire.instances import Described as Described
from runagentd.wire.instances import EndRow as EndRow
from runagentd.wire.instances import InstanceRow as InstanceRow
from runagentd.wire.instances import Instances as Instances
from runagentd.wire.instances import ListInstances as ListInstances
from runagentd.wire.instances import Overview as Overview
from runagentd.wire.instances import OverviewAsk as OverviewAsk
from runagentd.wire.instances import StepTime as StepTime
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
class SettingsChanged:
    """The foreman has read runagentd.toml again, and told the daemons."""

    taken: bool
    """or the file has problems, and nothing has changed"""


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
