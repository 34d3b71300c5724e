"""Whether a folder may be served as the agent that it says it is: what stands in that place, and beside it.

Runs as: the supervisor.
Reads from strangers: ids and names, which a folder chooses for itself; policies, tokens and callers trust them.
"""

from __future__ import annotations

from collections.abc import Mapping

from runagentd.errors import ConfigurationError, Problem
from runagentd.supervise.agent import Agent
from runagentd.supervise.homes import Homes
from runagentd.supervise.store import Store
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
        if reason := self._homes.kept_by_another(manifest.agent_id, origin):
            raise ConfigurationError(Problem(where, reason))

    def check_name(self, request: admin.Deploy, manifest: Manifest) -> None:
        """ConfigurationError where another agent that is served stands in the way of this one's id or name."""
        for other in self._served.values():
            if reason := _taken(manifest, other.deployment.manifest, {choice.agent for choice in request.policies}):
                raise ConfigurationError(Problem(f"{request.folder}: agent_id", reason))


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
