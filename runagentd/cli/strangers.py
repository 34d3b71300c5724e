"""Point out what new credentials name and the running daemon does not know: most likely a slip of the pen.

Runs as: root.
Reads from strangers: names that folders gave their agents, which are compared and not shown.

A note and no refusal: credentials may be made before the agent is deployed, or the role is configured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from runagentd.errors import ConfigurationError, HostError
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


def note_roles(named: Path | None, roles: Sequence[str]) -> None:
    """On standard error, for each that the configuration does not have: `named`, or the usual file as for `serve`."""
    if not roles:
        return
    # Only here: it reads all that a configuration can say.
    from runagentd.config import load

    path = load.configured(named)
    try:
        known = {role.name for role in load.load(path).settings.roles} if path is not None else set()
    except ConfigurationError as error:
        complain(f"note: which roles there are is not known, and none was looked up\n{error}")
        return
    where = f"{escape(str(path))} has" if path is not None else f"there is no {load.DEFAULT}, and so"
    for role in dict.fromkeys(roles):
        if role not in known:
            complain(
                f"note: {where} no role '{escape(role)}'; it allows nothing until it is configured, "
                "and --config names the file that 'runagentd serve' reads"
            )
