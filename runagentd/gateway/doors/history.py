"""What RunAgent's door says of calls that were made: a list, numbers, one of them.

Runs as: the gateway.
Reads from strangers: the query of a request, and ids to look for.
Callers see their own calls of agents that they may call, with `audit:read` everybody's; all else is looked for in the
same way and is not there. The shapes are those of RunAgent's own server, which puts no envelope around them.
"""

from __future__ import annotations

import datetime
import re
import time

import msgspec

from runagentd import errors
from runagentd.errors import Refusal
from runagentd.gateway.exchange import Exchange, Reply
from runagentd.gateway.guard.identity import Credentials, Principal
from runagentd.gateway.kept.history import History
from runagentd.gateway.kept.invocation import Kept, Status, client, note, text
from runagentd.gateway.paths import query_value
from runagentd.gateway.pipeline import Pipeline, Running

AUDIT = "audit:read"
LIMIT, LIMIT_MAX = 50, 500
SHOWN_BYTES_MAX = 1024 * 1024
"""Of contents in one list; those beyond are shown one by one."""

_NUMBER = re.compile(r"[0-9]{1,9}")
_PRODUCT = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110, section 10.1.5
_ENCODE = msgspec.json.Encoder().encode


class HistoryDoor:
    """Answers for `doors.runagent`; ids of calls are those of `request_id` and `invocation_id` in answers."""

    def __init__(self, pipeline: Pipeline, history: History) -> None:
        self._pipeline = pipeline
        self._history = history

    async def invocations(self, exchange: Exchange, credentials: Credentials, identity: str) -> Reply:
        """Calls of one agent, those that are under way first, then the last one first."""
        principal, agent = await self._pipeline.callable(credentials, identity)
        limit, status = _limit(exchange.query), _status(exchange.query)
        whose = _whose(principal)
        rows: list[dict[str, object]] = []
        if status in (None, Status.PENDING):
            rows = [pending(running) for running in self._open(frozenset({agent.id}), whose)[:limit]]
        if status is not Status.PENDING and len(rows) < limit:
            agents = frozenset({agent.id})
            left = limit - len(rows)
            found = await self._history.recent(agents, whose, status=status, limit=left, contents=True)
            rows += _bounded([kept for _, kept in found])
        return Reply(200, _ENCODE({"agent_id": agent.id, "invocations": rows, "total_count": len(rows)}))

    async def statistics(self, credentials: Credentials, identity: str) -> Reply:
        """Numbers of one agent; `success_rate` in per cent."""
        principal, agent = await self._pipeline.callable(credentials, identity)
        totals = self._history.totals(agent.id, _whose(principal))
        under_way = len(self._open(frozenset({agent.id}), _whose(principal)))
        calls = totals.completed + totals.failed + under_way
        stats = {
            "total_invocations": calls,
            "completed_invocations": totals.completed,
            "failed_invocations": totals.failed,
            "pending_invocations": under_way,
            "success_rate": round(100 * totals.completed / calls, 2) if calls else 0.0,
            "avg_execution_time_ms": round(totals.micros / totals.completed / 1000, 2) if totals.completed else 0.0,
            "agent_id": agent.id,
        }
        return Reply(200, _ENCODE({"agent_id": agent.id, "stats": stats}))

    async def invocation(self, credentials: Credentials, invocation_id: str) -> Reply:
        """One call."""
        principal, agents = await self._pipeline.callable_all(credentials)
        whose = _whose(principal)
        for running in self._open(agents, whose):
            if running.request.id == invocation_id:
                return Reply(200, _ENCODE(pending(running)))
        kept = await self._history.find(invocation_id, agents, whose)
        if kept is None:
            raise Refusal(errors.NOT_FOUND, f"invocation {invocation_id[:64]!r} not found", hint=_HINT)
        return Reply(200, _ENCODE(ended(kept)))

    def _open(self, agents: frozenset[str], whose: str | None) -> list[Running]:
        return [
            running
            for running in self._pipeline.open_calls()
            if running.agent is not None
            and running.agent.id in agents
            and (whose is None or (running.principal is not None and running.principal.digest == whose))
        ]


_HINT = "calls are kept for a while only, and shown to whoever made them"


def _whose(principal: Principal) -> str | None:
    """The digest of the one whose calls are shown; None for everybody's."""
    return None if principal.grants.has(AUDIT) else principal.digest


def _limit(query: str) -> int:
    sent = _parameter(query, "limit")
    if sent is None:
        return LIMIT
    if not _NUMBER.fullmatch(sent) or not 1 <= int(sent) <= LIMIT_MAX:
        raise Refusal(errors.BODY, f"limit must be a number from 1 to {LIMIT_MAX}")
    return int(sent)


def _status(query: str) -> Status | None:
    sent = _parameter(query, "status")
    if not sent:
        return None
    try:
        return Status(sent)
    except ValueError:
        raise Refusal(errors.BODY, f"status must be one of {', '.join(Status)}") from None


def _parameter(query: str, name: str) -> str | None:
    return query_value(query, name) if query else None


def pending(running: Running) -> dict[str, object]:
    """A call that is under way."""
    request = running.request
    began = time.time() - (time.monotonic() - request.arrived)
    return {
        "invocation_id": request.id,
        "agent_id": running.agent.id if running.agent is not None else None,
        "input_data": msgspec.Raw(running.contents.input) if running.contents is not None else None,
        "output_data": None,
        "error_detail": None,
        "request_timestamp": _timestamp(began),
        "response_timestamp": None,
        "execution_time_ms": None,
        "status": Status.PENDING,
        "entrypoint_tag": None if running.tag is None else text(running.tag),
        **_client(None if request.client is None else client(request.client)),
    }


def ended(kept: Kept) -> dict[str, object]:
    """A call that has ended."""
    row = kept.row
    cause = f" ({row.cause})" if row.cause is not None else ""
    return {
        "invocation_id": kept.id,
        "agent_id": kept.agent,
        "input_data": None if kept.input is None else msgspec.Raw(kept.input),
        "output_data": None if kept.output is None else msgspec.Raw(kept.output),
        "error_detail": None if kept.status is Status.COMPLETED else f"{row.outcome}: {row.detail}{cause}",
        "request_timestamp": _timestamp(row.at / 1e6),
        "response_timestamp": _timestamp((row.at + row.micros) / 1e6),
        "execution_time_ms": row.micros / 1000,
        "status": kept.status,
        "entrypoint_tag": row.tag,
        **_client(row.client),
    }


def _client(field: str | None) -> dict[str, object]:
    product = _PRODUCT.match(field) if field is not None else None
    return {
        "sdk_type": product[0] if product is not None else None,
        "client_info": None if field is None else {"user_agent": field},
    }


def _bounded(found: list[Kept]) -> list[dict[str, object]]:
    rows, left = [], SHOWN_BYTES_MAX
    for kept in found:
        size = len(kept.input or b"") + len(kept.output or b"")
        if size > left:
            shown = {"input": kept.input and note(len(kept.input)), "output": kept.output and note(len(kept.output))}
            kept = msgspec.structs.replace(kept, **shown)
        else:
            left -= size
        rows.append(ended(kept))
    return rows


def _timestamp(seconds: float) -> str:
    """UTC without a zone, as RunAgent's own server writes it here."""
    return (
        datetime.datetime.fromtimestamp(seconds, datetime.UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    )
