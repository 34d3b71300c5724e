"""One instance as the gateway sees it: its channel, its places for calls, and how it came to its end.

Runs as: the gateway.
Reads from strangers: nothing itself; `channel` does.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import time
from collections.abc import Callable
from typing import Protocol

from runagentd import errors
from runagentd.errors import ErrorKind, Refusal
from runagentd.gateway import describe
from runagentd.gateway.calls import OURS, Call, State
from runagentd.gateway.channel import Channel
from runagentd.wire.control import (
    CallLimits,
    Cause,
    FromGateway,
    Idle,
    InstanceFailed,
    InstanceReady,
    ReplaceInstance,
    Retired,
    Wake,
)

TRUTH_SECONDS = 2.0
"""How long an open call waits, after its channel ended, for the supervisor to say why; and the other way round."""

AHEAD_MAX = 16
"""Calls that may be sent before a place is free, so that a runner of short functions never waits for us."""
AHEAD_AMONG_OTHERS_MAX = 4
"""Where an agent may have other instances: a call sent behind one that takes long cannot go to them any more."""
AHEAD_SECONDS = 0.002
"""And no more work than that, as functions take on average: who was sent ahead comes before all who wait, and could be
withdrawn only by asking."""

_KINDS: dict[Cause, ErrorKind] = {
    Cause.OUT_OF_MEMORY: errors.OUT_OF_MEMORY,
    Cause.PROTOCOL: errors.PROTOCOL,
    Cause.IMPORT: errors.IMPORT,
}


_TELLING = frozenset({Cause.OUT_OF_MEMORY, Cause.EXIT, Cause.SIGNAL, Cause.SECCOMP})
"""Causes of which the supervisor's sentence says all that the title of their kind does: nobody reads it twice."""


class Phase(enum.Enum):
    """The life of an instance, as far as calls are concerned."""

    STARTING = enum.auto()
    READY = enum.auto()
    ENDING = enum.auto()
    """no more calls go there"""
    GONE = enum.auto()


class Stranger(Exception):
    """A call of one caller was to be sent to an instance of another: a defect of ours. Nothing was sent."""


class InstanceOwner(Protocol):
    """The agent that an instance belongs to."""

    def instance_ready(self, instance: Instance) -> None:
        """It can take calls."""

    def place_free(self, instance: Instance) -> None:
        """It may be able to take one more call."""

    def call_closed(self, instance: Instance, call: Call, seconds: float) -> None:
        """A call has stopped, and has held a place for so long; its place is free."""

    def unused(self, instance: Instance) -> None:
        """It has a caller who has had no call for so long that it should end."""

    def instance_over(self, instance: Instance, closed: list[Call], unstarted: list[Call]) -> None:
        """It has taken its last call. `closed` were on it and have ended; `unstarted` can be sent again."""

    def tell_supervisor(self, message: FromGateway) -> None:
        """Send a message to the supervisor."""

    def note(self, event: str, **fields: object) -> None:
        """Write to the log."""


class Instance:
    """Implements `ChannelOwner`. `cause` is the true cause of the end, as soon as it is known."""

    def __init__(self, owner: InstanceOwner, name: str, *, generation: int, limits: CallLimits) -> None:
        self._owner = owner
        self._limits = limits
        self.generation = generation
        self._loop = asyncio.get_running_loop()
        self._timers: set[asyncio.TimerHandle] = set()
        self._channel_over = False
        self._service_seconds = AHEAD_SECONDS
        self.name = name
        self.phase = Phase.STARTING
        self.cause: Cause | None = None
        self.detail = ""
        self.last_used = self._loop.time()
        self.ahead_max = AHEAD_AMONG_OTHERS_MAX
        self.caller: str | None = None
        """whose calls it takes, where it takes those of one caller only; None before its first one"""
        self.bound_at = 0.0
        self._offered_at = self.last_used
        self.start_seconds = 0.0
        """from its offer until it was ready"""
        self.calls = 0
        """that it was given"""
        self.resting = False
        """the supervisor may have frozen it"""
        self.failure: str | None = None
        """the first problem of a failed import"""
        self.description: describe.Description | None = None
        self.channel = Channel(self, result_bytes=limits.result_bytes, traceback=limits.traceback)

    # ---- calls

    def has_place(self) -> bool:
        """Whether one more call may be sent. A call that was told to stop and has not still holds its place."""
        if self.phase is not Phase.READY or self.channel.paused:
            return False
        limits = self._limits
        ahead = len(self.channel.open_calls) - limits.concurrency
        if limits.one_by_one:
            return ahead < 0
        if ahead < 0:
            return True
        return ahead < self.ahead_max and ahead < limits.queue and (ahead + 1) * self._service_seconds < AHEAD_SECONDS

    @property
    def load(self) -> int:
        """How many calls it has."""
        return len(self.channel.open_calls)

    def ahead(self) -> int:
        """How many calls wait in the runner for one of its places: they were sent ahead."""
        return max(0, len(self.channel.open_calls) - self._limits.concurrency)

    def start(self, call: Call) -> None:
        """Send a call; `has_place` must be true. ValueError where it is too large to be a frame.

        `Stranger` where the instance serves somebody else. This is the only way by which calls get into a sandbox.
        """
        now = time.monotonic()
        if self._limits.one_caller:
            self._bind(call.asked.caller, now)
        if self.resting:
            self._wake()
        self.channel.start(call, now=now)
        self.calls += 1
        call.instance = self.name
        if len(self.channel.open_calls) <= self._limits.concurrency:
            call.started = now

    def _bind(self, caller: str, now: float) -> None:
        """Serve this caller from now on; once there is one, no other."""
        if caller == OURS and self.caller is None:
            return  # it leaves nothing of a caller's, so the instance is still nobody's
        if self.caller is None and caller:
            self.caller, self.bound_at = caller, now
            self._later(self._limits.idle_ms / 1000, self._look_if_unused)
        if self.caller != caller:
            raise Stranger(self.name)

    def _look_if_unused(self) -> None:
        """What it holds is of use to its caller alone: where that one stays away, it ends."""
        if self.phase is not Phase.READY:
            return
        idle = self._limits.idle_ms / 1000
        left = self.last_used + idle - self._loop.time()
        if self.load or left > 0:
            # Where it has a call, that one has still to end. uvloop has no timer of less than a millisecond.
            self._later(max(left, 0.01) if left > 0 else idle, self._look_if_unused)
        else:
            self._owner.unused(self)

    def _wake(self) -> None:
        """Before its call: that one is in the channel when it goes on."""
        self.resting = False
        self._owner.tell_supervisor(Wake(instance=self.name))
        self._later(self._limits.freeze_ms / 1000, self._look_if_idle)

    def _look_if_idle(self) -> None:
        """One timer for each instance and not for each call: it looks how long the last one is ago."""
        if self.phase is not Phase.READY:
            return
        left = self.last_used + self._limits.freeze_ms / 1000 - self._loop.time()
        if self.load or left > 0:
            self._later(max(left, 0.1), self._look_if_idle)
        else:
            self.resting = True
            self._owner.tell_supervisor(Idle(instance=self.name))

    def stop(self, call: Call, reason: str) -> None:
        """Cancel an open call; when it has not stopped within its grace, the instance is replaced."""
        self.channel.cancel(call, reason)
        call.cancelled = call.cancelled or self._loop.time()
        if call.started:
            self._begin_grace(call)

    def closed(self, call: Call) -> None:
        self.last_used = now = time.monotonic()
        seconds = now - call.started if call.started else 0.0
        if call.started:
            # A moving average: what decides is whether the functions called now are short.
            self._service_seconds += (min(seconds, 1.0) - self._service_seconds) / 4
        concurrency = self._limits.concurrency
        if len(self.channel.open_calls) >= concurrency:
            # Runners start calls in the order in which they came, so this is the one that is started now.
            promoted = next(itertools.islice(self.channel.open_calls.values(), concurrency - 1, None))
            if not promoted.started:
                promoted.started = now
                if promoted.state is State.STOPPING:
                    self._begin_grace(promoted)
        self._owner.call_closed(self, call, seconds)

    def _begin_grace(self, call: Call) -> None:
        self._later(self._limits.cancel_grace_ms / 1000, self._grace_over, call)

    def _grace_over(self, call: Call) -> None:
        if self.channel.open_calls.get(call.number) is call:
            self._owner.note(
                "a call did not stop", instance=self.name, request=call.asked.request_id, tag=call.asked.tag
            )
            self._replace(Cause.DEADLINE, "a call did not stop when it was told to")

    # ---- ChannelOwner

    def described(self, body: bytes) -> None:
        self.description = describe.parse(body)
        self.start_seconds = self._loop.time() - self._offered_at
        self.phase = Phase.READY
        self._owner.tell_supervisor(InstanceReady(instance=self.name, describe=body))
        self._owner.instance_ready(self)
        if self._limits.freeze_ms:
            self._later(self._limits.freeze_ms / 1000, self._look_if_idle)

    def import_failed(self, body: bytes) -> None:
        self.failure = describe.first_problem(body)
        self.phase = Phase.ENDING
        self._owner.tell_supervisor(InstanceFailed(instance=self.name, report=body))

    def writable(self) -> None:
        self._owner.place_free(self)

    def violated(self, reason: str) -> None:
        self._owner.note("the channel's protocol was broken", instance=self.name, reason=reason)
        self._channel_over = True
        self._replace(Cause.PROTOCOL, reason)

    def lost(self) -> None:
        self._channel_over = True
        if self.cause is not None:
            self._finish()
            return
        # The runner is dying, or has closed its end and lives. The supervisor knows which, and will say so.
        self.phase = Phase.ENDING
        self._later(TRUTH_SECONDS, self._no_truth)

    def _no_truth(self) -> None:
        if self.cause is None:
            self._replace(Cause.PROTOCOL, "the runner closed its channel")

    # ---- its end

    def retire(self) -> None:
        """Take no more calls; there is none open, and the supervisor ends it now."""
        self.phase = Phase.ENDING
        self._owner.tell_supervisor(Retired(instance=self.name))

    def give_up(self, cause: Cause) -> None:
        """Take no more calls; there is none open, and nobody else can have what there is in it."""
        self.phase = Phase.ENDING
        self._owner.tell_supervisor(ReplaceInstance(instance=self.name, cause=cause))

    def gone(self, cause: Cause, detail: str) -> None:
        """The supervisor says that it has ended, and why."""
        if self.cause is None:
            self.cause, self.detail = cause, detail
        self.phase = Phase.ENDING if self.phase is not Phase.GONE else self.phase
        if self._channel_over:
            self._finish()
        else:
            # What it wrote before it died may still be on its way to us: a result is a result.
            self._later(TRUTH_SECONDS, self._finish)

    def drop(self, cause: Cause, detail: str) -> None:
        """Forget it at once: the supervisor that knew it is away, or its agent is served no more."""
        if self.cause is None:
            self.cause, self.detail = cause, detail
        self._finish()

    def _replace(self, cause: Cause, detail: str) -> None:
        if self.cause is None:
            self.cause, self.detail = cause, detail
            self._owner.tell_supervisor(ReplaceInstance(instance=self.name, cause=cause))
        self._finish()

    def _finish(self) -> None:
        if self.phase is Phase.GONE:
            return
        self.phase = Phase.GONE
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.channel.close()
        calls = list(self.channel.open_calls.values())
        self.channel.open_calls.clear()
        for call in calls:
            if call.started or call.ended or call.once:
                call.close()
                call.end(self.refusal())
        # Sent ahead and never started: these can be sent again, to the next instance.
        unstarted = [call for call in calls if call.state is not State.CLOSED]
        self._owner.instance_over(self, [call for call in calls if call.state is State.CLOSED], unstarted)

    def refusal(self) -> Refusal:
        """What the end of this instance means for a call that was open on it."""
        cause = self.cause or Cause.EXIT
        kind = _KINDS.get(cause, errors.INSTANCE_DIED)
        if self.detail and cause in _TELLING:
            message = self.detail
        else:
            message = f"{kind.title}: {self.detail}" if self.detail else kind.title
        return Refusal(kind, message, cause=cause.value)

    def _later(self, seconds: float, action: Callable[..., None], *arguments: object) -> None:
        now = self._loop.time()
        self._timers = {timer for timer in self._timers if timer.when() > now and not timer.cancelled()}
        self._timers.add(self._loop.call_later(seconds, action, *arguments))
