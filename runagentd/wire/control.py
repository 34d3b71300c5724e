"""What the gateway and the supervisor say to each other: records on a SOCK_SEQPACKET socket, one datagram each.

Runs as: the supervisor and the gateway. Pure.
Reads from strangers: the supervisor must take the gateway for captured: what comes from it names an agent or an
instance and never defines one; the two reports are opaque bytes that the supervisor passes on and does not parse.

A datagram is one byte, the message's number, then its record (`wire.record`). Descriptors travel beside
`InstanceOffered` only.
"""

from __future__ import annotations

import enum
from collections.abc import Sized
from dataclasses import dataclass

from runagentd.wire import admin, figures, record, trust

MESSAGE_BYTES_MAX = 160 * 1024
REPORT_BYTES_MAX = 64 * 1024
TRUST_ROWS_MAX = 32
"""API keys, ids or subjects in one message: even the largest fit into a datagram."""
TRIED_CHARACTERS_MAX = 500
CONTROL_VERSION = 1


class Cause(enum.StrEnum):
    """Why an instance ended, or may not start: the one true cause, told to caller, log and metric alike."""

    EXIT = "exit"
    """the runner ended by itself; a status that it gave is a claim"""
    SIGNAL = "signal"
    OUT_OF_MEMORY = "oom"
    SECCOMP = "seccomp"
    DEADLINE = "deadline"
    """a call did not stop within its grace"""
    PROTOCOL = "protocol"
    """the instance broke the channel's protocol"""
    IMPORT = "import"
    """the agent's code cannot be imported, or an entrypoint is not there"""
    START_TIMEOUT = "start-timeout"
    LAUNCH = "launch"
    """a step of the sandbox was refused: nothing ran"""
    OPERATOR = "operator"
    SHUTDOWN = "shutdown"
    SUPERVISOR_LOST = "supervisor-lost"
    """the supervisor ended, and its instances with it: for the gateway to say"""
    SCALE_DOWN = "scale-down"
    """fewer instances are enough; it had no call"""
    REPLACED = "replaced"
    """another version of the agent serves, or this one was tried and did not"""
    EVICTED = "evicted"
    """it served one caller, and its place went to another one"""
    GATEWAY_LOST = "gateway-lost"
    """the gateway ended, and with it the knowledge of whom this instance had served"""


# ---- supervisor to gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """The part of an agent's policy that the gateway applies."""

    concurrency: int
    queue: int
    deadline_ms: int
    cancel_grace_ms: int
    request_bytes: int
    result_bytes: int
    traceback: bool
    log_line_bytes: int
    log_bytes_per_minute: int
    history_contents: bool
    """whether arguments and results are kept with the facts of a call"""
    one_by_one: bool
    """no call is sent before the one before it has stopped: each has a process of its own"""
    freeze_ms: int = 0
    """how long an instance must have been idle before it is frozen; 0 is never"""
    one_caller: bool = False
    """an instance takes calls of one caller only, the one whose call was its first"""
    idle_ms: int = 0
    """how long one that has a caller may be without a call before it is ended"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """The part of an agent's policy by which the gateway says how many instances its calls could use."""

    minimum: int = 1
    maximum: int = 1
    target: int = 1
    """calls at a time in each instance"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """Instances of a generation that is called no more: those that have no call are named, beyond `keep` of them."""

    generation: int
    keep: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """So many of a hundred calls go to this version, drawn by lot."""

    side: int
    percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """Calls of AGENT@NAME go to this version: to the one that serves where `side` is 0."""

    name: str
    side: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentServed:
    """From now on this agent can be called. `manifest` is the record of a `wire.manifest.Manifest`.

    Where `side` is not 0, it is the number of a version of an agent that was named before: it has instances and calls
    of its own, and gets the part of the agent's calls that `shares` of that one say.
    """

    agent: str
    manifest: bytes
    version: str
    policy: str
    policy_digest: str
    limits: CallLimits
    generation: int = 0
    """instances of another one are not called: they are tried, kept for a while, or on their way out"""
    scaling: Scaling = Scaling()
    leaving: tuple[Leaving, ...] = ()
    """what is of a generation that is not here, and does not serve, is tried: it stays as it is"""
    side: int = 0
    shares: tuple[Share, ...] = ()
    aliases: tuple[Alias, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AllIntroduced:
    """The answer to `Hello` is complete: an agent that was not named by now does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRemoved:
    agent: str
    side: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceOffered:
    """An instance, with three descriptors: its channel, and the read ends of its stdout and stderr."""

    instance: str
    agent: str
    generation: int
    limits: CallLimits
    side: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceGone:
    """An instance has ended (also one that was never offered). `detail` is for people, free of host details."""

    instance: str
    agent: str
    cause: Cause
    detail: str
    retry_after_ms: int
    """When the next one will be started; 0 is now."""
    side: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire:
    """This agent has too many instances: give its idle ones no more calls, until `keep` are left, and name them."""

    agent: str
    keep: int
    side: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPressed:
    """Whether the host is short of memory: while it is, calls that would have to wait are refused."""

    pressed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKeys:
    """Every key that tokens may be signed with; those that were sent before are forgotten."""

    keys: tuple[trust.PublicKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeysKnown:
    """API keys, new or changed; at most TRUST_ROWS_MAX in a message."""

    keys: tuple[trust.ApiKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeysGone:
    """These are good no more."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """Beside what was revoked before: ids of tokens and certificates, subjects, and all issued up to `before`."""

    token_ids: tuple[str, ...]
    subjects: tuple[trust.SubjectRevoked, ...]
    before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustTold:
    """What came since the last one (the first one: since the connection) holds from now on."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheQuestion:
    """What is in the response cache; with `purge`, throw it away first. Empty texts stand for all."""

    number: int
    purge: bool
    agent: str
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsQuestion:
    """Some calls of the history, as `admin.CallsAsk` asks for them."""

    number: int
    ask: admin.CallsAsk


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficQuestion:
    """What is called of these agents; of one in detail, with its entrypoints and instances."""

    number: int
    agents: tuple[str, ...]
    detailed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TryCall:
    """Call this entrypoint without arguments on this instance, which need not serve, and say what came of it."""

    number: int
    agent: str
    instance: str
    tag: str
    timeout_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FiguresTold:
    """A page of the answer to `AskFigures` of this number; the last one has `figures.more` false."""

    number: int
    figures: figures.Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Take no more calls, let the open ones end within `grace_ms`, then answer `Drained`."""

    grace_ms: int


# ---- gateway to supervisor


def _check_size(name: str, value: Sized, most: int) -> None:
    """ValueError beyond a bound that is narrower than that of a datagram: what comes from here is held in memory."""
    if len(value) > most:
        raise ValueError(f"{name} has {len(value)} where {most} are the most")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceReady:
    """The runner described its entrypoints; `describe` is its DESCRIBE body, at most 64 KiB, opaque."""

    instance: str
    describe: bytes

    def __post_init__(self) -> None:
        _check_size("describe", self.describe, REPORT_BYTES_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceFailed:
    """The runner said FAILED; `report` is that frame's body, at most 64 KiB, opaque."""

    instance: str
    report: bytes

    def __post_init__(self) -> None:
        _check_size("report", self.report, REPORT_BYTES_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceInstance:
    """This instance is of no more use: kill it, start another. Only DEADLINE and PROTOCOL are accepted as cause.

    Of an agent whose instances serve one caller each also EVICTED, and SCALE_DOWN for one that was idle too long.
    """

    instance: str
    cause: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """How many instances the calls of an agent could use now. The supervisor decides how many there are."""

    agent: str
    instances: int
    side: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """So many calls of a version, only those whose end is the version's doing."""

    side: int
    calls: int
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """How calls have ended since the last time, while they are split among versions.

    A gateway that lies can end a split, and so have the version serve that the operator had serve before.
    """

    agent: str
    ended: tuple[Ended, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """This instance is given no call any more and has none: it can be ended.

    The answer to `Retire`, and to a generation's being among those that leave.
    """

    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """This instance has had no call for so long that it can be frozen; `Wake` comes before its next one."""

    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """This instance gets a call."""

    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustTaken:
    """Of this epoch: what it denies is denied, and open calls of whom it denies have ended."""

    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeysUsed:
    """These API keys were used since the last report; at most TRUST_ROWS_MAX in a message."""

    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_size("ids", self.ids, TRUST_ROWS_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheAnswer:
    """The answer to the question of this number."""

    number: int
    state: admin.CacheState


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsAnswer:
    """The answer to the question of this number: the record of an `admin.CallsPage`, opaque, at most 128 KiB."""

    number: int
    page: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficAnswer:
    """The answer to the question of this number: the record of a `traffic.Traffic`, opaque, at most 128 KiB."""

    number: int
    page: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """The answer to the `TryCall` of this number: what was wrong, in words that may be the agent's; "" for nothing.

    At most TRIED_CHARACTERS_MAX.
    """

    number: int
    problem: str

    def __post_init__(self) -> None:
        _check_size("problem", self.problem, TRIED_CHARACTERS_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskFigures:
    """What only the supervisor can count; answered with `FiguresTold`."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    pass


FromSupervisor = (
    AgentServed
    | AgentRemoved
    | InstanceOffered
    | InstanceGone
    | Drain
    | AllIntroduced
    | TrustedKeys
    | ApiKeysKnown
    | ApiKeysGone
    | Revoked
    | TrustTold
    | CacheQuestion
    | Retire
    | HostPressed
    | CallsQuestion
    | FiguresTold
    | TrafficQuestion
    | TryCall
)
FromGateway = (
    Hello
    | InstanceReady
    | InstanceFailed
    | ReplaceInstance
    | Drained
    | TrustTaken
    | ApiKeysUsed
    | CacheAnswer
    | Demand
    | Retired
    | Idle
    | Wake
    | CallsAnswer
    | AskFigures
    | TrafficAnswer
    | Tried
    | Outcomes
)

Answer = CacheAnswer | CallsAnswer | TrafficAnswer | Tried
"""What carries the number of a question of the supervisor's."""

_FROM_SUPERVISOR: dict[int, type[FromSupervisor]] = {
    1: AgentServed,
    2: AgentRemoved,
    3: InstanceOffered,
    4: InstanceGone,
    5: Drain,
    6: AllIntroduced,
    7: TrustedKeys,
    8: ApiKeysKnown,
    9: ApiKeysGone,
    10: Revoked,
    11: TrustTold,
    12: CacheQuestion,
    13: Retire,
    14: HostPressed,
    15: CallsQuestion,
    16: FiguresTold,
    30: TrafficQuestion,
    40: TryCall,
}
_FROM_GATEWAY: dict[int, type[FromGateway]] = {
    65: Hello,
    66: InstanceReady,
    67: InstanceFailed,
    68: ReplaceInstance,
    69: Drained,
    70: TrustTaken,
    71: ApiKeysUsed,
    72: CacheAnswer,
    73: Demand,
    74: Retired,
    75: Idle,
    76: Wake,
    77: CallsAnswer,
    78: AskFigures,
    90: TrafficAnswer,
    110: Tried,
    111: Outcomes,
}
_NUMBER = {kind: number for table in (_FROM_SUPERVISOR, _FROM_GATEWAY) for number, kind in table.items()}
_WHAT = "a message that may come from here"


def pack(message: FromSupervisor | FromGateway) -> bytes:
    """One datagram."""
    return record.encode_numbered(_NUMBER[type(message)], message)


def parse_from_supervisor(data: bytes) -> FromSupervisor:
    """RecordError for anything that is not one message of the supervisor's."""
    return record.decode_numbered(_FROM_SUPERVISOR, data, what=_WHAT, bytes_max=MESSAGE_BYTES_MAX)


def parse_from_gateway(data: bytes) -> FromGateway:
    """RecordError for anything that is not one message of the gateway's."""
    return record.decode_numbered(_FROM_GATEWAY, data, what=_WHAT, bytes_max=MESSAGE_BYTES_MAX)
