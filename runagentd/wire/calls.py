"""What an operator is told of calls, and of answers that are kept: messages of `admin.sock`.

Runs as: the gateway makes what is told, the supervisor passes it on, runagentctl shows it. Pure.
Reads from strangers: yes, texts of callers and agents: nothing of them may reach a terminal as it is.
`wire.admin` packs and parses these messages, and under its name they are used.
"""

from __future__ import annotations

from dataclasses import dataclass

from runagentd.wire import record

CALLS_PAGE_BYTES_MAX = 128 * 1024


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


def parse_page(data: bytes) -> CallsPage:
    """RecordError for anything that is not one page."""
    return record.decode(CallsPage, data, bytes_max=CALLS_PAGE_BYTES_MAX)
