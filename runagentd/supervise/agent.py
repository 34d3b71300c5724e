"""One agent's instance from its start to its end, again and again: the effects of the lifecycle's table.

Runs as: the supervisor.
Reads from strangers: one ready byte per instance, and its exit record; reports of the gateway's are passed on unread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from runagentd.errors import ConfigurationError, HostError
from runagentd.log import Log
from runagentd.names import InstanceId
from runagentd.plan.build import AgentFolders, Identity
from runagentd.plan.model import SandboxPlan
from runagentd.policy.model import CallIsolation, Policy
from runagentd.supervise import lifecycle, spawn
from runagentd.supervise.lifecycle import Event, State
from runagentd.supervise.mounts import AgentSources, MountMaker
from runagentd.supervise.pool import SparePool
from runagentd.supervise.store import Deployment
from runagentd.supervise.waiting import readable
from runagentd.supervise.zygote import ZygoteGone
from runagentd.wire import control, record
from runagentd.wire import launch as wire

_OOM_LOOKS_SECONDS = (0.001, 0.004, 0.02, 0.1, 0.5)


@dataclass(slots=True)
class Instance:
    """One running sandbox."""

    id: InstanceId
    launched: spawn.Launched
    uid: int
    from_spare: bool
    spawn_started_ns: int
    started_unix_ms: int
    oom_kills_before: int
    ready_ns: int = 0
    killed_for: control.Cause | None = None
    describe: bytes = b""
    report: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all agents of a supervisor share."""

    pool: SparePool
    mounts: MountMaker
    build: Callable[[Policy, Identity, AgentFolders], SandboxPlan]
    absent: Callable[[Policy], frozenset[str]]
    """optional folders of a policy's files.read that this host does not have"""
    program: Callable[[SandboxPlan], bytes]
    """the plan's filter as BPF"""
    code: Callable[[], int]
    """what a fresh interpreter runs; the descriptor stays theirs"""
    offer: Callable[[Agent], None]
    """tell the gateway of the agent's instance, with its descriptors"""
    gone: Callable[[control.InstanceGone], None]
    log: Log


@dataclass(slots=True)
class FirstStart:
    """What the operator who deployed an agent waits for."""

    done: asyncio.Future[bool]
    describe: bytes = b""
    report: bytes = b""
    detail: str = ""
    cause: control.Cause | None = None


@dataclass(slots=True)
class Agent:
    """An agent that is served: what it is, and the state of its one instance."""

    deployment: Deployment
    policy: Policy
    snapshot: int
    persistent: int
    around: Surroundings
    state: State = State.BACKOFF
    instance: Instance | None = None
    failures: int = 0
    restarts: int = 0
    last_cause: str = ""
    first_start: FirstStart | None = None
    _stopping: bool = False
    _task: asyncio.Task[None] | None = field(default=None)
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """set where the next start is to come without a delay"""

    @property
    def id(self) -> str:
        return self.deployment.manifest.agent_id

    def start(self) -> None:
        """Keep one instance running from now on."""
        self._task = asyncio.create_task(self._keep_running(), name=f"agent {self.id}")

    def kill(self, cause: control.Cause) -> None:
        """End the instance, if there is one; the next one starts by the lifecycle's rules."""
        instance = self.instance
        if instance is None or self.state not in (State.IMPORTING, State.READY):
            return
        instance.killed_for = cause
        self._move(Event.KILLED)
        spawn.kill(instance.launched.spare)

    def restart(self) -> None:
        """End the instance and start the next without a delay; a delay that runs already is over."""
        self._hurry.set()
        self.kill(control.Cause.OPERATOR)

    async def stop(self) -> None:
        """End the instance and start no other; nothing is left when this returns."""
        self._stopping = True
        self.kill(control.Cause.SHUTDOWN)
        if self._task is not None:
            if self.state is State.BACKOFF:
                self._task.cancel()
            await asyncio.wait([self._task])
        os.close(self.snapshot)
        os.close(self.persistent)

    def _is_stopping(self) -> bool:
        return self._stopping  # asked anew after each wait

    def _move(self, event: Event) -> None:
        self.state = lifecycle.after(self.state, event)

    async def _keep_running(self) -> None:
        while True:
            self._move(Event.DELAY_OVER)
            try:
                instance = await self._spawn()
            except (spawn.LaunchRefused, ZygoteGone, OSError, HostError, ConfigurationError) as error:
                self._move(Event.LAUNCH_REFUSED)
                self._ended("", control.Cause.LAUNCH, str(error))
            else:
                await self._watch(instance)
            if self._is_stopping():
                return
            self.restarts += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(lifecycle.restart_delay_ms(self.failures) / 1000):
                    await self._hurry.wait()
            self._hurry.clear()

    async def _spawn(self) -> Instance:
        """From a spare to an open gate. What the supervisor has to do is done while the zygote forks."""
        began = time.monotonic_ns()
        taken = await self.around.pool.take()
        instance_id = InstanceId(secrets.token_hex(8))
        mounts: list[int] = []
        try:
            place = taken.place
            manifest = self.deployment.manifest
            folders = AgentFolders(
                environments=manifest.import_paths,
                persistent=manifest.persistent_folders,
                absent=self.around.absent(self.policy),
            )
            plan = self.around.build(self.policy, Identity(uid=place.uid, instance=instance_id), folders)
            limits = plan.limits
            place.group.write_limits(
                memory_max=limits.memory_max,
                pids_max=limits.pids_max,
                cpu_max=limits.cpu_max,
                cpu_weight=limits.cpu_weight,
            )
            oom_kills = place.group.oom_kills()
            program = self.around.program(plan)
            sources = AgentSources(
                snapshot=self.snapshot,
                persistent=self.persistent,
                uid=place.uid,
                user_namespace=place.user_namespace,
            )
            calls = self.policy.calls
            job = wire.Job(
                manifest=record.encode(manifest),
                concurrency=calls.concurrency,
                result_bytes=calls.result_bytes,
                cancel_grace_ms=calls.cancel_grace,
                traceback=calls.traceback,
                isolated=calls.isolation is CallIsolation.CALL,
            )
            mounts = self.around.mounts.make(plan.mounts, sources)
            spare = await taken.spare()
            launched = await spawn.assign(spare, plan, mounts=mounts, program=program, job=job, code=self.around.code)
        except BaseException:
            await taken.discard()
            raise
        finally:
            for descriptor in mounts:
                os.close(descriptor)
            self.around.pool.refill_soon()
        instance = Instance(
            id=instance_id,
            launched=launched,
            uid=spare.uid,
            from_spare=taken.in_advance,
            spawn_started_ns=began,
            started_unix_ms=time.time_ns() // 1_000_000,
            oom_kills_before=oom_kills,
        )
        self.instance = instance
        self._move(Event.GATE_OPENED)
        if self._stopping:
            self.kill(control.Cause.SHUTDOWN)
        else:
            self.around.offer(self)
        return instance

    async def _watch(self, instance: Instance) -> None:
        """From the open gate to the end, and the cleaning up after it."""
        loop = asyncio.get_running_loop()
        spare = instance.launched.spare
        loop.add_reader(instance.launched.ready, self._ready_byte, instance)
        try:
            oom_event = spare.group.oom_event()
        except OSError as error:
            # Without it a lost child goes unseen; the count of kills still tells why the instance ends.
            self.around.log.warning("no out-of-memory event for an instance", agent=self.id, reason=error)
            oom_event = None
        if oom_event is not None:
            loop.add_reader(oom_event, self._memory_ran_out, instance, oom_event)
        start_timeout = loop.call_later(self.policy.calls.start_timeout / 1000, self._start_timed_out, instance)
        try:
            await readable(spare.reaper_pidfd)
        finally:
            start_timeout.cancel()
            if oom_event is not None:
                loop.remove_reader(oom_event)
                os.close(oom_event)
            if instance.launched.ready >= 0:
                loop.remove_reader(instance.launched.ready)
        if self.state is not State.ENDING:
            self._move(Event.ENDED)
        was_ready = instance.ready_ns > 0
        cause, detail = lifecycle.cause_of_end(
            killed_for=instance.killed_for,
            record=_exit_record(spare.exit_pipe),
            out_of_memory=spare.group.oom_kills() > instance.oom_kills_before,
            was_ready=was_ready,
        )
        if was_ready and time.monotonic_ns() - instance.ready_ns > lifecycle.STEADY_SECONDS * 1e9:
            self.failures = 0
        self._ended(instance.id, cause, detail)
        spawn.kill(spare)
        instance.launched.close()
        await self.around.pool.discard(spare)
        self.instance = None
        self._move(Event.CLEANED_UP)

    def _ended(self, instance: str, cause: control.Cause, detail: str) -> None:
        expected = cause in (control.Cause.SHUTDOWN, control.Cause.OPERATOR)
        self.failures += 0 if expected else 1
        self.last_cause = cause
        delay = 0 if self._hurry.is_set() else lifecycle.restart_delay_ms(self.failures)
        # What a refused launch says names steps and paths of the host: that is for the log, not for callers.
        public = "the sandbox could not be made; the daemon's log says why" if cause is control.Cause.LAUNCH else detail
        self.around.gone(
            control.InstanceGone(instance=instance, agent=self.id, cause=cause, detail=public, retry_after_ms=delay)
        )
        write = self.around.log.info if expected else self.around.log.warning
        write("an instance ended", agent=self.id, instance=instance or None, cause=cause, detail=detail)
        self._first_start_over(False, cause=cause, detail=detail)

    def _ready_byte(self, instance: Instance) -> None:
        data = os.read(instance.launched.ready, 1)
        asyncio.get_running_loop().remove_reader(instance.launched.ready)
        os.close(instance.launched.ready)
        instance.launched.ready = -1
        if data == wire.READY and self.state is State.IMPORTING:
            instance.ready_ns = time.monotonic_ns()
            self._move(Event.BECAME_READY)
            self._look_if_started(instance)

    def described(self, instance: Instance, describe: bytes) -> None:
        """The gateway has read what the runner says of its entrypoints."""
        instance.describe = describe
        self._look_if_started(instance)

    def failed_to_load(self, instance: Instance, report: bytes) -> None:
        """The gateway has read why the runner cannot load the agent."""
        instance.report = report
        if self.first_start is not None:
            self.first_start.report = report
        self.kill(control.Cause.IMPORT)

    def _look_if_started(self, instance: Instance) -> None:
        if instance.ready_ns and instance.describe:
            if self.first_start is not None:
                self.first_start.describe = instance.describe
            self._first_start_over(True)

    def _first_start_over(self, ok: bool, *, cause: control.Cause | None = None, detail: str = "") -> None:
        if self.first_start is not None and not self.first_start.done.done():
            self.first_start.cause = cause
            self.first_start.detail = detail
            self.first_start.done.set_result(ok)

    def _memory_ran_out(self, instance: Instance, event: int) -> None:
        """On v1 the kernel killed one process at most: an instance that lost a part of itself is ended."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(event)
        self._look_for_oom_kill(instance, 0)

    def _look_for_oom_kill(self, instance: Instance, attempt: int) -> None:
        """The event comes before the kill is counted, and the kill may still not happen: look a few times."""
        if self.instance is not instance or self.state not in (State.IMPORTING, State.READY):
            return
        if instance.launched.spare.group.oom_kills() > instance.oom_kills_before:
            self.kill(control.Cause.OUT_OF_MEMORY)
        elif attempt < len(_OOM_LOOKS_SECONDS):
            loop = asyncio.get_running_loop()
            loop.call_later(_OOM_LOOKS_SECONDS[attempt], self._look_for_oom_kill, instance, attempt + 1)

    def _start_timed_out(self, instance: Instance) -> None:
        if self.instance is instance and not instance.ready_ns:
            self.kill(control.Cause.START_TIMEOUT)


def _exit_record(pipe: int) -> wire.ExitRecord | None:
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        return wire.parse_exit(os.read(pipe, wire.EXIT.size + 1))
    return None
