"""What an operator is told of what has happened: messages of `admin.sock`.

Runs as: the supervisor and runagentctl (and the foreman). Pure.
Reads from strangers: no; see `wire.admin`, which packs and parses them, and under whose name they are used.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

EVENTS_MAX = 256
"""In one answer."""


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
