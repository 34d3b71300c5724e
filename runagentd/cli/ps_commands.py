"""`runagentctl ps` and `restart`: what runs, as the supervisor knows it.

Runs as: root.
Reads from strangers: names that agents gave themselves; control characters never reach the terminal.
"""

from __future__ import annotations

import dataclasses
import json
import time

from runagentd.cli import table
from runagentd.errors import HostError
from runagentd.foreman import admin_client
from runagentd.log import escape
from runagentd.state import StateDirectory
from runagentd.wire import admin

_COLUMNS = ("AGENT", "STATE", "POLICY", "PID", "UID", "UP", "MEMORY", "TASKS", "RESTARTS", "LAST END")


def ps(directory: StateDirectory, *, as_json: bool) -> int:
    """Print a row per agent; the exit status."""
    reply = admin_client.ask(directory.admin_socket, admin.ListInstances())
    if not isinstance(reply, admin.Instances):
        raise HostError("the supervisor answered something else than was asked")
    if as_json:
        print(json.dumps(dataclasses.asdict(reply), indent=2))
        return 0
    now_ms = time.time_ns() // 1_000_000
    table.show(_COLUMNS, [_cells(row, now_ms) for row in reply.instances])
    return 0


def restart(directory: StateDirectory, agent: str, *, as_json: bool) -> int:
    """End an agent's instance and start the next at once; the exit status."""
    reply = admin_client.ask(directory.admin_socket, admin.Restart(agent=agent))
    if isinstance(reply, admin.Failed):
        raise HostError(reply.message, "'runagentctl ps' lists the agents")
    if as_json:
        print(json.dumps({"restarted": agent}))
    else:
        print(f"{escape(agent)}: restarting")
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
        _duration((now_ms - row.started_unix_ms) // 1000),
        f"{_mebibytes(row.memory_bytes)}/{_mebibytes(row.memory_max)} MiB",
        str(row.pids),
        str(row.restarts),
        row.last_cause or "-",
    )


def _mebibytes(size: int) -> str:
    return f"{size / (1024 * 1024):.0f}"


def _duration(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
