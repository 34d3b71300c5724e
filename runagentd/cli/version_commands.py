"""`runagentctl versions`, `rollback`, `promote`, `traffic`, `alias` and `remove`: which version of an agent serves.

Runs as: root.
Reads from strangers: names that an agent's author chose; control characters never reach the terminal.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import TypeVar

from runagentd.cli import table
from runagentd.cli.quantities import age
from runagentd.foreman import admin_client
from runagentd.log import complain, escape
from runagentd.state import StateDirectory
from runagentd.wire import admin

R = TypeVar("R")

PROMOTE_SECONDS = 600.0
"""A version of which no instance is there starts one first, for as long as its policy lets it."""
_COLUMNS = ("VERSION", "DIGEST", "POLICY", "CREATED", "STATE", "TRAFFIC", "INSTANCES", "ALIASES")
_DIGITS = 12


def versions(directory: StateDirectory, agent: str, *, as_json: bool) -> int:
    """A row for each version that is kept, the newest first; the exit status."""
    reply = _ask(directory, admin.VersionsAsk(agent=agent), admin.Versions)
    if as_json:
        print(json.dumps(dataclasses.asdict(reply), indent=2))
        return 0
    now_ms = time.time_ns() // 1_000_000
    table.show(_COLUMNS, [_cells(row, now_ms) for row in reply.rows])
    if reply.problem:
        complain(f"{escape(reply.agent_name)} is not served: {escape(reply.problem)}")
    elif not reply.stays:
        print(f"{escape(reply.agent_name)} goes with the 'serve' that brought it")
    if reply.managed_by:
        print(f"{escape(reply.agent_name)} is managed by {escape(reply.managed_by)}")
    return 0


def _cells(row: admin.VersionRow, now_ms: int) -> tuple[str, ...]:
    left = max(0, row.warm_until_unix_ms - now_ms) / 1000
    return (
        f"v{row.number}",
        row.version[:_DIGITS] or "-",
        escape(row.policy) or "-",
        f"{age((now_ms - row.created_unix_ms) / 1000)} ago" if row.created_unix_ms else "-",
        escape(row.state) + (f" for {age(left)}" if row.warm_until_unix_ms else ""),
        f"{row.percent} %",
        str(row.instances),
        ", ".join(row.aliases) or "-",
    )


def promote(directory: StateDirectory, agent: str, version: str, *, as_json: bool) -> int:
    """Have a version serve, the one that served before where `version` is empty; the exit status."""
    reply = _ask(directory, admin.Promote(agent=agent, version=version), admin.Promoted, seconds=PROMOTE_SECONDS)
    if as_json:
        print(json.dumps(dataclasses.asdict(reply), indent=2))
        return 0
    name = escape(reply.agent_name)
    if reply.number == reply.before:
        print(f"{name}: v{reply.number} serves already; nothing has changed")
        return 0
    how = "at once: it was kept warm" if reply.warm else "after one of it had started"
    print(f"{name}: v{reply.number} serves, in the place of v{reply.before}, {how}")
    for key in reply.wider:
        print(f"  its policy is wider: {escape(key)}")
    return 0


def traffic(
    directory: StateDirectory, agent: str, shares: Sequence[tuple[str, int]], *, errors_max: int, as_json: bool
) -> int:
    """Have calls go to several versions; the exit status."""
    wanted = tuple(admin.WantedShare(version=version, percent=percent) for version, percent in shares)
    request = admin.Divide(agent=agent, shares=wanted, errors_max=errors_max)
    reply = _ask(directory, request, admin.Divided, seconds=PROMOTE_SECONDS)
    if as_json:
        wider = {f"v{side.number}": side.keys for side in reply.wider}
        print(json.dumps({"agent": agent, "traffic": dict(shares), "errors_max": errors_max, "wider": wider}))
        return 0
    print(f"{escape(agent)}: " + ", ".join(f"{escape(version)} {percent} %" for version, percent in shares))
    if len(shares) > 1 and errors_max < 100:
        print(f"  a version of whose calls more than {errors_max} % fail gets none any more ('runagentctl events')")
    for side in reply.wider:
        for key in side.keys:
            print(f"  the policy of v{side.number} is wider than that of the version that serves: {escape(key)}")
    return 0


def alias(directory: StateDirectory, agent: str, name: str, version: str, *, as_json: bool) -> int:
    """Have an alias lead to a version, or to none; the exit status."""
    _ask(directory, admin.SetAlias(agent=agent, alias=name, version=version), admin.Done)
    facts = {"agent": agent, "alias": name, "version": version or None}
    words = f"is {escape(version)}" if version else "is no more"
    print(json.dumps(facts) if as_json else f"{escape(agent)}: {escape(name)} {words}")
    return 0


def remove(directory: StateDirectory, agent: str, version: str, *, as_json: bool) -> int:
    """Forget an agent, or one version of it; the exit status."""
    _ask(directory, admin.Remove(agent=agent, version=version), admin.Done)
    facts = {"agent": agent, "version": version or None}
    what = f"{escape(version)} is forgotten" if version else "served no more; what it has kept stays"
    print(json.dumps(facts) if as_json else f"{escape(agent)}: {what}")
    return 0


def _ask(directory: StateDirectory, request: admin.Request, kind: type[R], *, seconds: float = 30.0) -> R:
    return admin_client.told(admin_client.ask(directory.admin_socket, request, seconds=seconds), kind)
