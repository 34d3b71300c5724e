"""A served agent: what it is, and as many instances of it as there should be.

Runs as: the supervisor.
Reads from strangers: how many instances its calls could use, and which are idle, from a gateway that may be captured:
`scaling` bounds the first, and of the second no more are ended than were asked for.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field

from runagentd.policy.model import Policy
from runagentd.supervise import lifecycle, scaling
from runagentd.supervise.instance import Instance, Surroundings
from runagentd.supervise.lifecycle import Absence, State
from runagentd.supervise.store import Deployment
from runagentd.wire import control

_EXPECTED = frozenset({control.Cause.SHUTDOWN, control.Cause.OPERATOR, control.Cause.SCALE_DOWN})
"""Ends that somebody wanted: they are no failures of the agent's."""


@dataclass(slots=True)
class FirstStart:
    """What the operator who deployed an agent waits for."""

    done: asyncio.Future[bool]
    describe: bytes = b""
    report: bytes = b""
    detail: str = ""
    cause: control.Cause | None = None


class Agent:
    """Implements `instance.Owner`."""

    def __init__(
        self, *, deployment: Deployment, policy: Policy, snapshot: int, persistent: int, around: Surroundings
    ) -> None:
        """The two descriptors are the agent's from now on."""
        self.deployment = deployment
        self.policy = policy
        self.snapshot = snapshot
        self.persistent = persistent
        self.around = around
        self.instances: dict[str, Instance] = {}
        """all of which something is left, the oldest first"""
        self.failures = 0
        self.restarts = 0
        self.last_cause = ""
        self.first_start: FirstStart | None = None
        self.minimum = policy.scaling.instances_min
        self.maximum = policy.scaling.instances_max
        self._load = Load(spawns=float(self.maximum))
        self._lives: set[asyncio.Task[None]] = set()
        self._next_look: asyncio.TimerHandle | None = None
        self._retiring = 0
        """how many instances the gateway was asked to name"""
        self._stopping = False

    @property
    def id(self) -> str:
        return self.deployment.manifest.agent_id

    def absence(self) -> Absence:
        """Why there is no instance."""
        return Absence.BACKOFF if self._load.not_before > time.monotonic() else Absence.ASLEEP

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
        wanted, self._load.wanted = self._load.wanted, max(instances, self._load.wanted)
        self.look()
        self._load.wanted = wanted
        self.look()
        return min(instances, self.maximum)

    def scale(self, minimum: int, maximum: int) -> None:
        """Other bounds, until the daemon starts again. The policy's maximum is the operator's to keep to."""
        self.minimum, self.maximum = minimum, maximum
        self._load.spawns = float(maximum)
        self.look()

    def retired(self, instance: Instance) -> None:
        """The gateway gives this instance no more calls. It is ended, as one of those that were asked for.

        Even where more are wanted again by now: the gateway has given it up.
        """
        if self._retiring > 0:
            self._retiring -= 1
            instance.kill(control.Cause.SCALE_DOWN)

    def look(self) -> None:
        """Compare what there is with what there should be, and act on the difference."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        if self._stopping or (self.first_start is not None and self.first_start.cause is not None):
            return  # an agent that could not even start once is about to be removed
        load, now = self._load, time.monotonic()
        load.refill(now, self.maximum)
        alive = [instance for instance in self.instances.values() if instance.alive]
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
            )
        )
        load.needed = wishes.needed
        for _ in range(wishes.start):
            load.spawns -= 1
            self._start_one()
        if len(alive) > wishes.keep:
            self._retiring = max(self._retiring, len(alive) - wishes.keep)
            self.around.retire(self.id, wishes.keep)
        if wishes.look_again is not None:
            loop = asyncio.get_running_loop()
            self._next_look = loop.call_later(max(0.0, wishes.look_again - now), self.look)

    def _start_one(self) -> None:
        instance = Instance(self)
        self.instances[instance.id] = instance
        task = asyncio.create_task(self._live(instance), name=f"instance {instance.id} of {self.id}")
        self._lives.add(task)
        task.add_done_callback(self._lives.discard)

    async def _live(self, instance: Instance) -> None:
        try:
            await instance.live()
        finally:
            del self.instances[instance.id]

    # ---- ends

    def kill(self, cause: control.Cause) -> None:
        """End every instance; others start by the rules."""
        for instance in list(self.instances.values()):
            instance.kill(cause)

    def restart(self) -> None:
        """End every instance and start others without a delay; a delay that runs already is over."""
        self.failures = 0
        self._load.not_before = 0.0
        alive = sum(instance.alive for instance in self.instances.values())
        self.kill(control.Cause.OPERATOR)
        self.warm(alive)

    async def stop(self) -> None:
        """End every instance and start no other; nothing is left when this returns."""
        self._stopping = True
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        self.kill(control.Cause.SHUTDOWN)
        if self._lives:
            await asyncio.wait(self._lives)
        os.close(self.snapshot)
        os.close(self.persistent)

    # ---- Owner

    def proven(self, instance: Instance) -> None:
        if self.first_start is not None:
            self.first_start.describe = instance.describe
        self._first_start_over(True)
        self.look()

    def reported(self, instance: Instance) -> None:
        if self.first_start is not None:
            self.first_start.report = instance.report

    def ended(self, instance: Instance, cause: control.Cause, detail: str) -> None:
        expected = cause in _EXPECTED
        if instance.ready_ns and time.monotonic_ns() - instance.ready_ns > lifecycle.STEADY_SECONDS * 1e9:
            self.failures = 0
        self.failures += 0 if expected else 1
        self.restarts += cause not in (control.Cause.SHUTDOWN, control.Cause.SCALE_DOWN)
        self.last_cause = cause
        delay = lifecycle.restart_delay_ms(self.failures)
        self._load.not_before = time.monotonic() + delay / 1000
        # What a refused launch says names steps and paths of the host: that is for the log, not for callers.
        public = "the sandbox could not be made; the daemon's log says why" if cause is control.Cause.LAUNCH else detail
        self.around.gone(
            control.InstanceGone(instance=instance.id, agent=self.id, cause=cause, detail=public, retry_after_ms=delay)
        )
        write = self.around.log.info if expected else self.around.log.warning
        write("an instance ended", agent=self.id, instance=instance.id, cause=cause, detail=detail)
        self._first_start_over(False, cause=cause, detail=detail)
        self.look()

    def _first_start_over(self, ok: bool, *, cause: control.Cause | None = None, detail: str = "") -> None:
        if self.first_start is not None and not self.first_start.done.done():
            self.first_start.cause = cause
            self.first_start.detail = detail
            self.first_start.done.set_result(ok)


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
