"""The supervisor: what is deployed, what runs, and who may ask.

Runs as: root, child subreaper, in an empty network namespace and a mount namespace of its own.
Reads from strangers: a gateway that may be captured (wire.control), manifests of a loader that may be (wire.manifest),
and per instance one ready byte and one exit record. Never HTTP, never JSON or YAML of a tenant, never what an instance
prints.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from runagentd.errors import ConfigurationError, HostError
from runagentd.log import Log
from runagentd.plan.build import AgentFolders, Identity, build, neutral_mounts, spare_steps
from runagentd.plan.facts import HostFacts
from runagentd.plan.model import SandboxPlan
from runagentd.plan.seccomp import SyscallFilter, builder_filter, filter_for, reaper_filter
from runagentd.plan.syscalls import SyscallTable
from runagentd.policy.digest import policy_digest
from runagentd.policy.model import CallIsolation, History, Policy
from runagentd.state import StateDirectory
from runagentd.supervise import code, host_folders, libseccomp
from runagentd.supervise.admin_server import AdminServer
from runagentd.supervise.agent import Agent
from runagentd.supervise.answers import Answers
from runagentd.supervise.build import Builder
from runagentd.supervise.cgroup import CgroupHost
from runagentd.supervise.deploy import Deployer
from runagentd.supervise.environment_collector import EnvironmentCollector
from runagentd.supervise.environment_store import EnvironmentStore
from runagentd.supervise.environments import Environments
from runagentd.supervise.events import Events
from runagentd.supervise.figures import Counters, FigureTeller
from runagentd.supervise.gateway_link import GatewayLink, connect
from runagentd.supervise.homes import Homes
from runagentd.supervise.identity import SHOWN_DIGITS
from runagentd.supervise.instance import Instance, Surroundings
from runagentd.supervise.lifecycle import State
from runagentd.supervise.mounts import MountMaker
from runagentd.supervise.pool import SparePool
from runagentd.supervise.pools import Pools
from runagentd.supervise.pressure import PressureWatch
from runagentd.supervise.questions import Questions
from runagentd.supervise.runtimes import Runtimes
from runagentd.supervise.spawn import new_channel
from runagentd.supervise.splits import Splits
from runagentd.supervise.standby import Standbys
from runagentd.supervise.store import Store
from runagentd.supervise.trust_teller import TrustTeller
from runagentd.supervise.version import Version
from runagentd.supervise.zygote import Zygote, package
from runagentd.uids import Leases
from runagentd.wire import control, packages, record
from runagentd.wire.admin import EventKind
from runagentd.wire.runtime import PythonRuntime
from runagentd.wire.settings import SupervisorSettings

_DRAIN_MS = 8_000
CONNECT_SECONDS = 0.02
"""Between the end of a gateway, and an attempt to reach the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a supervisor was started."""

    loader_uid: int
    spares: int
    standbys: int
    fresh: bool
    """forget what was deployed before: the foreman deploys anew"""


class Supervisor:
    """Everything the supervisor owns, and the two doors to it."""

    def __init__(
        self,
        *,
        state: StateDirectory,
        store: Store,
        options: Options,
        facts: HostFacts,
        cgroups: CgroupHost,
        leases: Leases,
        mounts: MountMaker,
        syscalls: SyscallTable,
        admin_listener: socket.socket,
        relay: Callable[[packages.Relay, Sequence[int]], None],
        log: Log,
    ) -> None:
        """`relay` tells the egress process where connections of a builder are to lead."""
        self._log = log
        self._options = options
        self._facts = facts
        self._runtimes = Runtimes(facts.python)
        self._mounts = mounts
        self._leases = leases
        self._cgroups = cgroups
        self._syscalls = syscalls
        self._state = state
        self._store = store
        self._homes = Homes(state.agents)
        self._unserved: dict[str, str] = {}
        """agents that are deployed and could not be served at the start, and why"""
        self._agents: dict[str, Agent] = {}
        self._link: GatewayLink | None = None
        self._said_hello = False
        self._complete = not options.fresh
        """whether the agents that are known are all there are to be from the start"""
        self._trust = TrustTeller(state.keys, send=self._tell_gateway, log=log)
        self._questions = Questions(there=lambda: self._link is not None and self._said_hello, send=self._tell_gateway)
        self._drained: asyncio.Future[None] | None = None
        self._filters: dict[Policy, SyscallFilter] = {}
        self._programs: dict[int, tuple[SyscallFilter, bytes]] = {}
        self._codes: dict[PythonRuntime, int] = {}
        self._coding = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._events = Events()
        self._counters = Counters()
        self._figures = FigureTeller(
            self._counters,
            agents=lambda: self._agents.values(),
            sides=lambda agent: self._splits.sides(agent),
            spares=lambda: self._pools.ready,
            pressed=lambda: self._pressure.pressed,
        )
        self._standbys = Standbys(options.standbys)
        self._pressure = PressureWatch(self._pressure_changed, log)
        self._zygote_group = cgroups.create("zygote")
        self._zygotes: Counter[PythonRuntime] = Counter()
        """that were started"""
        self._reaper_program = libseccomp.compile(reaper_filter(syscalls))
        self._connecting: asyncio.TimerHandle | None = None
        self._pools = Pools(facts.python, make=self._make_pool, in_use=self._runtimes_in_use)
        environment_store = EnvironmentStore(state.environments)
        self._environments = Environments(
            store=environment_store,
            builder=Builder(
                cgroups=cgroups,
                leases=leases,
                program=functools.cache(lambda: libseccomp.compile(builder_filter(syscalls))),
                jail=state.path / "jail",
                relay=relay,
                log=log,
            ),
            installer_version=functools.partial(version, "uv"),
            log=log,
        )
        self._collector = EnvironmentCollector(
            store=environment_store,
            needed=self._store.environments,
            keep_seconds=lambda: self._environments.settings.keep,
            log=log,
        )
        self._deployer = Deployer(
            store=self._store,
            homes=self._homes,
            environments=self._environments,
            runtimes=self._runtimes,
            served=self._agents,
            loader_uid=options.loader_uid,
            try_plan=self._try_plan,
            serve=self._serve,
            try_call=self._questions.try_call,
            sides=lambda agent: self._splits.sides(agent),
            announce=lambda agent: self._announce(agent),
            switched=self._switched,
            remove=self._remove,
        )
        self._around = Surroundings(
            pool=self._pools.of,
            mounts=mounts,
            build=self._build,
            absent=self._absent,
            program=self._program,
            code=self._code,
            offer=self._offer,
            announce=lambda agent: self._announce(self._agents[agent]),
            retire=lambda agent, keep: self._tell_gateway(control.Retire(agent=agent.id, keep=keep, side=agent.side)),
            died=lambda agent: self._splits.died(agent.id, agent.side),
            gone=self._tell_gateway,
            proven=self._counters.proven,
            pressed=lambda: self._pressure.pressed,
            standbys=self._standbys,
            events=self._events,
            log=log,
        )

        self._splits = Splits(
            store=self._store,
            deployer=self._deployer,
            served=self._agents,
            around=self._around,
            introduce=self._introduce,
            announce=self._announce,
            removed=lambda agent, side: self._tell_gateway(control.AgentRemoved(agent=agent, side=side)),
            log=log,
        )
        answers = Answers(
            agents=self._agents,
            unserved=self._unserved,
            store=store,
            deployer=self._deployer,
            splits=self._splits,
            pools=self._pools,
            runtimes=self._runtimes,
            collector=self._collector,
            events=self._events,
            figures=self._figures,
            questions=self._questions,
            trust=self._trust,
            announce=self._announce,
            all_deployed=self._all_deployed,
        )
        self._admin = AdminServer(admin_listener, answers.answer, log)

    # ---- life

    async def run(self) -> None:
        """Serve until `stop`; nothing of any instance is left afterwards."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        if self._options.fresh:
            self._store.forget_passing()
        self._events.add(EventKind.STARTED)
        known = self._store.agents()
        for name in self._homes.sweep({agent: self._store.codes(agent) for agent in known}):
            self._log.warning(
                "an agent that the 'serve' of an earlier version brought is not served: serve its folder again",
                folder=name,
            )
        self._environments.discard_unfinished()
        self._pools.own.refill()
        for agent in known:
            await self._deployer.reread(agent)
            self._restore(agent)
        if self._complete:
            self._collector.start()
        self._connect_gateway()
        self._pressure.start()
        self._admin.start()
        try:
            await self._stopping.wait()
            await self._drain()
        finally:
            await self._admin.close()
            self._deployer.close()
            self._pressure.close()
            if self._connecting is not None:
                self._connecting.cancel()
            await asyncio.gather(*(agent.stop() for agent in self._all()))
            await self._collector.close()
            await self._pools.close()
            if self._link is not None:
                self._link.close()
                self._link = None
            await asyncio.to_thread(self._zygote_group.end)
            self._cgroups.remove()
            self._trust.close()
            self._store.close()

    def configure(self, settings: SupervisorSettings) -> None:
        """What the operator's file says, at the start and whenever it is read again."""
        self._environments.settings = settings.packages
        self._runtimes.configure(settings.runtimes)
        for agent in self._all():
            for each in agent.versions():
                each.runtime = self._runtimes.renewed(each.runtime)
            agent.give_up_outdated_standby()
        self._collector.look()

    def stop(self) -> None:
        """Drain, then end; called again while it drains, end at once."""
        if self._stopping.is_set() and self._drained is not None and not self._drained.done():
            self._log.info("told to end again: the open calls are ended now")
            self._drained.set_result(None)
        self._stopping.set()

    async def _drain(self) -> None:
        if self._link is None or not self._said_hello:
            return
        self._drained = asyncio.get_running_loop().create_future()
        self._link.send(control.Drain(grace_ms=_DRAIN_MS))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_MS / 1000 + 0.5):
                await self._drained

    def _reap(self) -> None:
        """Reap what the kernel gave us: the zygote, and the orphans of one that died."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                return
            if ended is None:
                return
            self._pools.reaped(ended.si_pid)

    def _make_pool(self, runtime: PythonRuntime) -> SparePool:
        facts = self._facts_of(runtime)
        self._zygotes.pop(runtime, None)
        return SparePool(
            size=self._options.spares,
            cgroups=self._cgroups,
            leases=self._leases,
            steps=spare_steps(facts, in_advance=False),
            steps_in_advance=spare_steps(facts, in_advance=True),
            make_mounts=functools.partial(self._mounts.make, neutral_mounts(facts), None),
            start_zygote=functools.partial(self._start_zygote, runtime),
            reaper_program=self._reaper_program,
            new_pid_namespace=True,
            log=self._log,
            python=self._runtimes.shown(runtime),
        )

    def _runtimes_in_use(self) -> set[PythonRuntime]:
        return {version.runtime for agent in self._all() for version in agent.versions()}

    def _facts_of(self, runtime: PythonRuntime) -> HostFacts:
        return dataclasses.replace(self._facts, python=runtime)

    def _start_zygote(self, runtime: PythonRuntime, on_end: Callable[[], None]) -> Zygote:
        if self._zygotes[runtime]:
            shown = self._runtimes.shown(runtime)
            self._events.add(EventKind.ZYGOTE, f"that of Python {shown}" if shown else "")
        self._zygotes[runtime] += 1
        procs = self._zygote_group.procs_fds()
        try:
            return Zygote(runtime, self._state.path / "jail", procs, on_end)
        finally:
            for descriptor in procs:
                os.close(descriptor)

    # ---- plans

    def _build(self, policy: Policy, runtime: PythonRuntime, identity: Identity, folders: AgentFolders) -> SandboxPlan:
        filter = self._filters.get(policy)
        if filter is None:
            filter = self._filters[policy] = filter_for(policy, self._syscalls)
        return build(policy, self._facts_of(runtime), identity, folders, filter)

    def _absent(self, policy: Policy) -> frozenset[str]:
        return host_folders.absent(policy, self._state.path)

    def _program(self, plan: SandboxPlan) -> bytes:
        """The plan's filter as BPF, compiled once: building one takes milliseconds, and comparing two nearly one."""
        known = self._programs.get(id(plan.filter))
        if known is None:
            # With the filter, so that no other object can ever have its id.
            known = self._programs[id(plan.filter)] = (plan.filter, libseccomp.compile(plan.filter))
        return known[1]

    async def _code(self, runtime: PythonRuntime) -> int:
        """The descriptor of what fresh interpreters run, made for the first one: 60 ms, by another runtime 400."""
        async with self._coding:
            if runtime not in self._codes:
                other = runtime.interpreter if runtime != self._runtimes.own else ""
                self._codes[runtime] = await asyncio.to_thread(code.sealed_zip, package(), other)
        return self._codes[runtime]

    # ---- the gateway

    def _connect_gateway(self) -> None:
        """To the socket on which the gateway listens; between two gateways the connection waits there for the next."""
        self._connecting = None
        connection = connect(self._state.control_socket)
        if connection is None:
            self._connect_later()
            return
        self._link = GatewayLink(connection, on_message=self._from_gateway, on_end=self._gateway_ended, log=self._log)

    def _connect_later(self) -> None:
        self._connecting = asyncio.get_running_loop().call_later(CONNECT_SECONDS, self._connect_gateway)

    def _gateway_ended(self, link: GatewayLink) -> None:
        if self._link is not link:
            return
        self._link = None
        if self._said_hello:
            self._events.add(EventKind.GATEWAY_LOST)
        self._said_hello = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        for agent in self._all():
            agent.demand(0)  # its calls went with it; the next one says what it needs
        if not self._stopping.is_set():
            self._connect_later()

    def _from_gateway(self, link: GatewayLink, message: control.FromGateway) -> None:
        match message:
            case control.Hello():
                if message.version != control.CONTROL_VERSION or self._said_hello:
                    self._log.error("the gateway speaks another version", version=message.version)
                    link.close()
                    return
                self._said_hello = True
                self._counters.gateways += 1
                self._events.add(EventKind.GATEWAY)
                self._trust.start()
                for agent in self._all():
                    self._introduce(agent)
                if self._pressure.pressed:
                    link.send(control.HostPressed(pressed=True))
                if self._complete:
                    link.send(control.AllIntroduced())
            case control.InstanceReady():
                if (found := self._find(message.instance)) is not None:
                    found[1].described(message.describe)
            case control.InstanceFailed():
                if (found := self._find(message.instance)) is not None:
                    found[1].failed_to_load(message.report)
            case control.ReplaceInstance():
                if (found := self._find(message.instance)) is not None:
                    found[0].replace(found[1], message.cause)
            case control.Retired():
                if (found := self._find(message.instance)) is not None:
                    found[0].retired(found[1])
            case control.Idle():
                if (found := self._find(message.instance)) is not None and self._cgroups.freezes:
                    found[1].freeze()
            case control.Wake():
                if (found := self._find(message.instance)) is not None:
                    found[1].thaw()
            case control.AskFigures():
                for page in self._figures.pages():
                    link.send(control.FiguresTold(number=message.number, figures=page))
            case control.Demand():
                owner = self._splits.sides(message.agent).get(message.side) if message.side else None
                owner = owner or (self._agents.get(message.agent) if not message.side else None)
                if owner is not None:
                    owner.demand(message.instances)
            case control.Outcomes():
                self._splits.told(message)
            case control.TrustTaken():
                if not self._trust.taken(message.epoch):
                    link.close()
            case control.ApiKeysUsed():
                self._trust.used(message.ids)
            case control.CacheAnswer() | control.CallsAnswer() | control.TrafficAnswer() | control.Tried():
                self._questions.answered(message)
            case control.Drained():
                if self._drained is not None and not self._drained.done():
                    self._drained.set_result(None)

    def _find(self, instance: str) -> tuple[Agent, Instance] | None:
        for agent in self._all():
            found = agent.instances.get(instance)
            if found is not None:
                return agent, found
        return None

    def _all(self) -> list[Agent]:
        """Every agent, and then the versions beside it that get a part of its calls."""
        return [*self._agents.values(), *self._splits.all()]

    def _introduce(self, agent: Agent) -> None:
        """Tell a new gateway of an agent and all its instances, or a known one of a new agent."""
        self._announce(agent)
        for instance in agent.instances.values():
            if instance.state in (State.IMPORTING, State.READY):
                self._offer(instance)

    def _announce(self, agent: Agent) -> None:
        self._tell_gateway(
            control.AgentServed(
                agent=agent.id,
                # The environment may hold keys of the agent's: they are the runner's, and nobody else's.
                manifest=record.encode(dataclasses.replace(agent.deployment.manifest, environment=())),
                version=agent.deployment.version,
                generation=agent.version.generation,
                policy=agent.policy.name,
                policy_digest=policy_digest(agent.policy),
                limits=self._call_limits(agent.policy),
                scaling=control.Scaling(
                    minimum=agent.minimum, maximum=agent.maximum, target=agent.policy.scaling.target
                ),
                leaving=agent.leaving(),
                side=agent.side,
                shares=() if agent.side else self._splits.shares(agent.id),
                aliases=() if agent.side else self._aliases(agent),
            )
        )

    def _aliases(self, agent: Agent) -> tuple[control.Alias, ...]:
        """Those that lead to a version that can be called now."""
        known = self._store.find(agent.id)
        rows = sorted(known.aliases.items()) if known is not None else []
        sides = {share.side for share in self._splits.shares(agent.id)}
        return tuple(
            control.Alias(name=alias, side=0 if number == agent.version.number else number)
            for alias, number in rows
            if number == agent.version.number or number in sides
        )

    def _switched(self, agent: Agent, kind: EventKind, wider: Sequence[str]) -> None:
        self._splits.end(agent)
        self._announce(agent)
        agent.note(kind, _words(agent))
        self._log.info("another version serves", agent=agent.id, version=_words(agent))
        agent.note_wider(agent.version.number, wider)

    def _call_limits(self, policy: Policy) -> control.CallLimits:
        calls = policy.calls
        return control.CallLimits(
            concurrency=calls.concurrency,
            queue=calls.queue,
            deadline_ms=calls.deadline,
            cancel_grace_ms=calls.cancel_grace,
            request_bytes=calls.request_bytes,
            result_bytes=calls.result_bytes,
            traceback=calls.traceback,
            log_line_bytes=calls.log_line_bytes,
            log_bytes_per_minute=calls.log_bytes_per_minute,
            history_contents=calls.history is History.CONTENT,
            one_by_one=calls.isolation is CallIsolation.CALL,
            one_caller=calls.one_caller,
            idle_ms=policy.scaling.idle,
            freeze_ms=policy.scaling.freeze if self._cgroups.freezes else 0,
        )

    def _offer(self, instance: Instance) -> None:
        """Give the gateway an instance: the channel made at launch, or a new one for a new gateway."""
        launched = instance.launched
        if self._link is None or not self._said_hello or launched is None:
            return
        if instance.version.policy.calls.one_caller and launched.channel is None:
            # Whom it has served only the gateway knew that had it: the next one would take it for nobody's.
            instance.kill(control.Cause.GATEWAY_LOST)
            return
        instance.thaw()  # a new channel is the runner's to take
        try:
            channel = launched.channel if launched.channel is not None else new_channel(launched)
        except OSError as error:
            self._log.error("a runner does not take a new channel", agent=instance.agent_id, reason=error)
            instance.kill(control.Cause.PROTOCOL)
            return
        launched.channel = None
        try:
            with channel:
                self._link.send(
                    control.InstanceOffered(
                        instance=instance.id,
                        agent=instance.agent_id,
                        generation=instance.version.generation,
                        limits=self._call_limits(instance.version.policy),
                        side=instance.side,
                    ),
                    (channel.fileno(), launched.stdout, launched.stderr),
                )
        except OSError as error:  # no descriptor left to duplicate
            self._log.error("an instance cannot be offered to the gateway", agent=instance.agent_id, reason=error)
            instance.kill(control.Cause.OPERATOR)

    def _pressure_changed(self) -> None:
        self._tell_gateway(control.HostPressed(pressed=self._pressure.pressed))
        if self._pressure.pressed:
            self._standbys.give_up_all()
        self._events.add(EventKind.PRESSED if self._pressure.pressed else EventKind.RELIEVED)
        for agent in self._all():
            agent.look()

    def _tell_gateway(self, message: control.FromSupervisor) -> None:
        """To the gateway that is there; what a later one has to know, it is told when it says hello."""
        if self._link is not None and self._said_hello:
            self._link.send(message)

    # ---- agents

    def _all_deployed(self) -> None:
        """What is to be served from the start is there: the gateway's list of agents is complete."""
        if not self._complete:
            self._tell_gateway(control.AllIntroduced())
        self._complete = True
        self._collector.start()

    async def _remove(self, agent: Agent, cause: control.Cause) -> None:
        """Serve it no more, because of that; nothing of its instances is left when this returns."""
        self._agents.pop(agent.id)
        agent.note(EventKind.REMOVED)
        self._tell_gateway(control.AgentRemoved(agent=agent.id))
        await self._splits.stop(agent.id, cause)
        await agent.stop(cause)

    def _try_plan(self, policy: Policy) -> None:
        """ConfigurationError or HostError where no plan can be made of a policy: to be heard of now, not in a loop."""
        folders = AgentFolders(environments=(), persistent=(), absent=self._absent(policy))
        self._build(policy, self._runtimes.own, Identity(uid=1, instance="0" * 16), folders)

    def _restore(self, agent_id: str) -> None:
        """Serve what was served before this supervisor; or say of which agent that is not possible, and why."""
        reason = ""
        known = self._store.find(agent_id)
        release = known.releases.get(known.serving) if known is not None else None
        if release is None:
            unread = known.unread.get(known.serving) if known is not None else None
            reason = unread.reason if unread is not None else "the version that served is not there"
        else:
            try:
                self._serve(self._deployer.restored(release)).start()
                if known is not None and known.shares:
                    self._splits.restore(known)
            except (ConfigurationError, HostError, OSError) as error:
                reason = str(error)
        if reason:
            self._unserved[agent_id] = reason
            self._events.add(EventKind.NOT_RESTORED, reason, agent=agent_id)
            self._log.error("an agent is not served again", agent=agent_id, reason=reason)

    def _serve(self, version: Version) -> Agent:
        agent = self._agents[version.deployment.manifest.agent_id] = Agent(version, self._around)
        self._unserved.pop(agent.id, None)
        self._introduce(agent)
        policy = version.policy
        agent.note(EventKind.SERVED, _words(agent))
        self._log.info("an agent is served", agent=agent.id, policy=policy.name, digest=policy_digest(policy)[:12])
        return agent


def _words(agent: Agent) -> str:
    """Which version serves, for people."""
    version = agent.version
    number = f"v{version.number}, " if version.number else ""
    return f"{number}version {version.deployment.version[:SHOWN_DIGITS]}, policy {version.policy.name}"
