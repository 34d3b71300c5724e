"""`runagentctl cache stats|purge`: the gateway's response cache.

Runs as: root.
Reads from strangers: counters of a gateway that may be captured, which are numbers, and names that agents' authors
chose; control characters never reach the terminal.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

from runagentd.cli import table
from runagentd.foreman import admin_client
from runagentd.log import escape
from runagentd.state import StateDirectory
from runagentd.wire import admin

_COLUMNS = ("AGENT", "ENTRIES", "BYTES", "HITS", "STALE", "MISSES", "JOINED", "STORED", "EVICTED")


def show(directory: StateDirectory, *, purge: bool, agent: str, tag: str, as_json: bool) -> int:
    """Print what is in it; with `purge`, after throwing it away."""
    reply = admin_client.told(
        admin_client.ask(directory.admin_socket, admin.CacheAsk(purge=purge, agent=agent, tag=tag)),
        admin.CacheState,
        admin_client.WHICH_AGENTS,
    )
    if as_json:
        print(json.dumps(dataclasses.asdict(reply)))
        return 0
    if purge:
        print(f"purged: {reply.purged} entries")
    names = _names(directory)
    rows = [(names.get(row.agent, row.agent), *dataclasses.astuple(row)[1:]) for row in reply.rows]
    table.show(_COLUMNS, [tuple(escape(str(value)) for value in row) for row in rows])
    print(f"{reply.size} of {reply.size_max} bytes are used")
    return 0


def _names(directory: StateDirectory) -> dict[str, str]:
    """Agents' names by their ids, where no other has the same: what the table says can be typed."""
    names = {row.agent: row.agent_name for row in admin_client.instances(directory.admin_socket).instances}
    called = Counter(names.values())
    return {identity: name for identity, name in names.items() if called[name] == 1}
