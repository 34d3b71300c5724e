"""An agent that is served, or a version of one: its instances, and its bounded queue of calls.

Runs as: the gateway.
Reads from strangers: nothing; names from requests are only looked up.
Where an instance serves one caller only, `binding` says which it should be, and `Instance.start` keeps to it.
A call is in exactly one place: in its agent's queue, or open on one instance. It leaves the queue in the very moment
in which a place becomes free, so no lease can be lost between two tasks.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable

from runagentd import errors
from runagentd.errors import ErrorKind, Refusal
from runagentd.gateway import binding
from runagentd.gateway.binding import Leaving
from runagentd.gateway.calls import Call, State
from runagentd.gateway.demand import DemandTeller
from runagentd.gateway.describe import Description
from runagentd.gateway.histogram import Histogram
from runagentd.gateway.instances import AHEAD_AMONG_OTHERS_MAX, AHEAD_MAX, Instance, Phase, Stranger
from runagentd.gateway.queue import FairQueue, Full
from runagentd.gateway.service import ServiceTimes
from runagentd.gateway.split import Split, Tally
from runagentd.log import Log
from runagentd.wire.control import AgentServed, Cause, FromGateway, InstanceGone, Scaling
from runagentd.wire.manifest import Entrypoint, Manifest

PATIENCE_SECONDS = 10.0
"""How long calls wait while no instance is even starting."""
RETRY_SOON_SECONDS = 2.0
"""A next start that is further away than this is not waited for."""

_ALIVE = (Phase.READY, Phase.STARTING)
_NOT_READY: dict[Cause, ErrorKind] = {Cause.IMPORT: errors.IMPORT, Cause.START_TIMEOUT: errors.IMPORT}


class Agent:
    """One served agent. Implements `InstanceOwner`."""

    def __init__(
        self,
        served: AgentServed,
        manifest: Manifest,
        *,
        send: Callable[[FromGateway], None],
        log: Log,
        tally: Tally | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._send = send
        self._log = log
        self._waiting = FairQueue()
        self._service = ServiceTimes()
        self._open = 0
        self._outage: Refusal | None = None
        self._outage_until = 0.0
        self._patience: asyncio.TimerHandle | None = None
        self._ready: list[Instance] = []
        self._demand = DemandTeller(served.agent, instances=self._wanted, send=send)
        self.side = served.side
        """0, or the number of the version that it is, beside the one that serves"""
        self.split: Split[Agent] = Split(tally if tally is not None else Tally(served.agent, send))
        self.cancels = Histogram()
        """from telling a function to stop until it has stopped"""
        self.pressed = False
        """whether the host is short of memory"""
        self.instances: dict[str, Instance] = {}
        self.description: Description | None = None
        self.announce(served, manifest)
        self._expect_instance(PATIENCE_SECONDS)

    def announce(self, served: AgentServed, manifest: Manifest) -> None:
        """Take over what the supervisor says about this agent."""
        self.scaling = served.scaling
        self.generation = served.generation
        self._leaving = {each.generation: each.keep for each in served.leaving}
        self.split.shares = served.shares
        self.split.aliases = {alias.name: alias.side for alias in served.aliases}
        self.id = served.agent
        self.version = served.version
        self.policy = served.policy
        self.policy_digest = served.policy_digest
        self.limits = served.limits
        self.manifest = manifest
        self.entrypoints: dict[str, Entrypoint] = {entrypoint.tag: entrypoint for entrypoint in manifest.entrypoints}
        for instance in self.instances.values():
            self._bound_ahead(instance)
        self._sort_instances()
        self._demand.configure(served.scaling)

    @property
    def name(self) -> str:
        """What its configuration calls it."""
        return self.manifest.agent_name

    def deadline_ms(self, tag: str) -> int:
        """How long a call of this entrypoint may take: what the policy says, or its author where that is less."""
        limit, own = self.limits.deadline_ms, self.entrypoints[tag].timeout_ms
        return limit if own is None else min(limit, own)

    def state(self) -> str:
        """For people: ready, starting, asleep (a call wakes it), or unavailable."""
        if any(instance.phase is Phase.READY for instance in self._ready):
            return "ready"
        if self._outage is not None:
            return "unavailable"
        if self._alive() or self._waiting:
            return "starting"
        return "asleep" if self._may_sleep() else "unavailable"

    # ---- calls

    def submit(self, call: Call) -> None:
        """Send a call, or queue it; `Refusal` where the queue is full or nothing is to be waited for."""
        instance = self._with_place(call.asked.caller)
        if instance is None:
            self._queue(call)
        call.timer = self.loop.call_at(call.asked.deadline, self._deadline, call)
        if instance is not None:
            self._start(call, instance)
        elif self.limits.one_caller:
            self._settle()
        self._demand.look()

    def try_out(self, call: Call, instance: Instance) -> None:
        """Send a call to this instance, whether its version serves or not; what comes of it is the call's to say."""
        call.timer = self.loop.call_at(call.asked.deadline, self._deadline, call)
        self._start(call, instance)

    def _queue(self, call: Call) -> None:
        """Among those that wait, where waiting can be of use."""
        if self._outage is not None and not self._alive():
            # An agent that must have an instance is started again by itself, and that ends the outage. One that may
            # sleep is started by a call, and it is this one, once the delay after the last failure is over.
            if not self._may_sleep() or self.loop.time() < self._outage_until:
                raise self._again(self._outage)
            self._outage = None
        if self.pressed:
            raise Refusal(errors.OVERLOADED, "the host is short of memory, and all places are taken", retry_after=1)
        needed = self._service.least(call.asked.tag)
        call.budget = call.asked.deadline - self.loop.time()
        # Half of the estimate: who is refused would almost surely have waited for nothing. A function that takes longer
        # than its caller allows is not ours to refuse, as long as waiting is not what makes it late.
        if self._ready and needed < call.budget < self._service.wait(len(self._waiting), 1) / 2 + needed:
            wait = self._wait_of(call)
            if call.budget < wait / 2 + needed:
                raise Refusal(
                    errors.OVERLOADED,
                    f"the call would wait for about {wait:.1f} s and could not meet its deadline",
                    retry_after=wait,
                )
        room = max(0, self.limits.queue - self._ahead())
        if not self._alive():
            room = max(1, room)  # whatever may wait for a place: an agent that sleeps is woken by a call that waits
        try:
            leaving = self._waiting.put(call, room)
        except Full:
            raise Refusal(
                errors.OVERLOADED,
                f"all places are taken and {self.waiting} calls wait",
                retry_after=max(1.0, self._wait_of(call)),
            ) from None
        if leaving is not None:
            leaving.close()
            words = "the queue is full, and this caller has more calls in it than others"
            leaving.end(Refusal(errors.OVERLOADED, words, retry_after=max(1.0, self._wait_of(call))))
        if not self._alive():
            self._expect_instance(PATIENCE_SECONDS)

    def _wait_of(self, call: Call) -> float:
        """About how many seconds a call would wait for its place."""
        return self._service.wait(self._waiting.ahead_of(call.asked.caller), self._places())

    def abandon(self, call: Call, reason: str) -> None:
        """The caller wants no answer any more; harmless for a call that has ended."""
        if call.state is State.WAITING:
            call.close()
            self._waiting.remove(call)
            if self.limits.one_caller:
                self._settle()  # what was about to leave for it may stay
            self._demand.look()
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
        except Stranger:
            self._log.error("a call was not sent: its instance serves another caller", instance=instance.name)
            call.close()
            call.end(Refusal(errors.SERVER, errors.SERVER.title))
        else:
            self._open += 1

    def _with_place(self, caller: str) -> Instance | None:
        """Where a call of this caller can go now."""
        if not self.limits.one_caller:
            return self._less_loaded()
        leaving = self._giving_way()
        open_ones = [each for each in self._ready if each.has_place() and each not in leaving]
        return binding.choose(open_ones, caller, self.scaling.target)

    def _less_loaded(self) -> Instance | None:
        """The less loaded of two that are drawn by lot; where both are full, any that is not.

        Two are almost as good as all (Mitzenmacher, "The Power of Two Choices", 2001), and cost the same with a
        thousand instances.
        """
        ready = self._ready
        count = len(ready)
        if count == 1:
            return ready[0] if ready[0].has_place() else None
        if count == 0:
            return None
        one = random.randrange(count)
        other = random.randrange(count - 1)
        first, second = ready[one], ready[other + (other >= one)]
        if second.load < first.load:
            first, second = second, first
        if first.load < self.limits.concurrency and first.has_place():
            return first
        return min((each for each in ready if each.has_place()), key=lambda each: each.load, default=None)

    def _alive(self) -> bool:
        return any(map(self._is_current, self.instances.values()))

    def _is_current(self, instance: Instance) -> bool:
        """Whether calls can be sent to it, now or once it has started."""
        return instance.generation == self.generation and instance.phase in _ALIVE

    def _wanted(self, scaling: Scaling) -> int:
        """How many instances the calls of this moment could use."""
        if self.limits.one_caller:
            return binding.wanted(self._ready, self._waiting.waiting(), scaling.target)
        return -(-(self._open + len(self._waiting)) // scaling.target)

    # ---- instances that serve one caller each

    def _giving_way(self) -> Leaving[Instance]:
        """Those that take no more calls, for callers who wait and could not have another instance."""
        if not self._waiting:
            return Leaving()
        current = [each for each in self.instances.values() if self._is_current(each)]
        nobodys = sum(each.caller is None for each in current)
        return binding.leaving(
            self._ready,
            self._waiting.waiting(),
            coming=nobodys + max(0, self.scaling.maximum - len(current)),
            maximum=self.scaling.maximum,
            concurrency=self.limits.concurrency,
            now=self.loop.time(),
        )

    def _settle(self) -> None:
        """Send what waits to where it may go, and end what has no call and stands in the way of others."""
        while self._waiting:
            leaving = self._giving_way()
            for instance in leaving.ending:
                self._ready.remove(instance)
                instance.give_up(Cause.EVICTED)
            if leaving.ending:
                continue
            waiting = self._waiting.waiting()
            places = [each for each in self._ready if each.has_place() and each not in leaving]
            own = next((each for each in places if each.caller in waiting), None)
            free = own if own is not None else next((each for each in places if each.caller is None), None)
            if free is None:
                break
            among = binding.first_in_line(self._ready, waiting) if free.caller is None else (free.caller,)
            self._start_waiting(self._waiting.take(among), free)
        if not self._alive() and self._waiting:
            self._expect_instance(PATIENCE_SECONDS)

    def unused(self, instance: Instance) -> None:
        if instance in self._ready:
            self._ready.remove(instance)
            self._demand.look_now()
            instance.give_up(Cause.SCALE_DOWN)

    def bound(self) -> int:
        """How many instances have a caller, and take no calls of others."""
        return sum(each.caller is not None for each in self._ready)

    def _may_sleep(self) -> bool:
        return self.scaling.minimum == 0

    def _places(self) -> int:
        """How many calls can run at a time."""
        return max(1, len(self._ready)) * self.limits.concurrency

    def _ahead(self) -> int:
        return sum(instance.ahead() for instance in self._ready)

    @property
    def waiting(self) -> int:
        """How many calls have no place yet, those of all versions together."""
        return len(self._waiting) + self._ahead() + sum(side.waiting for side in self.split.sides.values())

    def open_calls(self) -> int:
        """How many calls were sent and have not stopped, those of all versions together."""
        return self._open + sum(side.open_calls() for side in self.split.sides.values())

    # ---- InstanceOwner

    def instance_ready(self, instance: Instance) -> None:
        if instance.generation != self.generation:
            # Of a version that is tried: called once the supervisor says that it is the one that serves.
            if instance.generation in self._leaving:
                self._leave_if_idle(instance)
            return
        self._take_in(instance)

    def _take_in(self, instance: Instance) -> None:
        self.description = instance.description
        self._outage = None
        self._ready.append(instance)
        self.place_free(instance)

    def _sort_instances(self) -> None:
        """Another version may serve now: its instances are called, and those of others no more."""
        for instance in [each for each in self._ready if each.generation != self.generation]:
            self._ready.remove(instance)
        for instance in self.instances.values():
            if instance.phase is Phase.READY:
                if instance.generation in self._leaving:
                    self._leave_if_idle(instance)
                elif instance.generation == self.generation and instance not in self._ready:
                    self._take_in(instance)

    def _leave_if_idle(self, instance: Instance) -> None:
        """Name it, unless it is one of those that are kept for the case that its version serves again."""
        if not instance.load and instance.phase is Phase.READY:
            of_it = (each for each in self.instances.values() if each.generation == instance.generation)
            if sum(each.phase is Phase.READY for each in of_it) > self._leaving[instance.generation]:
                if instance in self._ready:
                    self._ready.remove(instance)
                instance.retire()

    def place_free(self, instance: Instance) -> None:
        if instance.generation != self.generation:
            return
        if self.limits.one_caller:
            self._settle()
            return
        while self._waiting and instance.has_place():
            self._start_waiting(self._waiting.take(), instance)

    def _start_waiting(self, call: Call, instance: Instance) -> None:
        """Send a call that has waited, if it is not too late for that."""
        left = call.asked.deadline - self.loop.time()
        if left < self._service.least(call.asked.tag) < call.budget:
            call.close()
            words = f"the call waited until {max(0.0, left):.1f} s were left, too few for its function"
            call.end(Refusal(errors.OVERLOADED, words, retry_after=1))
        else:
            self._start(call, instance)

    def call_closed(self, instance: Instance, call: Call, seconds: float) -> None:
        self._open -= 1
        if call.cancelled:
            self.cancels.add(self.loop.time() - call.cancelled)
        if seconds:
            self._service.took(call.asked.tag, seconds)
            self._waiting.charge(call.asked.caller, seconds)
        self.place_free(instance)
        if instance.generation in self._leaving:
            self._leave_if_idle(instance)
        self._demand.look()

    def instance_over(self, instance: Instance, closed: list[Call], unstarted: list[Call]) -> None:
        self._open -= len(closed) + len(unstarted)
        self.instances.pop(instance.name, None)
        if instance in self._ready:
            self._ready.remove(instance)
        for call in reversed(unstarted):
            call.state = State.WAITING
            self._waiting.put_back(call)
        if not self._alive() and (self._waiting or not self._may_sleep()):
            self._expect_instance(PATIENCE_SECONDS)
        if self.limits.one_caller:
            self._settle()
        else:
            while self._waiting and (free := self._less_loaded()) is not None:
                self.place_free(free)
        self._demand.look()

    def tell_supervisor(self, message: FromGateway) -> None:
        self._send(message)

    def note(self, event: str, **fields: object) -> None:
        self._log.warning(event, agent=self.id, **fields)

    # ---- what the supervisor says

    def offered(self, instance: Instance) -> None:
        """An instance is there, and will be ready or fail."""
        before = self.instances.get(instance.name)
        if before is not None:
            before.drop(Cause.SHUTDOWN, "the instance was offered again")
        self.instances[instance.name] = instance
        self._bound_ahead(instance)
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _bound_ahead(self, instance: Instance) -> None:
        """How many calls it may be sent ahead."""
        instance.ahead_max = AHEAD_MAX if self.scaling.maximum <= 1 else AHEAD_AMONG_OTHERS_MAX

    def retire(self, keep: int) -> None:
        """There are too many instances: name idle ones, those that were idle longest first, until `keep` are left."""
        surplus = sum(self._is_current(each) for each in self.instances.values()) - keep
        idle = [each for each in self._ready if each.phase is Phase.READY and not each.load]
        if self.limits.one_caller:
            idle = binding.surplus(idle, self.scaling.minimum, surplus)
        else:
            idle.sort(key=lambda each: each.last_used)
        for instance in idle[: max(0, surplus)]:
            self._ready.remove(instance)
            instance.retire()

    def gone(self, message: InstanceGone) -> None:
        """An instance has ended, perhaps one that was never offered."""
        instance = self.instances.get(message.instance)
        failure = None
        if instance is not None:
            failure = instance.failure
            instance.gone(message.cause, message.detail)
            if instance.generation != self.generation:
                return
        if self._alive():
            return
        if message.cause in (Cause.SCALE_DOWN, Cause.EVICTED):
            if self._waiting:
                self._expect_instance(PATIENCE_SECONDS)
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
            instance.drop(Cause.SUPERVISOR_LOST, "the daemon's supervisor was restarted")
        if self._waiting or not self._may_sleep():
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
        """This agent is served no more, or this version beside the one that serves gets no calls any more."""
        for instance in list(self.instances.values()):
            instance.drop(Cause.SHUTDOWN, "the agent is served no more")
        if self.side:
            self._close(_unavailable("this version gets no calls any more", None, 0.0))
        else:
            self._close(Refusal(errors.AGENT_NOT_FOUND, "the agent is served no more"))
        for side in self.split.sides.values():
            side.removed()
        self._demand.close()
        if self._patience is not None:
            self._patience.cancel()

    def _expect_instance(self, seconds: float) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(seconds, self._no_instance)

    def _no_instance(self) -> None:
        self._patience = None
        if not self._alive() and (self._waiting or not self._may_sleep()):
            self._close(_unavailable("", None, 1.0))

    def _close(self, outage: Refusal) -> None:
        """No call is taken until an instance is there, and those that wait are told so."""
        self._outage = outage
        self._outage_until = self.loop.time() + (outage.retry_after or 0.0)
        for call in self._waiting.clear():
            call.close()
            call.end(self._again(outage))
        self._demand.look()

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
