"""Point out what new credentials name and the running daemon does not know: most likely a slip of the pen.

Runs as: root.
Reads from strangers: names that folders gave their agents, which are compared and not shown.

A note and no refusal: credentials may be made before the agent is deployed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from runagentd.errors import HostError
from runagentd.foreman import admin_client
from runagentd.log import complain, escape
from runagentd.state import StateDirectory


def note_agents(directory: StateDirectory, agents: Sequence[str]) -> None:
    """On standard error, for each that is neither an id nor a name of an agent here; patterns are not looked at."""
    named = [agent for agent in agents if not {"*", "@"} & set(agent)]
    if not named:
        return
    with contextlib.suppress(HostError):  # no daemon runs, and nobody can say
        rows = admin_client.instances(directory.admin_socket).instances
        known = {name for row in rows for name in (row.agent, row.agent_name)}
        for agent in named:
            if agent not in known:
                complain(f"note: no agent '{escape(agent)}' is served here now; {admin_client.WHICH_AGENTS}")
