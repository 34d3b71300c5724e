"""`runagentctl calls [AGENT]`: the last calls, and those that are under way.

Runs as: root.
Reads from strangers: names, tags and the like, in records that a gateway made which may be captured. They are asked of
it, by way of the supervisor, and not read from its database: root has no SQLite open a file of the gateway's, and a
record is parsed by a few strict lines (`wire.record`). Control characters never reach the terminal.
"""

from __future__ import annotations

import dataclasses
import json
import time

from runagentd.cli import arguments, table
from runagentd.errors import ConfigurationError, HostError, Problem
from runagentd.foreman import admin_client
from runagentd.log import complain, escape, utc
from runagentd.state import StateDirectory
from runagentd.wire import admin
from runagentd.wire.record import RecordError

LIMIT_MAX = 100_000
_CELL = 40
_COLUMNS = ("TIME", "AGENT", "TAG", "SUBJECT", "OUTCOME", "MS", "QUEUE MS", "IN", "OUT", "REQUEST ID")


def calls(directory: StateDirectory, *, agent: str, status: str, since: str | None, limit: int, as_json: bool) -> int:
    """Print them, the last one last; the exit status."""
    if not 1 <= limit <= LIMIT_MAX:
        raise ConfigurationError(Problem("--limit", f"must be from 1 to {LIMIT_MAX}, not {limit}"))
    since_unix_ms = 0
    if since is not None:
        since_unix_ms = time.time_ns() // 1_000_000 - 1000 * arguments.duration(since, "--since")
    names = {row.agent: row.agent_name for row in admin_client.instances(directory.admin_socket).instances}
    if agent and agent not in names and agent not in names.values():
        complain(f"runagentctl: no agent has the id or the name {escape(agent)} now; its history is looked for by id")
    rows: list[admin.CallRow] = []
    before = 0
    while len(rows) < limit:
        ask = admin.CallsAsk(
            agent=agent, status=status, since_unix_ms=since_unix_ms, before=before, limit=limit - len(rows)
        )
        page = _ask(directory, ask)
        rows += page.rows
        before = page.before
        if not before or not page.rows:
            break
    if not page.kept:
        complain('runagentctl: calls are not kept: [history] in runagentd.toml says "0"; these are under way')
    if page.lost:
        complain(f"runagentctl: {page.lost} calls are missing: they could not be written down")
    rows.reverse()
    if as_json:
        for row in rows:
            print(json.dumps(dataclasses.asdict(row)))
    else:
        table.show(_COLUMNS, [_cells(row, names) for row in rows])
    return 0


def _ask(directory: StateDirectory, ask: admin.CallsAsk) -> admin.CallsPage:
    told = admin_client.told(admin_client.ask(directory.admin_socket, ask), admin.CallsTold)
    try:
        return admin.parse_page(told.page)
    except RecordError as error:
        raise HostError(f"the gateway's answer cannot be read: {error}") from error


def _cells(row: admin.CallRow, names: dict[str, str]) -> tuple[str, ...]:
    outcome = row.outcome or row.status
    return (
        utc(row.started_unix_ms / 1000) if 0 <= row.started_unix_ms < 2**47 else "-",
        _cell(names.get(row.agent, row.agent)),
        _cell(row.tag),
        _cell(row.subject),
        _cell(f"{outcome} ({row.cause})" if row.cause is not None else outcome),
        _milliseconds(row.microseconds),
        _milliseconds(row.queue_microseconds),
        "-" if row.request_bytes is None else str(row.request_bytes),
        str(row.result_bytes),
        _cell(row.request_id),
    )


def _cell(text: str | None) -> str:
    shown = escape(text) if text else "-"
    return shown if len(shown) <= _CELL else shown[: _CELL - 1] + "…"


def _milliseconds(microseconds: int | None) -> str:
    return "-" if microseconds is None else f"{microseconds / 1000:.1f}"
