"""What an operator asks of the supervisor, over `admin.sock`: which part of it does that, and what it says then.

Runs as: the supervisor.
Reads from strangers: nothing; who asks is root (supervise.admin_server).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from runagentd.errors import ConfigurationError
from runagentd.supervise import releases, shown
from runagentd.supervise.admin_server import Tell
from runagentd.supervise.agent import Agent
from runagentd.supervise.deploy import Deployer
from runagentd.supervise.environment_collector import EnvironmentCollector
from runagentd.supervise.events import Events, TooManyFollowers
from runagentd.supervise.figures import FigureTeller
from runagentd.supervise.pools import Pools
from runagentd.supervise.questions import Questions
from runagentd.supervise.runtimes import Runtimes
from runagentd.supervise.splits import Splits
from runagentd.supervise.store import Deployed, Store
from runagentd.supervise.trust_teller import TrustTeller
from runagentd.wire import admin
from runagentd.wire.admin import EventKind
from runagentd.wire.versions import ALIASES_MAX, MANAGED_ROWS_MAX


def _tell_nobody(text: str) -> None:
    """For who has not asked for progress."""


class Answers:
    """What it is given is the supervisor's. `unserved` has the agents that could not be served at the start, and why.

    `all_deployed` is called when what is to be served from the start is there.
    """

    def __init__(
        self,
        *,
        agents: Mapping[str, Agent],
        unserved: dict[str, str],
        store: Store,
        deployer: Deployer,
        splits: Splits,
        pools: Pools,
        runtimes: Runtimes,
        collector: EnvironmentCollector,
        events: Events,
        figures: FigureTeller,
        questions: Questions,
        trust: TrustTeller,
        announce: Callable[[Agent], None],
        all_deployed: Callable[[], None],
    ) -> None:
        self._agents = agents
        self._unserved = unserved
        self._store = store
        self._deployer = deployer
        self._splits = splits
        self._pools = pools
        self._runtimes = runtimes
        self._collector = collector
        self._events = events
        self._figures = figures
        self._questions = questions
        self._trust = trust
        self._announce = announce
        self._all_deployed = all_deployed

    async def answer(self, request: admin.Request, descriptors: list[int], tell: Tell) -> admin.Reply:
        """The one reply to a request; the descriptors stay the caller's."""
        match request:
            case admin.Deploy():
                if len(descriptors) != 1:
                    return admin.Failed(message="a deploy comes with one folder as a descriptor")
                wanted = tell if request.progress else _tell_nobody
                reply = await self._deployer.deploy(request, descriptors[0], wanted)
                if not request.dry_run:  # of which nothing stays, no event either
                    self._deployed(request, reply)
                    self._collector.look()
                return reply
            case admin.ManagedAsk():
                return self._managed(request.skip)
            case admin.ListInstances():
                all_of_them = [*self._agents.values(), *self._splits.all()]
                return shown.instances(
                    all_of_them,
                    skip=request.skip,
                    pools=self._pools,
                    runtimes=self._runtimes,
                    standbys=sum(agent.has_standby for agent in all_of_them),
                )
            case admin.VersionsAsk() | admin.Promote() | admin.Divide() | admin.Remove() | admin.SetAlias():
                try:
                    return await self._versions(request)
                except ConfigurationError as error:
                    return admin.Failed(message=str(error))
            case admin.Restart() | admin.Warm() | admin.Scale():
                agent = self._by_id_or_name(request.agent)
                if agent is None:
                    return _no_agent(request.agent)
                return self._change(agent, request)
            case admin.AllDeployed():
                self._all_deployed()
                return admin.Done()
            case admin.CacheAsk():
                return await self._ask_cache(request)
            case admin.CallsAsk():
                return await self._ask_calls(request)
            case admin.TrustChanged():
                taken = await self._trust.spread()
                self._events.add(EventKind.TRUST, "" if taken else "the gateway has not taken it over yet")
                return admin.TrustSpread(taken=taken)
            case admin.SettingsChanged():
                self._events.add(EventKind.SETTINGS, "" if request.taken else "not taken over: the file has problems")
                return admin.Done()
            case admin.EventsAsk():
                return await self._tell_events(request)
            case admin.OverviewAsk():
                return await self._overview(request.page)
            case admin.DescribeAsk():
                agent = self._by_id_or_name(request.agent)
                if agent is None:
                    return _no_agent(request.agent)
                found = await self._questions.traffic((agent.id,), detailed=True)
                return shown.described(agent, found, self._runtimes)

    async def _versions(
        self, request: admin.VersionsAsk | admin.Promote | admin.Divide | admin.Remove | admin.SetAlias
    ) -> admin.Reply:
        """What concerns the versions of an agent, served or not; ConfigurationError for what is not there."""
        agent = self._by_id_or_name(request.agent)
        known = self._store.find(agent.id if agent is not None else request.agent)
        if known is None:
            return _no_agent(request.agent)
        match request:
            case admin.VersionsAsk():
                return releases.shown(
                    known, agent, self._splits.sides(known.agent), self._unserved.get(known.agent, "")
                )
            case admin.Divide():
                return await self._splits.divide(known.agent, request)
            case admin.Promote():
                return await self._deployer.promote(known.agent, request.version)
            case admin.SetAlias():
                return self._set_alias(known, request)
            case admin.Remove():
                reply = await self._deployer.remove(known.agent, request.version, managed_by=request.managed_by)
                if not request.version and isinstance(reply, admin.Done):
                    self._unserved.pop(known.agent, None)
                self._collector.look()
                return reply

    def _managed(self, skip: int) -> admin.Managed:
        found = list(self._store.managed().items())
        rows = []
        for agent_id, managed_by in found[max(0, skip) :][:MANAGED_ROWS_MAX]:
            agent = self._agents.get(agent_id)
            name = agent.deployment.manifest.agent_name if agent is not None else agent_id
            rows.append(admin.ManagedRow(agent=agent_id, agent_name=name, managed_by=managed_by))
        return admin.Managed(rows=tuple(rows), total=len(found))

    def _set_alias(self, known: Deployed, request: admin.SetAlias) -> admin.Reply:
        releases.check_alias(request.alias)
        if not request.version and request.alias not in known.aliases:
            return admin.Failed(message=f"{request.alias!r} is no alias of this agent")
        if request.version and request.alias not in known.aliases and len(known.aliases) >= ALIASES_MAX:
            return admin.Failed(message=f"an agent has at most {ALIASES_MAX} aliases")
        number = releases.resolve(known, request.version) if request.version else 0
        for other in self._agents.values():
            theirs = other.deployment.manifest
            for text in (known.agent, *(release.deployment.manifest.agent_name for release in known.releases.values())):
                if f"{text}@{request.alias}" in (theirs.agent_id, theirs.agent_name):
                    return admin.Failed(message=f"there is an agent that is called {text}@{request.alias}")
        self._store.alias(known.agent, request.alias, number)
        if known.agent in self._agents:
            self._announce(self._agents[known.agent])
        return admin.Done()

    def _change(self, agent: Agent, request: admin.Restart | admin.Warm | admin.Scale) -> admin.Reply:
        match request:
            case admin.Restart():
                for each in (agent, *self._splits.sides(agent.id).values()):
                    each.restart()
                return admin.Done()
            case admin.Warm():
                return admin.Scaled(minimum=agent.minimum, maximum=agent.maximum, warm=agent.warm(request.instances))
            case admin.Scale():
                most = agent.policy.scaling.instances_max
                if not 0 <= request.minimum <= request.maximum <= most or not request.maximum:
                    return admin.Failed(
                        message=f"{request.minimum}:{request.maximum} is not within what policy {agent.policy.name} "
                        f"allows: at most {most} (scaling.instances_max), at least 1 as maximum"
                    )
                agent.scale(request.minimum, request.maximum)
                self._announce(agent)
                return admin.Scaled(minimum=agent.minimum, maximum=agent.maximum, warm=0)

    def _deployed(self, request: admin.Deploy, reply: admin.Reply) -> None:
        """Note a deploy that came to nothing; one that did not says so where it is carried out."""
        problem = ""
        match reply:
            case admin.Failed():
                problem = reply.message
            case admin.Deployed() if not reply.ok and reply.problems:
                problem = f"{reply.problems[0].where}: {reply.problems[0].what}"
        if problem:
            served = self._agents.get(request.replaces)
            name = served.deployment.manifest.agent_name if served is not None else ""
            self._events.add(EventKind.NOT_DEPLOYED, problem, agent=request.replaces, agent_name=name)

    async def _tell_events(self, request: admin.EventsAsk) -> admin.Reply:
        agent = self._by_id_or_name(request.agent) if request.agent else None
        # What is served no more still has its events, by its id.
        try:
            return await self._events.tell(request, agent.id if agent is not None else request.agent)
        except TooManyFollowers:
            return admin.Failed(message="too many follow the events already")

    async def _ask_cache(self, request: admin.CacheAsk) -> admin.Reply:
        agent = self._by_id_or_name(request.agent) if request.agent else None
        if request.agent and agent is None:
            return _no_agent(request.agent)
        return await self._questions.cache(
            agent=agent.id if agent is not None else "", tag=request.tag, purge=request.purge
        )

    async def _ask_calls(self, request: admin.CallsAsk) -> admin.Reply:
        agent = self._by_id_or_name(request.agent) if request.agent else None
        # An id that is served no more still has its history.
        return await self._questions.calls(
            dataclasses.replace(request, agent=agent.id if agent is not None else request.agent)
        )

    async def _overview(self, page: int) -> admin.Reply:
        """Figures of a page, and what the gateway counts of the agents on it."""
        pages = self._figures.pages()
        agents = tuple(row.agent for row in pages[page].agents) if 0 <= page < len(pages) else ()
        traffic = await self._questions.traffic(agents, detailed=False)
        found = shown.overview(self._agents, page, self._figures, traffic)
        return found if found is not None else admin.Failed(message=f"there is no page {page}")

    def _by_id_or_name(self, text: str) -> Agent | None:
        if text in self._agents:
            return self._agents[text]
        named = [agent for agent in self._agents.values() if agent.deployment.manifest.agent_name == text]
        return named[0] if len(named) == 1 else None


def _no_agent(named: str) -> admin.Failed:
    return admin.Failed(message=f"no agent has the id or the unique name {named!r}")
