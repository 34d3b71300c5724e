"""A request as the pipeline sees it, whatever door it came through; and what is recorded of it.

Runs as: the gateway.
Reads from strangers: nothing; doors make these values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterator

import msgspec

from runagentd.errors import Fault, Refusal
from runagentd.gateway.calls import Mode
from runagentd.gateway.guard.identity import Credentials
from runagentd.gateway.trace import Trace

WORKER_LOST = "worker-lost"
"""Why a call was cancelled, and what its task is cancelled with: the process that had its client's connection ended."""
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}")
_IDS_AT_ONCE = 256
_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


# Structs and not dataclasses: there is one of each for every call, and a frozen dataclass of this size costs 2 to 4 µs
# to make, a Struct 0.3 (measured 2026-11-22). On the way of every call they are made by position: with names, which
# msgspec looks up one by one, 24 fields cost 2.2 µs instead of 0.14 (measured 2026-11-28).


class Decoded(msgspec.Struct, frozen=True):
    """What a door made of a body: which function, with what."""

    tag: str
    mode: Mode
    arguments: bytes
    timeout_ms: int | None
    received: float | None = None
    """when it came, on time.monotonic(), where that is not when the request came"""
    refusal: Refusal | None = None
    """what is wrong with it for this door, told if there is such an entrypoint at all"""


class Request(msgspec.Struct, frozen=True):
    """One wish to call a function. `decode` reads the body, of at most that many bytes, and checks it."""

    id: str
    door: str
    peer: str
    credentials: Credentials
    agent: str
    arrived: float
    declared_bytes: int | None
    decode: Callable[[int], Awaitable[Decoded]]
    traceparent: str | None = None
    tracestate: str | None = None
    """as they came; see `trace`"""
    idempotency_key: str | None = None
    """the field as it came"""
    cache_control: str | None = None
    client: str | None = None
    """User-Agent, as it came"""
    route: str = ""
    """method and path, with placeholders for what callers choose"""
    path: str = ""
    """as it came, without the query"""


class CallRecord(msgspec.Struct, frozen=True):
    """One per call, refused ones too. Neither arguments nor results nor tokens are in it."""

    request_id: str
    door: str
    peer: str
    subject: str | None
    principal: str | None
    """its digest"""
    agent: str | None
    tag: str | None
    instance: str | None
    outcome: str
    """OK, or the code of the error"""
    cause: str | None
    detail: str | None
    """what was wrong, in our words; in the agent's and the caller's only where its policy keeps contents"""
    started_unix: float
    seconds: float
    queue_seconds: float | None
    """from arrival until the call was sent to a runner"""
    request_bytes: int | None
    result_bytes: int
    chunks: int
    client: str | None
    """User-Agent, as it came"""
    trace: Trace
    route: str = ""
    path: str = ""
    status: int = 0
    """of HTTP; 0 where there was none, or nobody records the call"""
    fault: Fault | None = None
    """whose it was that it did not go well"""


def request_id(sent: str | None) -> str:
    """The caller's own id where it is a UUID or a ULID (so that it can be joined with their logs), else a new one."""
    if sent is not None and (_UUID.fullmatch(sent) or _ULID.fullmatch(sent)):
        return sent
    return next(_new_ids)


def _uuids() -> Iterator[str]:
    """Version 4 UUIDs (RFC 9562, section 5.4) by hand: uuid.uuid4() and its system call cost ten times as much."""
    while True:
        chance = os.urandom(16 * _IDS_AT_ONCE).hex()
        for start in range(0, len(chance), 32):
            digits = chance[start : start + 32]
            variant = _VARIANT[digits[16]]
            yield f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


_new_ids = _uuids()
