"""A served agent: what it is, and as many instances of it as there should be.

Runs as: the supervisor.
Reads from strangers: how many instances its calls could use, and which are idle, from a gateway that may be captured:
`scaling` bounds the first, and of the second no more are ended than were asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from runagentd.policy.model import Policy
from runagentd.supervise import lifecycle, scaling, standby
from runagentd.supervise.instance import Instance, Surroundings
from runagentd.supervise.lifecycle import Absence, State
from runagentd.supervise.store import Deployment
from runagentd.supervise.version import Version
from runagentd.wire import control
from runagentd.wire.admin import EndRow, EventKind

_EXPECTED = frozenset(
    {
        control.Cause.SHUTDOWN,
        control.Cause.OPERATOR,
        control.Cause.SCALE_DOWN,
        control.Cause.REPLACED,
        control.Cause.EVICTED,
        control.Cause.GATEWAY_LOST,
    }
)
"""Ends that somebody wanted: they are no failures of the agent's."""
_ROUTINE = frozenset({control.Cause.SHUTDOWN, control.Cause.SCALE_DOWN, control.Cause.EVICTED})
"""Ends after which nothing is started again in its place, or for somebody else: they are no restarts."""
_OF_NO_USE = frozenset({control.Cause.DEADLINE, control.Cause.PROTOCOL})
_OF_NO_USE_TO_OTHERS = frozenset({control.Cause.EVICTED, control.Cause.SCALE_DOWN})
"""What a gateway may have an instance ended for: any, and one that serves one caller."""

WARM_SECONDS = 300.0
"""How long instances of a version are kept that serves no more, so that it can serve again at once."""
WARM_INSTANCES = 2
"""How many of them: what a call needs first. Others start beside them as they are needed, in milliseconds."""

ENDS_KEPT = 5
END_CHARACTERS_MAX = 300


class Agent:
    """Implements `instance.Owner`."""

    def __init__(self, version: Version, around: Surroundings, *, side: int = 0) -> None:
        self.side = side
        """0; or the number of a version that gets a part of the calls, beside the one that serves"""
        self.version = version
        """the one whose instances are called"""
        self.former: Version | None = None
        """the one that was called before, while instances of it are kept"""
        self.former_until_unix_ms = 0
        self._cooling: asyncio.TimerHandle | None = None
        self.around = around
        self.instances: dict[str, Instance] = {}
        """all of which something is left, the oldest first"""
        self.failures = 0
        self.restarts = 0
        self.last_cause = ""
        self.ends: Counter[str] = Counter()
        """by cause"""
        self.last_ends: deque[EndRow] = deque(maxlen=ENDS_KEPT)
        self.cpu_seconds = 0.0
        self.pressure: Counter[str] = Counter()
        """of instances that have ended"""
        self.minimum = version.policy.scaling.instances_min
        self.maximum = version.policy.scaling.instances_max
        self._load = Load(spawns=float(self.maximum))
        self._lives: set[asyncio.Task[None]] = set()
        self._standby: Instance | None = None
        """the next instance, at its gate or on its way there"""
        self._next_standby: asyncio.TimerHandle | None = None
        self._next_look: asyncio.TimerHandle | None = None
        self._retiring = 0
        """how many instances the gateway was asked to name"""
        self._stopping = False

    @property
    def deployment(self) -> Deployment:
        return self.version.deployment

    @property
    def policy(self) -> Policy:
        return self.version.policy

    @property
    def one_caller(self) -> bool:
        """Whether each instance serves one caller only."""
        return self.policy.calls.one_caller

    @property
    def id(self) -> str:
        return self.version.deployment.manifest.agent_id

    def absence(self) -> Absence:
        """Why there is no instance."""
        return Absence.BACKOFF if self._load.not_before > time.monotonic() else Absence.ASLEEP

    @property
    def retry_after_ms(self) -> int:
        """Until the next start after a failure; 0 where there is no delay."""
        return max(0, round(1000 * (self._load.not_before - time.monotonic())))

    # ---- how many there should be

    def start(self) -> None:
        """Keep as many instances running as there should be from now on, and at least one for the idle time."""
        self.warm(1)

    def demand(self, instances: int) -> None:
        """The gateway says how many instances the calls of this moment could use."""
        self._load.wanted = max(0, instances)
        self.look()

    def warm(self, instances: int) -> int:
        """As if calls could use that many at this moment: they stay for the idle time. How many it can be."""
        # Where the minimum comes on top of what is wanted, it is part of what is asked for here.
        asked = instances - self.minimum if self.one_caller else instances
        wanted, self._load.wanted = self._load.wanted, max(asked, self._load.wanted)
        self.look()
        self._load.wanted = wanted
        self.look()
        return min(instances, self.maximum)

    def scale(self, minimum: int, maximum: int) -> None:
        """Other bounds, until the daemon starts again. The policy's maximum is the operator's to keep to."""
        self.minimum, self.maximum = minimum, maximum
        self._load.spawns = float(maximum)
        self.note(EventKind.SCALED, f"an operator wants from {minimum} to {maximum} instances")
        self.look()

    def retired(self, instance: Instance) -> None:
        """The gateway gives this instance no more calls. It is ended, as one of those that were asked for.

        Even where more are wanted again by now: the gateway has given it up.
        """
        if instance.version is not self.version or instance.version.given_up:
            surplus = instance.version is self.former and len(self._alive(self.former)) > WARM_INSTANCES
            if instance.version.given_up or surplus:
                instance.kill(control.Cause.REPLACED)
        elif self._retiring > 0:
            self._retiring -= 1
            instance.kill(control.Cause.SCALE_DOWN)

    def replace(self, instance: Instance, cause: control.Cause) -> None:
        """The gateway has no use for this instance any more; what causes it may give depends on the policy."""
        one_caller = instance.version.policy.calls.one_caller
        if cause in _OF_NO_USE or (one_caller and cause in _OF_NO_USE_TO_OTHERS):
            instance.kill(cause)

    def look(self) -> None:
        """Compare what there is with what there should be, and act on the difference."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        if (
            self._stopping
            or self.version.given_up
            or (self.version.on_trial and self.version.first_start.cause is not None)
        ):
            return  # an agent that could not start once is about to be removed
        if self.former is not None and self.around.pressed():
            self.cool()
        load, now = self._load, time.monotonic()
        load.refill(now, self.maximum)
        alive = self._alive(self.version)
        wishes = scaling.wishes(
            scaling.Observed(
                now=now,
                minimum=self.minimum,
                maximum=self.maximum,
                idle_seconds=self.policy.scaling.idle / 1000,
                wanted=load.wanted,
                needed=load.needed,
                alive=len(alive),
                unproven=sum(instance.state is not State.READY for instance in alive),
                failures=self.failures,
                not_before=load.not_before,
                spawns=load.spawns,
                pressed=self.around.pressed(),
                one_caller=self.one_caller,
            )
        )
        load.needed = wishes.needed
        if wishes.start and alive:
            there, more = len(alive), len(alive) + wishes.start
            self.note(EventKind.SCALED, f"from {there} instances to {more}: calls could use {load.wanted}")
        for _ in range(wishes.start):
            load.spawns -= 1
            self._start_one(self.version)
        if len(alive) > wishes.keep:
            self._retiring = max(self._retiring, len(alive) - wishes.keep)
            self.around.retire(self, wishes.keep)
        if wishes.look_again is not None:
            loop = asyncio.get_running_loop()
            self._next_look = loop.call_later(max(0.0, wishes.look_again - now), self.look)

    def _alive(self, version: Version) -> list[Instance]:
        return [each for each in self.instances.values() if each.alive and each.version is version]

    def _start_one(self, version: Version) -> None:
        waiting = self._standby
        current = waiting is not None and waiting.version is version and waiting.runtime == version.runtime
        if waiting is not None and current and waiting.stands_by:
            self._standby = None
            self.around.standbys.leave(self)
            self.instances[waiting.id] = waiting
            waiting.let_in()
            return
        instance = Instance(self, version)
        self.instances[instance.id] = instance
        self._begin(instance)

    def _begin(self, instance: Instance) -> None:
        task = asyncio.create_task(self._live(instance), name=f"instance {instance.id} of {self.id}")
        self._lives.add(task)
        task.add_done_callback(self._lives.discard)

    async def _live(self, instance: Instance) -> None:
        try:
            await instance.live()
        finally:
            self.instances.pop(instance.id, None)
            if self._standby is instance:
                self._standby = None
                self.around.standbys.leave(self)

    # ---- the one that stands by

    @property
    def has_standby(self) -> bool:
        """Whether the next instance is at its gate."""
        return self._standby is not None and self._standby.at_gate

    def _prepare_standby_soon(self) -> None:
        if self._next_standby is not None:
            self._next_standby.cancel()
        self._next_standby = asyncio.get_running_loop().call_later(standby.SECONDS, self._prepare_standby)

    def _prepare_standby(self) -> None:
        """Make the next instance of the version that serves, up to its gate."""
        self._next_standby = None
        unwanted = self._stopping or self.version.given_up or self.around.pressed()
        if unwanted or self._standby is not None or not self.around.standbys.admit(self):
            return
        self._standby = Instance(self, self.version, stands_by=True)
        self._begin(self._standby)

    def give_up_outdated_standby(self) -> None:
        """End what stands by on a Python that its version has no more: nothing would let it in, or make another."""
        waiting = self._standby
        if waiting is not None and waiting.runtime != waiting.version.runtime:
            self.give_up_standby()
            self._prepare_standby_soon()

    def give_up_standby(self) -> None:
        """End what stands by; harmless where nothing does."""
        if self._next_standby is not None:
            self._next_standby.cancel()
            self._next_standby = None
        instance, self._standby = self._standby, None
        self.around.standbys.leave(self)
        if instance is not None and instance.stands_by:
            instance.give_up()

    # ---- another version

    async def prove(self, version: Version) -> bool:
        """Start one instance of another version beside those that serve; whether it is ready and described in time.

        Nobody calls it yet. Where it is not proven, its instance is ended.
        """
        self._start_one(version)
        ok = await version.proven()
        if not ok:
            self.drop(version)
        return ok

    def ready_instance(self, version: Version) -> Instance | None:
        """One of this version that the gateway could call."""
        ready = (each for each in self._alive(version) if each.state is State.READY and each.describe)
        return next(ready, None)

    def drop(self, version: Version) -> None:
        """A version that was proven is not to serve after all."""
        self._give_up(version)
        self._kill_all_of(version, control.Cause.REPLACED)

    def versions(self) -> set[Version]:
        """All of which instances may still be made, or something is left."""
        former = {self.former} if self.former is not None else set()
        return {self.version, *former, *(instance.version for instance in self.instances.values())}

    def is_warm(self, number: int) -> bool:
        """Whether this version serves no more, and has instances all the same that can take a call now."""
        former = self.former
        return former is not None and former.number == number and self.ready_instance(former) is not None

    def switch(self, version: Version, *, keep_warm: bool) -> None:
        """From now on this version, which has been proven, is the one that is called.

        Instances of the one before end when the gateway says that they have no call any more, or when their last call
        must have ended; with `keep_warm` some are kept for a while.
        """
        self.give_up_standby()
        before, self.version = self.version, version
        self.minimum, self.maximum = version.policy.scaling.instances_min, version.policy.scaling.instances_max
        self.failures = 0
        replaced = len(self._alive(before))
        self._load = Load(spawns=float(self.maximum), wanted=self._load.wanted)
        if self.former is version:
            self.former = None
        self._let_go_of_former()
        if keep_warm and replaced and not self.around.pressed():
            self.former, self.former_until_unix_ms = before, round(1000 * (time.time() + WARM_SECONDS))
            self._cooling = asyncio.get_running_loop().call_later(WARM_SECONDS, self.cool)
        else:
            self._let_go(before)
        self.warm(max(1, replaced))
        # The instance that was proven became ready before its version served, and perhaps none starts after it.
        self._prepare_standby_soon()

    def cool(self) -> None:
        """Keep no instance of the version that served before any longer."""
        former = self.former
        if former is not None:
            self._let_go_of_former()
            self.note(EventKind.COOLED, f"v{former.number} would have to be started to serve again")
            self.around.announce(self.id)

    def _let_go_of_former(self) -> None:
        if self._cooling is not None:
            self._cooling.cancel()
            self._cooling = None
        former, self.former, self.former_until_unix_ms = self.former, None, 0
        if former is not None:
            self._let_go(former)

    def _let_go(self, version: Version) -> None:
        """No call goes to it any more; the last one that it has ends by its deadline."""
        self._give_up(version)
        calls = version.policy.calls
        asyncio.get_running_loop().call_later(
            (calls.deadline + calls.cancel_grace) / 1000, self._kill_all_of, version, control.Cause.REPLACED
        )

    def _give_up(self, version: Version) -> None:
        if self._standby is not None and self._standby.version is version:
            self.give_up_standby()
        version.give_up()

    def leaving(self) -> tuple[control.Leaving, ...]:
        """What is called no more, for the gateway to say when it has no call."""
        found = {each.version for each in self.instances.values() if each.version.given_up}
        rows = [control.Leaving(generation=version.generation, keep=0) for version in found]
        if self.former is not None:
            rows.append(control.Leaving(generation=self.former.generation, keep=WARM_INSTANCES))
        return tuple(sorted(rows, key=lambda row: row.generation))

    def _kill_all_of(self, version: Version, cause: control.Cause) -> None:
        for instance in list(self.instances.values()):
            if instance.version is version:
                instance.kill(cause)

    # ---- ends

    def kill(self, cause: control.Cause) -> None:
        """End every instance; others start by the rules."""
        for instance in list(self.instances.values()):
            instance.kill(cause)

    def restart(self) -> None:
        """End every instance and start others without a delay; a delay that runs already is over."""
        if self.policy.files.read:
            self.give_up_standby()  # what is mounted below a folder of the host's may be why somebody restarts it
        self.failures = 0
        self._load.not_before = 0.0
        self.note(EventKind.RESTARTED)
        alive = len(self._alive(self.version))
        self.kill(control.Cause.OPERATOR)
        self.warm(alive)

    def leave(self) -> None:
        """Start nothing more: what there is ends when it has no call, or when its last call must have ended."""
        self._let_go(self.version)

    async def over(self) -> None:
        """Return when nothing is left after `leave`."""
        if self._lives:
            await asyncio.wait(self._lives)

    async def stop(self, cause: control.Cause = control.Cause.SHUTDOWN) -> None:
        """End every instance and start no other; nothing is left when this returns."""
        self._stopping = True
        self.give_up_standby()
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        self.kill(cause)
        if self._cooling is not None:
            self._cooling.cancel()
        if self._lives:
            await asyncio.wait(self._lives)
        for version in self.versions():
            version.give_up()

    def note(self, kind: EventKind, detail: str = "", *, instance: str = "", cause: str = "") -> None:
        """An event of this agent's."""
        name = self.deployment.manifest.agent_name
        self.around.events.add(kind, detail, agent=self.id, agent_name=name, instance=instance, cause=cause)

    def note_wider(self, number: int, keys: Sequence[str]) -> None:
        """A version that gets calls from now on has a policy that is wider in these keys than the one before."""
        for key in keys:
            self.note(EventKind.WIDENED, f"v{number}: {key}")
            self.around.log.warning("a version has a wider policy", agent=self.id, version=f"v{number}", key=key)

    # ---- Owner

    def launched(self, instance: Instance) -> None:
        made = "at its gate" if instance.stood_by else "from a spare" if instance.from_spare else "on demand"
        self.note(EventKind.INSTANCE_STARTED, made, instance=instance.id)

    def proven(self, instance: Instance) -> None:
        instance.version.first_start.describe = instance.describe
        instance.version.first_start.over(True)
        self.around.proven(instance)
        took = (instance.ready_ns - instance.spawn_started_ns) / 1e6
        self.note(EventKind.INSTANCE_READY, f"after {took:.1f} ms", instance=instance.id)
        if instance.version is self.version:
            self._prepare_standby_soon()
        self.look()

    def ended(self, instance: Instance, cause: control.Cause, detail: str) -> None:
        expected = cause in _EXPECTED
        self.ends[cause.value] += 1
        self.cpu_seconds += instance.cpu_seconds
        self.pressure.update(instance.pressure)
        delay = self._count(instance, cause) if instance.version is self.version else 0
        # What a refused launch says names steps and paths of the host: that is for the log, not for callers.
        public = "the sandbox could not be made; the daemon's log says why" if cause is control.Cause.LAUNCH else detail
        # Of a version that is only tried the gateway knows those that were offered to it, and waits for no other.
        if instance.version is self.version or instance.launched is not None:
            self.around.gone(
                control.InstanceGone(
                    instance=instance.id,
                    agent=self.id,
                    cause=cause,
                    detail=public,
                    retry_after_ms=delay,
                    side=self.side,
                )
            )
        # A call that did not stop is one of those that the gateway counts, unless its caller chose the version or gave
        # it no time: then this end says nothing of the version either.
        told_as_call = lifecycle.can_be_brought_about(cause, was_ready=instance.ready_ns > 0, one_caller=False)
        if not expected and not told_as_call and instance.version is self.version:
            self.around.died(self)
        write = self.around.log.info if expected else self.around.log.warning
        write("an instance ended", agent=self.id, instance=instance.id, cause=cause, detail=detail)
        self.last_ends.append(
            EndRow(
                unix_ms=time.time_ns() // 1_000_000,
                instance=instance.id,
                lived_ms=(time.monotonic_ns() - instance.ready_ns) // 1_000_000 if instance.ready_ns else 0,
                cause=cause.value,
                detail=detail[:END_CHARACTERS_MAX],
            )
        )
        self.note(EventKind.INSTANCE_ENDED, detail, instance=instance.id, cause=cause.value)
        first = instance.version.first_start
        if not first.done.done():
            first.cause, first.detail = cause, detail
            first.over(False)
        self.look()

    def _count(self, instance: Instance, cause: control.Cause) -> int:
        """An end of the version that serves; how many milliseconds later the next one may start."""
        if instance.ready_ns and time.monotonic_ns() - instance.ready_ns > lifecycle.STEADY_SECONDS * 1e9:
            self.failures = 0
        expected = cause in _EXPECTED
        self.failures += not expected
        self.restarts += cause not in _ROUTINE
        self.last_cause = cause
        if not expected:
            by_calls = lifecycle.can_be_brought_about(
                cause, was_ready=instance.ready_ns > 0, one_caller=self.one_caller
            )
            delay = lifecycle.restart_delay_ms(self.failures, by_calls=by_calls)
            self._load.not_before = time.monotonic() + delay / 1000
        return self.retry_after_ms


@dataclass(slots=True)
class Load:
    """What is remembered between two looks."""

    spawns: float
    """how many instances may be started now"""
    wanted: int = 0
    needed: tuple[float, ...] = ()
    not_before: float = 0.0
    _refilled: float = field(default_factory=time.monotonic)

    def refill(self, now: float, most: int) -> None:
        self.spawns = min(float(most), self.spawns + (now - self._refilled) * scaling.SPAWNS_PER_SECOND)
        self._refilled = now
