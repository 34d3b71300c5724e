"""One sandbox of an agent's, from its spawn until nothing is left of it: the effects of the lifecycle's table.

Runs as: the supervisor.
Reads from strangers: one ready byte per instance, and its exit record; reports of the gateway's are passed on unread.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from runagentd.errors import ConfigurationError, HostError
from runagentd.log import Log
from runagentd.names import InstanceId
from runagentd.plan.build import AgentFolders, Identity
from runagentd.plan.model import ENVIRONMENT, SandboxPlan
from runagentd.policy.model import CallIsolation, Policy
from runagentd.supervise import lifecycle, spawn
from runagentd.supervise.cgroup import Group
from runagentd.supervise.events import Events
from runagentd.supervise.lifecycle import Event, State
from runagentd.supervise.mounts import AgentSources, MountMaker
from runagentd.supervise.pool import SparePool
from runagentd.supervise.standby import Standbys
from runagentd.supervise.version import Version
from runagentd.supervise.waiting import readable
from runagentd.supervise.zygote import ZygoteGone
from runagentd.wire import control, record
from runagentd.wire import launch as wire
from runagentd.wire.runtime import PythonRuntime

_CLEAN_UP_AFTER_SECONDS = 0.005
_OOM_LOOKS_SECONDS = (0.001, 0.004, 0.02, 0.1, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all agents of a supervisor share."""

    pool: Callable[[PythonRuntime], SparePool]
    """whose spares are forks of that runtime's zygote"""
    mounts: MountMaker
    build: Callable[[Policy, PythonRuntime, Identity, AgentFolders], SandboxPlan]
    absent: Callable[[Policy], frozenset[str]]
    """optional folders of a policy's files.read that this host does not have"""
    program: Callable[[SandboxPlan], bytes]
    """the plan's filter as BPF"""
    code: Callable[[PythonRuntime], Awaitable[int]]
    """what a fresh interpreter of that runtime runs; the descriptor stays theirs"""
    offer: Callable[[Instance], None]
    """tell the gateway of an instance, with its descriptors"""
    retire: Callable[[Owner, int], None]
    """ask the gateway to name instances of an agent that are idle, beyond so many"""
    gone: Callable[[control.InstanceGone], None]
    proven: Callable[[Instance], None]
    """an instance has become ready"""
    died: Callable[[Owner], None]
    """an instance of an agent has ended, and was not to"""
    announce: Callable[[str], None]
    """tell the gateway what of the agent with this id serves, and what leaves"""
    pressed: Callable[[], bool]
    """whether the host is short of memory"""
    standbys: Standbys
    """whose next sandbox is kept at its gate"""
    events: Events
    log: Log


class Owner(Protocol):
    """The agent that an instance belongs to."""

    around: Surroundings
    side: int
    """0; or the number of a version that gets a part of the calls, beside the one that serves"""

    @property
    def id(self) -> str:
        """The agent's."""

    def launched(self, instance: Instance) -> None:
        """Its gate is open: the agent's code begins to run."""

    def proven(self, instance: Instance) -> None:
        """It is ready, and the gateway has described it."""

    def ended(self, instance: Instance, cause: control.Cause, detail: str) -> None:
        """It is over, though something of it may be left; called once."""


class Instance:
    """One sandbox. `launched` is there from the open gate on."""

    def __init__(self, owner: Owner, version: Version, *, stands_by: bool = False) -> None:
        self._owner = owner
        self._entrance: asyncio.Future[bool] | None = None
        """where it is made before it is needed: whether it was let in, or ended"""
        if stands_by:
            self._entrance = asyncio.get_running_loop().create_future()
        self.version = version
        self.runtime = version.runtime
        self.id = InstanceId(secrets.token_hex(8))
        self.state = State.STARTING
        self.launched: spawn.Launched | None = None
        self.uid = 0
        self.from_spare = False
        self.stood_by = False
        """whether it stood at its gate when it was needed"""
        self._at_gate: spawn.Launched | None = None
        """what waits there to be let in"""
        self.spawn_started_ns = 0
        self.started_unix_ms = 0
        self.ready_ns = 0
        self.describe = b""
        self._proven = False
        """whether its owner was told that it is ready and described"""
        self.frozen = False
        self._freeze_wanted = False
        self._freezing: asyncio.Task[None] | None = None
        self.cpu_seconds = 0.0
        self.pressure: dict[str, int] = {}
        """what it has used, and waited for, once it has ended"""
        self._oom_kills_before = 0
        self._killed_for: control.Cause | None = None

    @property
    def agent_id(self) -> str:
        return self._owner.id

    @property
    def side(self) -> int:
        return self._owner.side

    @property
    def alive(self) -> bool:
        """Whether it serves, or will."""
        return self.state in (State.STARTING, State.IMPORTING, State.READY) and self._killed_for is None

    @property
    def shown_state(self) -> str:
        """For people."""
        return "frozen" if self.frozen and self.state is State.READY else self.state.value

    async def live(self) -> None:
        """From nothing to nothing. Its owner is told of the end before the cleaning up."""
        self.version.enter()
        try:
            try:
                launched, pool = await self._make()
                try:
                    if self._entrance is not None and not await self._stand_by(launched, self._entrance):
                        spawn.kill(launched.spare)
                        launched.close()
                        await pool.discard(launched.spare)
                        return
                    if self.launched is None:
                        self._enter(launched)
                except spawn.LaunchRefused:
                    await pool.discard(launched.spare)
                    raise
            except (spawn.LaunchRefused, ZygoteGone, OSError, HostError, ConfigurationError) as error:
                if self._unneeded:
                    self._owner.around.log.warning("no sandbox stands by", agent=self.agent_id, reason=error)
                    return
                self._move(Event.LAUNCH_REFUSED)
                self._owner.ended(self, control.Cause.LAUNCH, str(error))
                return
            await self._watch(pool)
        finally:
            self.version.leave()

    @property
    def stands_by(self) -> bool:
        """Whether nobody has needed it yet, nor given it up."""
        return self._entrance is not None and not self._entrance.done()

    @property
    def _unneeded(self) -> bool:
        """Whether nobody has needed it yet, or it was given up: that it cannot be made is then no failure."""
        entrance = self._entrance
        return self.stands_by or (entrance is not None and entrance.exception() is None and not entrance.result())

    @property
    def at_gate(self) -> bool:
        """Whether it stands there now, and not only on its way there."""
        return self._at_gate is not None and self.stands_by

    def let_in(self) -> None:
        """It is needed now. Only of one that stands by; it may still be on its way to its gate."""
        entrance = self._entrance
        if entrance is None:
            return
        self.spawn_started_ns = time.monotonic_ns()
        if self._at_gate is not None:
            # Now, and not when its task has its turn: whoever needs it may go on with milliseconds of work.
            try:
                self._enter(self._at_gate)
            except spawn.LaunchRefused as error:
                entrance.set_exception(error)
                return
        entrance.set_result(True)

    def give_up(self) -> None:
        """It will not be needed. Only of one that stands by."""
        if self._entrance is not None:
            self._entrance.set_result(False)

    async def _stand_by(self, launched: spawn.Launched, entrance: asyncio.Future[bool]) -> bool:
        """Whether it was let in; it was not where its reaper has ended, too."""
        if not entrance.done():
            self.stood_by = True
            self._at_gate = launched
        reaper, loop = launched.spare.reaper_pidfd, asyncio.get_running_loop()

        def over() -> None:
            if not entrance.done():
                entrance.set_result(False)

        loop.add_reader(reaper, over)
        try:
            return await entrance
        finally:
            self._at_gate = None
            loop.remove_reader(reaper)

    def kill(self, cause: control.Cause) -> None:
        """End it; harmless where it has ended. One that is still being made is ended as soon as it is there."""
        if self.state not in (State.STARTING, State.IMPORTING, State.READY) or self._killed_for is not None:
            return
        self._killed_for = cause
        if self.launched is not None:
            self._move(Event.KILLED)
            spawn.kill(self.launched.spare)

    def freeze(self) -> None:
        """Nothing of it runs until `thaw`, but its reaper."""
        self._freeze_wanted = True
        if self._freezing is None:
            self._freezing = asyncio.create_task(self._freeze())

    def thaw(self) -> None:
        """Let it go on, at once where nothing is under way."""
        self._freeze_wanted = False
        if self.frozen and self._freezing is None:
            self._thaw()

    async def _freeze(self) -> None:
        """In a thread, for to move processes takes milliseconds; whoever thaws it meanwhile is heard afterwards."""
        launched = self.launched
        try:
            if launched is not None and self.state is State.READY and not self.frozen:
                spare = launched.spare
                await asyncio.to_thread(spare.group.freeze, keep=spare.reaper_pid)
                self.frozen = True
        except OSError as error:
            if self.state is State.READY:
                self._owner.around.log.warning("an instance was not frozen", instance=self.id, reason=error)
            self.frozen = True  # in part, perhaps
        finally:
            self._freezing = None
            if not self._freeze_wanted:
                self._thaw()

    def _thaw(self) -> None:
        self.frozen = False
        if self.launched is not None and self.state is State.READY:
            try:
                self.launched.spare.group.thaw()
            except OSError as error:
                # It would take no call any more, and nobody would know why.
                self._owner.around.log.error("an instance cannot be thawed", instance=self.id, reason=error)
                self.kill(control.Cause.OPERATOR)

    def described(self, describe: bytes) -> None:
        """The gateway has read what the runner says of its entrypoints."""
        self.describe = describe
        self._look_if_proven()

    def failed_to_load(self, report: bytes) -> None:
        """The gateway has read why the runner cannot load the agent."""
        self.version.first_start.report = report
        self.kill(control.Cause.IMPORT)

    def _move(self, event: Event) -> None:
        self.state = lifecycle.after(self.state, event)

    async def _make(self) -> tuple[spawn.Launched, SparePool]:
        """From a spare to a runner at its gate. What the supervisor has to do is done while the zygote forks.

        The pool that the spare is from cleans up after it.
        """
        around, version = self._owner.around, self.version
        policy = version.policy
        if self._entrance is None:
            self.spawn_started_ns = time.monotonic_ns()
        # One and the same to the end, though the version may get another one meanwhile.
        runtime = self.runtime = version.runtime
        pool = around.pool(runtime)
        taken = await pool.take()
        mounts: list[int] = []
        try:
            place = taken.place
            manifest = version.deployment.manifest
            folders = AgentFolders(
                environments=manifest.import_paths,
                persistent=manifest.persistent_folders,
                absent=around.absent(policy),
                installed=version.environment is not None,
            )
            plan = around.build(policy, runtime, Identity(uid=place.uid, instance=self.id), folders)
            limits = plan.limits
            place.group.write_limits(
                memory_max=limits.memory_max,
                pids_max=limits.pids_max,
                cpu_max=limits.cpu_max,
                cpu_weight=limits.cpu_weight,
            )
            self._oom_kills_before = place.group.oom_kills()
            program = around.program(plan)
            sources = AgentSources(
                snapshot=version.snapshot,
                persistent=version.persistent,
                environment=version.environment.descriptor if version.environment is not None else -1,
                uid=place.uid,
                user_namespace=place.user_namespace,
            )
            calls = policy.calls
            job = wire.Job(
                manifest=record.encode(manifest),
                concurrency=calls.concurrency,
                result_bytes=calls.result_bytes,
                cancel_grace_ms=calls.cancel_grace,
                traceback=calls.traceback,
                isolated=calls.isolation is CallIsolation.CALL,
                environment=ENVIRONMENT if version.environment is not None else "",
            )
            mounts = around.mounts.make(plan.mounts, sources)
            spare = await taken.spare()
            code = functools.partial(around.code, runtime)
            launched = await spawn.assign(spare, plan, mounts=mounts, program=program, job=job, code=code)
        except BaseException:
            await taken.discard()
            raise
        finally:
            for descriptor in mounts:
                os.close(descriptor)
            pool.refill_soon()
        self.from_spare = taken.in_advance
        return launched, pool

    def _enter(self, launched: spawn.Launched) -> None:
        """Through the gate, unless it is to end by now, and on to the gateway."""
        spare = launched.spare
        if self._killed_for is None:
            spawn.open_gate(launched)
        self.launched = launched
        self.uid = spare.uid
        self.started_unix_ms = time.time_ns() // 1_000_000
        self._move(Event.GATE_OPENED)
        self._owner.launched(self)
        if self._killed_for is not None:
            self._move(Event.KILLED)
            spawn.kill(spare)
        else:
            self._owner.around.offer(self)

    async def _watch(self, pool: SparePool) -> None:
        """From the open gate to the end, and the cleaning up after it."""
        owner, launched = self._owner, self.launched
        if launched is None:
            raise RuntimeError("nothing was launched")
        loop = asyncio.get_running_loop()
        spare = launched.spare
        loop.add_reader(launched.ready, self._ready_byte, launched)
        try:
            oom_event = spare.group.oom_event()
        except OSError as error:
            # Without it a lost child goes unseen; the count of kills still tells why the instance ends.
            owner.around.log.warning("no out-of-memory event for an instance", agent=owner.id, reason=error)
            oom_event = None
        if oom_event is not None:
            loop.add_reader(oom_event, self._memory_ran_out, spare.group, oom_event)
        start_timeout = loop.call_later(self.version.policy.calls.start_timeout / 1000, self._start_timed_out)
        try:
            await readable(spare.reaper_pidfd)
        finally:
            start_timeout.cancel()
            if oom_event is not None:
                loop.remove_reader(oom_event)
                os.close(oom_event)
            if launched.ready >= 0:
                loop.remove_reader(launched.ready)
        if self.state is not State.ENDING:
            self._move(Event.ENDED)
        cause, detail = lifecycle.cause_of_end(
            killed_for=self._killed_for,
            record=_exit_record(spare.exit_pipe),
            out_of_memory=spare.group.oom_kills() > self._oom_kills_before,
            was_ready=self.ready_ns > 0,
        )
        self.cpu_seconds = spare.group.cpu_seconds()
        self.pressure = spare.group.pressure()
        owner.ended(self, cause, detail)
        # What takes its place comes first. Nothing runs any more: the kernel ends a pid namespace with its pid 1.
        await asyncio.sleep(_CLEAN_UP_AFTER_SECONDS)
        spawn.kill(spare)
        launched.close()
        await pool.discard(spare)
        self._move(Event.CLEANED_UP)

    def _ready_byte(self, launched: spawn.Launched) -> None:
        data = os.read(launched.ready, 1)
        asyncio.get_running_loop().remove_reader(launched.ready)
        os.close(launched.ready)
        launched.ready = -1
        if data == wire.READY and self.state is State.IMPORTING:
            self.ready_ns = time.monotonic_ns()
            self._move(Event.BECAME_READY)
            self._look_if_proven()

    def _look_if_proven(self) -> None:
        # Once: the next gateway describes it again, and a captured one as often as it likes.
        if self.ready_ns and self.describe and not self._proven:
            self._proven = True
            self._owner.proven(self)

    def _memory_ran_out(self, group: Group, event: int) -> None:
        """On v1 the kernel killed one process at most: an instance that lost a part of itself is ended."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(event)
        self._look_for_oom_kill(group, 0)

    def _look_for_oom_kill(self, group: Group, attempt: int) -> None:
        """The event comes before the kill is counted, and the kill may still not happen: look a few times."""
        if self.state not in (State.IMPORTING, State.READY):
            return
        if group.oom_kills() > self._oom_kills_before:
            self.kill(control.Cause.OUT_OF_MEMORY)
        elif attempt < len(_OOM_LOOKS_SECONDS):
            loop = asyncio.get_running_loop()
            loop.call_later(_OOM_LOOKS_SECONDS[attempt], self._look_for_oom_kill, group, attempt + 1)

    def _start_timed_out(self) -> None:
        if not self.ready_ns:
            self.kill(control.Cause.START_TIMEOUT)


def _exit_record(pipe: int) -> wire.ExitRecord | None:
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        return wire.parse_exit(os.read(pipe, wire.EXIT.size + 1))
    return None
