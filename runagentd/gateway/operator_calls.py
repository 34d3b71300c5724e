"""The history as `runagentctl calls` asks for it: pages of records, which the supervisor passes on unread.

Runs as: the gateway.
Reads from strangers: nothing; the question comes from the supervisor, what is told was cut when it was kept.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from runagentd.gateway.kept.history import NEWEST, History
from runagentd.gateway.kept.invocation import DETAIL_CHARACTERS_MAX, Kept, Status, client, text
from runagentd.gateway.pipeline import Running
from runagentd.wire import record
from runagentd.wire.admin import CALLS_PAGE_BYTES_MAX, CallRow, CallsAsk, CallsPage

ROWS_MAX = 200
_ROOM = CALLS_PAGE_BYTES_MAX - 64
"""for rows: what is around them takes the rest"""


async def page(ask: CallsAsk, open_calls: Sequence[Running], history: History) -> bytes:
    """The record of a page; calls that are under way are in the first one only."""
    status = Status(ask.status) if ask.status in set(Status) else None
    limit = max(0, min(ask.limit, ROWS_MAX))
    rows: list[CallRow] = []
    if not ask.before and status in (None, Status.PENDING):
        under_way = (_pending(running) for running in open_calls)
        rows = [row for row in under_way if ask.agent in ("", row.agent) and row.started_unix_ms >= ask.since_unix_ms]
    places = [0] * len(rows)
    if status is not Status.PENDING and len(rows) < limit:
        found = await history.recent(
            None if not ask.agent else frozenset({ask.agent}),
            None,
            status=status,
            limit=limit - len(rows),
            since=ask.since_unix_ms / 1000,
            before=ask.before or NEWEST,
        )
        rows += [_ended(kept) for _, kept in found]
        places += [place for place, _ in found]
    fitting = _fitting(rows[:limit])
    more = len(fitting) == limit or len(fitting) < len(rows)
    before = places[len(fitting) - 1] if fitting and more else 0
    return record.encode(CallsPage(rows=tuple(fitting), before=before, lost=history.lost, kept=history.on))


def _fitting(rows: Sequence[CallRow]) -> list[CallRow]:
    """As many as one message holds."""
    fitting, room = [], _ROOM
    for row in rows:
        room -= len(record.encode(row))
        if room < 0:
            break
        fitting.append(row)
    return fitting


def _pending(running: Running) -> CallRow:
    request, agent, principal, call = running.request, running.agent, running.principal, running.call
    age = time.monotonic() - request.arrived
    return CallRow(
        request_id=request.id,
        trace_id=running.trace.id,
        agent=agent.id if agent is not None else "",
        tag=None if running.tag is None else text(running.tag),
        subject=text(principal.subject) if principal is not None else "",
        status=Status.PENDING.value,
        outcome="",
        cause=None,
        detail=None,
        started_unix_ms=int((time.time() - age) * 1000),
        microseconds=int(age * 1e6),
        queue_microseconds=int((call.started - request.arrived) * 1e6) if call is not None and call.started else None,
        request_bytes=len(call.asked.arguments) if call is not None else None,
        result_bytes=running.result_bytes,
        chunks=running.chunks,
        door=request.door,
        peer=request.peer[:64],
        instance=(call.instance or None) if call is not None else None,
        client=None if request.client is None else client(request.client),
    )


def _ended(kept: Kept) -> CallRow:
    row = kept.row
    return CallRow(
        request_id=kept.id,
        trace_id=row.trace or kept.id.replace("-", ""),
        agent=kept.agent,
        tag=row.tag,
        subject=kept.subject,
        status=kept.status.value,
        outcome=row.outcome,
        cause=row.cause,
        detail=None if row.detail is None else row.detail[:DETAIL_CHARACTERS_MAX],
        started_unix_ms=row.at // 1000,
        microseconds=row.micros,
        queue_microseconds=row.queue_micros,
        request_bytes=row.request_bytes,
        result_bytes=row.result_bytes,
        chunks=row.chunks,
        door=row.door,
        peer=row.peer,
        instance=row.instance,
        client=row.client,
    )
