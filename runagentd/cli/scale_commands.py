"""`runagentctl restart`, `warm` and `scale`: other instances, or more, or fewer.

Runs as: root.
Reads from strangers: nothing; the names of agents are the operator's to type.
"""

from __future__ import annotations

import json
from typing import TypeVar

from runagentd.foreman import admin_client
from runagentd.log import escape
from runagentd.state import StateDirectory
from runagentd.wire import admin

R = TypeVar("R")


def restart(directory: StateDirectory, agent: str, *, as_json: bool) -> int:
    """End an agent's instances and start others at once; the exit status."""
    _ask(directory, admin.Restart(agent=agent), admin.Done)
    _say({"restarted": agent}, f"{escape(agent)}: restarting", as_json=as_json)
    return 0


def warm(directory: StateDirectory, agent: str, instances: int, *, as_json: bool) -> int:
    """Have that many instances now; the exit status."""
    scaled = _ask(directory, admin.Warm(agent=agent, instances=instances), admin.Scaled)
    fewer = f", no more may be (scale, scaling.instances_max: {scaled.maximum})" if scaled.warm < instances else ""
    _say(
        {"agent": agent, "warm": scaled.warm, "maximum": scaled.maximum},
        f"{escape(agent)}: {_instances(scaled.warm)} for the idle time of its policy{fewer}",
        as_json=as_json,
    )
    return 0


def scale(directory: StateDirectory, agent: str, bounds: tuple[int, int], *, as_json: bool) -> int:
    """Other bounds, the least and the most; the exit status."""
    minimum, maximum = bounds
    scaled = _ask(directory, admin.Scale(agent=agent, minimum=minimum, maximum=maximum), admin.Scaled)
    _say(
        {"agent": agent, "minimum": scaled.minimum, "maximum": scaled.maximum},
        f"{escape(agent)}: from {scaled.minimum} to {_instances(scaled.maximum)}, until the daemon starts again",
        as_json=as_json,
    )
    return 0


def _ask(directory: StateDirectory, request: admin.Request, kind: type[R]) -> R:
    # Bounds that the policy does not allow are not the fault of the agent's name.
    hints = () if isinstance(request, admin.Scale) else (admin_client.WHICH_AGENTS,)
    return admin_client.told(admin_client.ask(directory.admin_socket, request), kind, *hints)


def _say(facts: dict[str, object], sentence: str, *, as_json: bool) -> None:
    print(json.dumps(facts) if as_json else sentence)


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count} instances"
