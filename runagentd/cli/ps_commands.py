"""`runagentctl ps`: what runs, as the supervisor knows it.

Runs as: root.
Reads from strangers: names that agents gave themselves; control characters never reach the terminal.
"""

from __future__ import annotations

import dataclasses
import json
import time

from runagentd.cli import table
from runagentd.cli.quantities import age
from runagentd.foreman import admin_client
from runagentd.log import escape
from runagentd.state import StateDirectory
from runagentd.wire import admin

_COLUMNS = ("AGENT", "STATE", "POLICY", "PID", "UID", "UP", "MEMORY", "TASKS", "RESTARTS", "LAST END")


def ps(directory: StateDirectory, *, as_json: bool) -> int:
    """Print a row for each instance, and for each agent that has none; the exit status."""
    listing = admin_client.instances(directory.admin_socket)
    if as_json:
        facts = dataclasses.asdict(listing)
        del facts["total"]  # they are all there
        print(json.dumps(facts, indent=2))
        return 0
    now_ms = time.time_ns() // 1_000_000
    columns: tuple[str, ...] = _COLUMNS
    rows = [_cells(row, now_ms) for row in listing.instances]
    if any(row.python for row in listing.instances):
        # Only where there is something to tell: most daemons have one Python.
        columns = (*columns, "PYTHON")
        rows = [(*cells, row.python or "-") for cells, row in zip(rows, listing.instances, strict=True)]
    table.show(columns, rows)
    return 0


def _cells(row: admin.InstanceRow, now_ms: int) -> tuple[str, ...]:
    if not row.instance:
        return (
            escape(row.agent_name),
            row.state,
            escape(row.policy),
            "-",
            "-",
            "-",
            "-",
            "-",
            str(row.restarts),
            row.last_cause or "-",
        )
    return (
        escape(row.agent_name),
        row.state,
        escape(row.policy),
        str(row.pid),
        str(row.uid),
        age((now_ms - row.started_unix_ms) / 1000),
        f"{_mebibytes(row.memory_bytes)}/{_mebibytes(row.memory_max)} MiB",
        str(row.pids),
        str(row.restarts),
        row.last_cause or "-",
    )


def _mebibytes(size: int) -> str:
    return f"{size / (1024 * 1024):.0f}"
