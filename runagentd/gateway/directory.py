"""Which agents there are: by id, by a name that only one has, and by the aliases of their versions.

Runs as: the gateway. Pure.
Reads from strangers: names from requests, which are only looked up. How long that takes says nothing of what there is.
"""

from __future__ import annotations

from collections.abc import Sequence

from runagentd.gateway.agents import Agent


class Directory:
    """All agents, by id, and by a name that only one of them has."""

    def __init__(self) -> None:
        self._by_id: dict[str, Agent] = {}
        self._by_identity: dict[str, Agent] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._aliases: frozenset[str] = frozenset()

    def find(self, identity: str) -> Agent | None:
        """The agent of this id, or of this name where no other has it; of AGENT@ALIAS that version of it."""
        return self._by_identity.get(identity)

    def names_a_version(self, identity: str) -> bool:
        """Whether it is AGENT@ALIAS: which version has the call is not drawn by lot then."""
        return identity in self._aliases

    def names(self, identity: str) -> tuple[str, ...]:
        """What a scope may call the agent of this id or name: its id, and its name where no other has it.

        Two also where there is one or no agent: how long it takes to compare them must not say which.
        """
        return self._names.get(identity, (identity, identity))

    def find_id(self, agent_id: str) -> Agent | None:
        """The agent of this id."""
        return self._by_id.get(agent_id)

    def add(self, agent: Agent) -> None:
        """Serve one more agent, or one under a new name."""
        self._by_id[agent.id] = agent
        self.index()

    def remove(self, agent_id: str) -> Agent | None:
        """Serve one fewer."""
        agent = self._by_id.pop(agent_id, None)
        self.index()
        return agent

    def all(self) -> Sequence[Agent]:
        """Every agent, in the order in which they came."""
        return tuple(self._by_id.values())

    def every_version(self) -> Sequence[Agent]:
        """Every agent, and the versions beside it that get a part of its calls."""
        return tuple(each for agent in self.all() for each in (agent, *agent.split.sides.values()))

    def find_version(self, agent_id: str, side: int) -> Agent | None:
        """The agent of this id; where `side` is not 0, that version of it."""
        agent = self._by_id.get(agent_id)
        return agent if agent is None or not side else agent.split.sides.get(side)

    def index(self) -> None:
        """Find everything by its names again: versions, or what leads to them, have changed.

        Every name is in one table, those of versions, too: to look for one that is there takes as long as for another.
        """
        names = [agent.name for agent in self._by_id.values()]
        by_name = {agent.name: agent for agent in self._by_id.values() if names.count(agent.name) == 1}
        self._by_identity = {**by_name, **self._by_id}
        self._names = {
            identity: (agent.id, agent.name if agent.name in by_name else agent.id)
            for identity, agent in self._by_identity.items()
        }
        versions = {
            f"{identity}@{alias}": (identity, agent if side == 0 else agent.split.sides[side])
            for identity, agent in self._by_identity.items()
            for alias, side in agent.split.aliases.items()
            if side == 0 or side in agent.split.sides
        }
        self._aliases = frozenset(versions.keys() - self._by_identity.keys())
        for name in self._aliases:
            identity, version = versions[name]
            self._by_identity[name] = version
            self._names[name] = self._names[identity]  # a scope is for an agent, whichever version has the call
