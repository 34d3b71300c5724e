"""Whether a folder may be served as the agent that it says it is: what stands in that place, and beside it.

Runs as: the supervisor.
Reads from strangers: ids and names, which a folder chooses for itself; policies, tokens and callers trust them.
"""

from __future__ import annotations

from collections.abc import Mapping

from runagentd.errors import ConfigurationError, Problem
from runagentd.supervise.agent import Agent
from runagentd.supervise.homes import Homes
from runagentd.supervise.store import Deployed, Store
from runagentd.wire import admin
from runagentd.wire.manifest import Manifest
from runagentd.wire.versions import ALIASES_MAX


class Places:
    """Compares what is to be deployed with what there is. `served` are the supervisor's agents."""

    def __init__(self, *, store: Store, homes: Homes, served: Mapping[str, Agent]) -> None:
        self._store = store
        self._homes = homes
        self._served = served

    def check(self, request: admin.Deploy, manifest: Manifest, *, origin: str) -> None:
        """ConfigurationError where the folder at `origin` may not be served as what it says it is."""
        where = f"{request.folder}: agent_id"
        if request.replaces and manifest.agent_id != request.replaces:
            raise ConfigurationError(
                Problem(
                    where,
                    f"{manifest.agent_id!r} is another agent than the folder was before, {request.replaces!r}",
                    ("an agent keeps its agent_id, or without one its name; start 'serve' again for another agent",),
                )
            )
        kept = self._store.find(manifest.agent_id)
        if kept is not None and kept.stays and not request.keep:
            raise ConfigurationError(
                Problem(
                    where,
                    f"{manifest.agent_id!r} is deployed",
                    (
                        "make another version of it: 'runagentctl deploy DIR', while 'runagentd serve' runs",
                        "or end it: 'runagentctl remove AGENT'",
                    ),
                )
            )
        if manifest.agent_id in self._served and not request.replaces and not request.keep:
            raise ConfigurationError(
                Problem(
                    where,
                    f"{manifest.agent_id!r} is served already",
                    ("give each agent an agent_id, or at least a name, of its own",),
                )
            )
        if len({*request.aliases, *(kept.aliases if kept is not None else ())}) > ALIASES_MAX and request.aliases:
            raise ConfigurationError(Problem("--alias", f"an agent has at most {ALIASES_MAX} aliases"))
        self.check_name(request, manifest)
        if request.keep and request.take_over:
            return
        if request.keep and kept is not None and _is_taken(kept, origin, managed_by=request.managed_by):
            what = f"{manifest.agent_name!r} is taken: {_came_from(kept)}"
            raise ConfigurationError(Problem(where, what, _TAKE_OVER[bool(request.managed_by)]))
        if reason := self._homes.kept_by_another(manifest.agent_id, origin):
            hints = (_GIVE[bool(request.managed_by)],) if request.keep else ()
            raise ConfigurationError(Problem(where, reason, hints))

    def check_name(self, request: admin.Deploy, manifest: Manifest) -> None:
        """ConfigurationError where another agent that is served stands in the way of this one's id or name."""
        for other in self._served.values():
            if reason := _taken(manifest, other.deployment.manifest, {choice.agent for choice in request.policies}):
                raise ConfigurationError(Problem(f"{request.folder}: agent_id", reason))


_TAKE_OVER = {
    False: (
        "--take-over has this folder serve in its place: its calls go there, and what it has kept",
        "or call this one otherwise: --name NAME",
    ),
    True: (
        "'runagentctl apply --take-over' has this file manage it: its calls go to this folder, and what it has kept",
        "or write another name into the file",
    ),
}
_GIVE = {
    False: "or --take-over gives it to this folder",
    True: "or 'runagentctl apply --take-over' gives it to this folder",
}
"""By whether it is an agent file that asks."""


def _is_taken(kept: Deployed, origin: str, *, managed_by: str) -> bool:
    """Whether somebody else has this agent serve than who asks now.

    What a folder calls itself is its author's choice, so that alone moves no calls from one folder to another. An agent
    file is the operator's own word for a folder: it may change that for its own agent, and be moved. What was deployed
    by hand, or brought by `serve`, does not become a file's by itself, not even from the same folder: the next prune
    would remove it.
    """
    if not managed_by:
        return not kept.came_from(origin)
    return not kept.managed_by or (kept.managed_by != managed_by and not kept.came_from(origin))


def _came_from(kept: Deployed) -> str:
    if kept.managed_by:
        return f"{kept.managed_by} has it serve from {kept.origin!r}"
    if not kept.stays:
        return f"'runagentd serve' has brought it from {kept.origin!r}"
    return f"it was deployed by hand from {kept.origin!r}"


def _taken(one: Manifest, other: Manifest, chosen: set[str]) -> str:
    """Why one agent may not call itself so beside the other; "" where it may. `chosen` have policies of their own.

    Two agents may share a name as long as nothing is decided by it: a policy that the operator meant for one of them,
    or a call to an id that is the other's name, would reach the wrong one.
    """
    if one.agent_id == other.agent_id:
        return ""
    if text := _like_an_alias(one, other) or _like_an_alias(other, one):
        return f"{text!r} could be taken for an alias of {text.rpartition('@')[0]!r}"
    if one.agent_id == other.agent_name or one.agent_name == other.agent_id:
        return f"the id of one agent is the name of another: {other.agent_name!r} ({other.agent_id!r})"
    if one.agent_name == other.agent_name and one.agent_name in chosen:
        return f"two agents are named {one.agent_name!r}, and --policy names one: use its agent_id"
    return ""


def _like_an_alias(one: Manifest, other: Manifest) -> str:
    """The id or name of one agent where it looks as if it led to a version of the other; "" where it does not."""
    texts = (text for text in (one.agent_id, one.agent_name) if "@" in text)
    return next((text for text in texts if text.rpartition("@")[0] in (other.agent_id, other.agent_name)), "")
