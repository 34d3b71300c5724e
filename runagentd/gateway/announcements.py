"""What the supervisor says, carried out: agents appear and go, instances are taken over, service drains.

Runs as: the gateway.
Reads from strangers: a manifest, whose text an agent's author wrote; `wire.record` checks its form.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine

from runagentd import errors
from runagentd.errors import Refusal
from runagentd.gateway import trial
from runagentd.gateway.agents import Agent
from runagentd.gateway.control import close_all
from runagentd.gateway.directory import Directory
from runagentd.gateway.guard.trust import Trust
from runagentd.gateway.instances import Instance
from runagentd.gateway.kept.cache import Cache
from runagentd.gateway.output import Output
from runagentd.log import Log
from runagentd.wire import record
from runagentd.wire.admin import CacheRow, CacheState, CallsAsk
from runagentd.wire.control import (
    AgentRemoved,
    AgentServed,
    AllIntroduced,
    ApiKeysGone,
    ApiKeysKnown,
    CacheAnswer,
    CacheQuestion,
    CallsAnswer,
    CallsQuestion,
    Demand,
    Drain,
    Drained,
    FiguresTold,
    FromGateway,
    FromSupervisor,
    HostPressed,
    InstanceGone,
    InstanceOffered,
    Retire,
    Revoked,
    TrafficAnswer,
    TrafficQuestion,
    Tried,
    TrustedKeys,
    TrustTaken,
    TrustTold,
    TryCall,
)
from runagentd.wire.manifest import MANIFEST_BYTES, Manifest

AGENTS_SHOWN_MAX = 500
INTRODUCTION_SECONDS = 2.0
"""How long a call waits in a fresh gateway that does not know yet which agents there are."""


class Announcements:
    """Implements `control.Listener`. `online` and `draining` are what /readyz looks at."""

    def __init__(
        self,
        directory: Directory,
        output: Output,
        log: Log,
        *,
        trust: Trust,
        send: Callable[[FromGateway], None],
        trust_changed: Callable[[], None],
        cache: Cache,
        calls: Callable[[CallsAsk], Awaitable[bytes]],
        traffic: Callable[[TrafficQuestion], bytes],
    ) -> None:
        self._directory = directory
        self._trust = trust
        self._trust_changed = trust_changed
        self._cache = cache
        self._calls = calls
        self._traffic = traffic
        self._output = output
        self._log = log
        self._send = send
        self._announced: set[tuple[str, int]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._introduced = asyncio.Event()
        self._pressed = False
        self.figures: Callable[[FiguresTold], None] = lambda message: None
        """who wants to know what the supervisor counts"""
        self.supervisors = 0
        """that have been here"""
        self.online = False
        self.draining = False
        self.drained = asyncio.Event()

    # ---- Listener

    def connected(self) -> None:
        # Not yet online: the foreman holds the listening socket, which takes connections while no supervisor runs.
        self.supervisors += 1
        self._announced.clear()
        self._trust.begin()

    def disconnected(self) -> None:
        self.online = False
        for agent in self._directory.every_version():
            agent.supervisor_away()

    def received(self, message: FromSupervisor, descriptors: list[int]) -> None:
        if isinstance(message, InstanceOffered):
            self._on_offered(message, descriptors)
            return
        close_all(descriptors)
        match message:
            case AgentServed():
                self._on_served(message)
            case AgentRemoved():
                self._on_removed(message.agent, message.side)
            case InstanceGone():
                agent = self._directory.find_version(message.agent, message.side)
                if agent is not None:
                    agent.gone(message)
                self._log.info(
                    "instance gone",
                    agent=message.agent,
                    instance=message.instance,
                    cause=message.cause.value,
                    detail=message.detail,
                )
            case AllIntroduced():
                self._forget_silent()
                self._introduced.set()
                self.online = True
                self._log.info("the supervisor has named its agents", agents=len(self._announced))
            case TrustedKeys() | ApiKeysKnown() | ApiKeysGone() | Revoked():
                self._trust.tell(message)
            case TrustTold():
                self._trust.apply()
                self._trust_changed()
                self._send(TrustTaken(epoch=message.epoch))
            case FiguresTold():
                self.figures(message)
            case Retire():
                agent = self._directory.find_version(message.agent, message.side)
                if agent is not None:
                    agent.retire(message.keep)
            case HostPressed():
                self._pressed = message.pressed
                for agent in self._directory.every_version():
                    agent.pressed = message.pressed
            case CacheQuestion():
                self._send(CacheAnswer(number=message.number, state=self._cache_state(message)))
            case CallsQuestion():
                self._start(self._tell_calls(message))
            case TrafficQuestion():
                self._send(TrafficAnswer(number=message.number, page=self._traffic(message)))
            case TryCall():
                self._start(self._try_call(message))
            case Drain():
                self.drain(message.grace_ms / 1000)

    @property
    def introduced(self) -> bool:
        """Whether the supervisor has named every agent."""
        return self._introduced.is_set()

    async def know_agents(self) -> None:
        """Return once the supervisor has named every agent; `Refusal` where it does not in time.

        A gateway that was just started again would otherwise say of every agent that there is none.
        """
        if self._introduced.is_set():
            return
        try:
            async with asyncio.timeout(INTRODUCTION_SECONDS):
                await self._introduced.wait()
        except TimeoutError:
            raise Refusal(errors.UNAVAILABLE, "the daemon is starting", retry_after=1) from None

    # ---- one function a message

    def _on_served(self, served: AgentServed) -> None:
        try:
            manifest = record.decode(Manifest, served.manifest, bytes_max=MANIFEST_BYTES)
        except record.RecordError as error:
            self._log.error("a manifest cannot be read", agent=served.agent, problem=str(error))
            return
        self._announced.add((served.agent, served.side))
        if served.side:
            self._on_side(served, manifest)
            return
        agent = self._directory.find_id(served.agent)
        if agent is None:
            agent = Agent(served, manifest, send=self._send, log=self._log)
            agent.pressed = self._pressed
        else:
            if (agent.version, agent.policy_digest) != (served.version, served.policy_digest):
                self._cache.purge(agent.id)  # nothing of another version is ever found again
            agent.announce(served, manifest)
        self._directory.add(agent)

    def _on_side(self, served: AgentServed, manifest: Manifest) -> None:
        """A version beside the one that serves: found through that one, and by nobody else."""
        main = self._directory.find_id(served.agent)
        if main is None:
            self._log.error("a version of an agent that is not there", agent=served.agent, version=served.version)
            return
        side = main.split.sides.get(served.side)
        if side is None:
            main.split.sides[served.side] = side = Agent(
                served,
                manifest,
                send=functools.partial(self._send_of, served.side),
                log=self._log,
                tally=main.split.tally,
            )
            side.pressed = self._pressed
            self._directory.index()
        else:
            side.announce(served, manifest)

    def _send_of(self, side: int, message: FromGateway) -> None:
        self._send(dataclasses.replace(message, side=side) if isinstance(message, Demand) else message)

    def _on_removed(self, agent_id: str, side: int = 0) -> None:
        if side:
            main = self._directory.find_id(agent_id)
            agent = main.split.sides.pop(side, None) if main is not None else None
            self._directory.index()
        else:
            agent = self._directory.remove(agent_id)
        if agent is not None:
            agent.removed()

    def _on_offered(self, offered: InstanceOffered, descriptors: list[int]) -> None:
        agent = self._directory.find_version(offered.agent, offered.side)
        if agent is None or len(descriptors) != 3:
            close_all(descriptors)
            self._log.error("an instance cannot be taken", agent=offered.agent, instance=offered.instance)
            return
        channel, stdout, stderr = descriptors
        instance = Instance(agent, offered.instance, generation=offered.generation, limits=offered.limits)
        agent.offered(instance)
        self._output.follow(agent, offered.instance, stdout=stdout, stderr=stderr)
        self._start(self._open_channel(instance, channel))

    async def _open_channel(self, instance: Instance, descriptor: int) -> None:
        try:
            connection = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)
            instance.lost()
            return
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: instance.channel, sock=connection)
        except (OSError, ValueError):
            connection.close()
            instance.lost()

    def _cache_state(self, question: CacheQuestion) -> CacheState:
        purged = self._cache.purge(question.agent, question.tag) if question.purge else 0
        rows = []
        for agent, counts in list(self._cache.counts.items())[:AGENTS_SHOWN_MAX]:
            if question.agent in ("", agent):
                entries, size = self._cache.entries_of(agent)
                rows.append(CacheRow(agent=agent, entries=entries, size=size, **dataclasses.asdict(counts)))
        return CacheState(size=self._cache.size, size_max=self._cache.bytes_max, purged=purged, rows=tuple(rows))

    async def _tell_calls(self, question: CallsQuestion) -> None:
        try:
            page = await self._calls(question.ask)
        except Refusal:
            return  # the history has said in the log what is wrong with it, and the supervisor waits for a while only
        self._send(CallsAnswer(number=question.number, page=page))

    async def _try_call(self, question: TryCall) -> None:
        main = self._directory.find_id(question.agent)
        versions = [main, *main.split.sides.values()] if main is not None else []
        agent = next((each for each in versions if question.instance in each.instances), None)
        self._send(Tried(number=question.number, problem=await trial.problem(agent, question)))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forget_silent(self) -> None:
        for agent in self._directory.every_version():
            if (agent.id, agent.side) not in self._announced:
                self._on_removed(agent.id, agent.side)

    # ---- the end of service

    def close(self) -> None:
        """Let go of every instance."""
        for agent in self._directory.all():
            agent.removed()
        self._output.close()

    def drain(self, grace_seconds: float) -> None:
        """Take no more calls; when the open ones have ended, or at the end of the grace, say `Drained`."""
        if self.draining:
            return
        self.draining = True
        self._log.info("draining", grace_seconds=grace_seconds)
        self._start(self._drain(grace_seconds))

    async def _drain(self, grace_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_seconds
        while loop.time() < end and any(agent.waiting or agent.open_calls() for agent in self._directory.all()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for agent in self._directory.every_version():
            agent.cancel_all("drain")
        await asyncio.sleep(0)  # the answers of those calls are written by their own tasks
        self._send(Drained())
        self.drained.set()
