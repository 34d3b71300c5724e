"""A refusal as `application/problem+json` (RFC 9457): the error form of the native door and of unknown paths.

Runs as: the gateway. Pure.
Reads from strangers: nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from runagentd import errors
from runagentd.errors import Refusal
from runagentd.gateway.exchange import Reply

PROBLEM_TYPE = "urn:runagentd:problem:"
_ENCODE = msgspec.json.Encoder().encode


def problem_members(refusal: Refusal, status: int, request_id: str) -> dict[str, object]:
    """RFC 9457, with our extensions. `errors` carries a JSON Pointer into the request's body."""
    kind = refusal.kind
    members: dict[str, object] = {
        "type": PROBLEM_TYPE + kind.code.lower().replace("_", "-"),
        "title": kind.title,
        "status": status,
        "detail": refusal.message,
        "code": kind.code,
        "retryable": kind.retryable,
        "request_id": request_id,
    }
    if len(request_id) == 36:  # a UUID and not a ULID, for which there is no URN
        members["instance"] = f"urn:uuid:{request_id}"
    if refusal.pointer is not None:
        pointer = refusal.pointer.removeprefix("/input_kwargs")
        members["errors"] = [{"pointer": pointer, "detail": refusal.message}]
    optional: Mapping[str, object] = {
        "hint": "send 'Accept: text/event-stream'" if kind is errors.STREAMS else refusal.hint,
        "cause": refusal.cause,
        "limit": refusal.limit,
        "exception": refusal.exception_type,
        "traceback": refusal.traceback,
    }
    return members | {key: value for key, value in optional.items() if value is not None}


def problem(refusal: Refusal, request_id: str) -> Reply:
    """A refusal as this door's answer."""
    status = refusal.kind.native_status
    headers = dict(refusal.headers)
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(refusal.retry_after)))
    return Reply(status, _ENCODE(problem_members(refusal, status, request_id)), "application/problem+json", headers)
