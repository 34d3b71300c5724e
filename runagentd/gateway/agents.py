"""The agents that are served: found by id or name, each with its instances and its bounded queue of calls.

Runs as: the gateway.
Reads from strangers: nothing; names from requests are only looked up.
A call is in exactly one place: in its agent's queue, or open on one instance. It leaves the queue in the very moment
in which a place becomes free, so no lease can be lost between two tasks.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence

from runagentd import errors
from runagentd.errors import ErrorKind, Refusal
from runagentd.gateway.calls import Call, State
from runagentd.gateway.describe import Description
from runagentd.gateway.instances import Instance, Phase
from runagentd.log import Log
from runagentd.wire.control import AgentServed, Cause, FromGateway, InstanceGone
from runagentd.wire.manifest import Entrypoint, Manifest

PATIENCE_SECONDS = 10.0
"""How long calls wait while no instance is even starting."""
RETRY_SOON_SECONDS = 2.0
"""A next start that is further away than this is not waited for."""

_NOT_READY: dict[Cause, ErrorKind] = {Cause.IMPORT: errors.IMPORT, Cause.START_TIMEOUT: errors.IMPORT}


class Agent:
    """One served agent. Implements `InstanceOwner`."""

    def __init__(
        self, served: AgentServed, manifest: Manifest, *, send: Callable[[FromGateway], None], log: Log
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._send = send
        self._log = log
        self._waiting: deque[Call] = deque()
        self._outage: Refusal | None = None
        self._patience: asyncio.TimerHandle | None = None
        self.instances: dict[str, Instance] = {}
        self.description: Description | None = None
        self.announce(served, manifest)
        self._expect_instance(PATIENCE_SECONDS)

    def announce(self, served: AgentServed, manifest: Manifest) -> None:
        """Take over what the supervisor says about this agent."""
        self.id = served.agent
        self.version = served.version
        self.policy = served.policy
        self.policy_digest = served.policy_digest
        self.limits = served.limits
        self.manifest = manifest
        self.entrypoints: dict[str, Entrypoint] = {entrypoint.tag: entrypoint for entrypoint in manifest.entrypoints}

    @property
    def name(self) -> str:
        """What its configuration calls it."""
        return self.manifest.agent_name

    def deadline_ms(self, tag: str) -> int:
        """How long a call of this entrypoint may take: what the policy says, or its author where that is less."""
        limit, own = self.limits.deadline_ms, self.entrypoints[tag].timeout_ms
        return limit if own is None else min(limit, own)

    def state(self) -> str:
        """For people: ready, starting, or unavailable."""
        phases = {instance.phase for instance in self.instances.values()}
        if Phase.READY in phases:
            return "ready"
        return "starting" if Phase.STARTING in phases and self._outage is None else "unavailable"

    # ---- calls

    def submit(self, call: Call) -> None:
        """Send a call, or queue it; `Refusal` where the queue is full or nothing is to be waited for."""
        instance = self._with_place()
        if instance is None:
            if self._outage is not None and not self._alive():
                raise self._again(self._outage)
            if self.waiting >= self.limits.queue:
                raise Refusal(errors.OVERLOADED, f"all places are taken and {self.waiting} calls wait", retry_after=1)
        call.timer = self._loop.call_at(call.asked.deadline, self._deadline, call)
        if instance is None:
            self._waiting.append(call)
        else:
            self._start(call, instance)

    def abandon(self, call: Call, reason: str) -> None:
        """The caller wants no answer any more; harmless for a call that has ended."""
        if call.state is State.WAITING:
            call.close()
            if call in self._waiting:
                self._waiting.remove(call)
        elif call.state is State.OPEN:
            instance = self.instances.get(call.instance)
            if instance is not None:
                instance.stop(call, reason)
        call.end(Refusal(errors.CANCELLED, errors.CANCELLED.title, cause=reason))

    def _deadline(self, call: Call) -> None:
        call.timer = None
        waited = call.state is State.WAITING
        where = "while it waited for a free place" if waited else "while its function ran"
        call.end(Refusal(errors.TIMEOUT, f"{errors.TIMEOUT.title} {where}", cause="deadline"))
        self.abandon(call, "deadline")

    def _start(self, call: Call, instance: Instance) -> None:
        try:
            instance.start(call)
        except ValueError:
            call.close()
            call.end(Refusal(errors.TOO_LARGE, "the arguments do not fit into one frame"))

    def _with_place(self) -> Instance | None:
        for instance in self.instances.values():
            if instance.has_place():
                return instance
        return None

    def _alive(self) -> bool:
        return any(instance.phase in (Phase.STARTING, Phase.READY) for instance in self.instances.values())

    @property
    def waiting(self) -> int:
        """How many calls have no place yet."""
        return len(self._waiting) + sum(instance.ahead() for instance in self.instances.values())

    def open_calls(self) -> int:
        """How many calls were sent and have not stopped."""
        return sum(len(instance.channel.open_calls) for instance in self.instances.values())

    # ---- InstanceOwner

    def instance_ready(self, instance: Instance, description: Description) -> None:
        self.description = description
        self._outage = None
        self.place_free(instance)

    def place_free(self, instance: Instance) -> None:
        while self._waiting and instance.has_place():
            self._start(self._waiting.popleft(), instance)

    def instance_over(self, instance: Instance, unstarted: list[Call]) -> None:
        self.instances.pop(instance.name, None)
        for call in reversed(unstarted):
            call.state = State.WAITING
            self._waiting.appendleft(call)
        if not self.instances:
            self._expect_instance(PATIENCE_SECONDS)

    def tell_supervisor(self, message: FromGateway) -> None:
        self._send(message)

    def note(self, event: str, **fields: object) -> None:
        self._log.warning(event, agent=self.id, **fields)

    # ---- what the supervisor says

    def offered(self, instance: Instance) -> None:
        """An instance is there, and will be ready or fail."""
        before = self.instances.get(instance.name)
        if before is not None:
            before.drop("the instance was offered again")
        self.instances[instance.name] = instance
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def gone(self, message: InstanceGone) -> None:
        """An instance has ended, perhaps one that was never offered."""
        instance = self.instances.get(message.instance)
        failure = None
        if instance is not None:
            failure = instance.failure
            instance.gone(message.cause, message.detail)
        if self._alive():
            return
        kind = _NOT_READY.get(message.cause)
        retry_after = message.retry_after_ms / 1000
        if kind is not None:
            self._close(
                Refusal(
                    kind, failure or message.detail or kind.title, cause=message.cause.value, retry_after=retry_after
                )
            )
        elif retry_after > RETRY_SOON_SECONDS:
            self._close(_unavailable(message.detail, message.cause, retry_after))
        else:
            self._expect_instance(PATIENCE_SECONDS)

    def supervisor_away(self) -> None:
        """All instances that were known are no longer ours to use."""
        for instance in list(self.instances.values()):
            instance.drop("the daemon's supervisor was restarted")
        self._expect_instance(PATIENCE_SECONDS)

    def cancel_all(self, reason: str) -> None:
        """Cancel every call, those in the queue and those that are open."""
        calls = [
            *self._waiting,
            *(call for instance in self.instances.values() for call in instance.channel.open_calls.values()),
        ]
        for call in calls:
            self.abandon(call, reason)

    def removed(self) -> None:
        """This agent is served no more."""
        for instance in list(self.instances.values()):
            instance.drop("the agent is served no more")
        self._close(Refusal(errors.AGENT_NOT_FOUND, "the agent is served no more"))
        if self._patience is not None:
            self._patience.cancel()

    def _expect_instance(self, seconds: float) -> None:
        if self._patience is None:
            self._patience = self._loop.call_later(seconds, self._no_instance)

    def _no_instance(self) -> None:
        self._patience = None
        if not self._alive():
            self._close(_unavailable("", None, 1.0))

    def _close(self, outage: Refusal) -> None:
        """No call is taken until an instance is there, and those that wait are told so."""
        self._outage = outage
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.close()
            call.end(self._again(outage))

    @staticmethod
    def _again(outage: Refusal) -> Refusal:
        """A fresh exception with the same words: one object raised twice would grow a traceback for ever."""
        return Refusal(
            outage.kind,
            outage.message,
            hint=outage.hint,
            cause=outage.cause,
            retry_after=max(1.0, math.ceil(outage.retry_after or 1)),
        )


def _unavailable(detail: str, cause: Cause | None, retry_after: float) -> Refusal:
    message = f"{errors.UNAVAILABLE.title}: {detail}" if detail else errors.UNAVAILABLE.title
    return Refusal(errors.UNAVAILABLE, message, cause=None if cause is None else cause.value, retry_after=retry_after)


class Directory:
    """All agents, by id, and by a name that only one of them has."""

    def __init__(self) -> None:
        self._by_id: dict[str, Agent] = {}
        self._by_name: dict[str, Agent] = {}
        self._names: dict[str, tuple[str, ...]] = {}

    def find(self, identity: str) -> Agent | None:
        """The agent of this id, or of this name where no other has it."""
        return self._by_id.get(identity) or self._by_name.get(identity)

    def names(self, agent: Agent) -> tuple[str, ...]:
        """What a scope may call it: its id, and its name where no other has it."""
        return self._names.get(agent.id, (agent.id,))

    def find_id(self, agent_id: str) -> Agent | None:
        """The agent of this id."""
        return self._by_id.get(agent_id)

    def add(self, agent: Agent) -> None:
        """Serve one more agent, or one under a new name."""
        self._by_id[agent.id] = agent
        self._index()

    def remove(self, agent_id: str) -> Agent | None:
        """Serve one fewer."""
        agent = self._by_id.pop(agent_id, None)
        self._index()
        return agent

    def all(self) -> Sequence[Agent]:
        """Every agent, in the order in which they came."""
        return tuple(self._by_id.values())

    def _index(self) -> None:
        names = [agent.name for agent in self._by_id.values()]
        self._by_name = {agent.name: agent for agent in self._by_id.values() if names.count(agent.name) == 1}
        self._names = {
            agent.id: (agent.id, agent.name) if self._by_name.get(agent.name) is agent else (agent.id,)
            for agent in self._by_id.values()
        }
