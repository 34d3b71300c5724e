"""Make spares, and make instances of them: the effects of a plan, from the cgroup to the open gate.

Runs as: the supervisor.
Reads from strangers: nothing before the gate opens; afterwards one ready byte and one 64-byte exit record.
Fails closed: whatever goes wrong before the gate ends with SIGKILL to the reaper and nothing left behind.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from runagentd import kernel
from runagentd.plan.build import expected_status
from runagentd.plan.model import SandboxPlan, Step, Verb, tokens
from runagentd.supervise import verify
from runagentd.supervise.cgroup import Group
from runagentd.supervise.waiting import readable
from runagentd.supervise.zygote import Zygote
from runagentd.wire import launch as wire
from runagentd.wire import record

_SPARE_SECONDS = 10.0
_GATE_SECONDS = 10.0


class LaunchRefused(Exception):
    """A step was refused, or the look from outside found a difference: nothing of the agent's was run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What an instance will live in: made in advance, for it needs no process and hardly any memory."""

    uid: int
    group: Group
    user_namespace: int
    """maps the agent's id to `uid` and to nothing else"""


@dataclass(slots=True)
class Spare:
    """A jail that waits for its plan: forked, in cgroups and namespaces of its own, with a uid."""

    place: Place
    reaper_pid: int
    reaper_pidfd: int
    sock: socket.socket
    lifeline: int
    exit_pipe: int
    apart_from: frozenset[str]
    """the namespaces of the supervisor and the zygote, of which it may have none"""
    zygotes_layout: str
    """where the zygote's memory lies, which a fork of it shares"""
    namespaces: frozenset[str] = frozenset()
    """those of its reaper, once that was looked at"""
    steps: tuple[wire.StepReport, ...] = ()

    @property
    def uid(self) -> int:
        return self.place.uid

    @property
    def group(self) -> Group:
        return self.place.group

    def close(self) -> None:
        """Close what the supervisor holds; the reaper must be dead or have been handed over."""
        self.sock.close()
        for descriptor in (self.place.user_namespace, self.lifeline, self.exit_pipe, self.reaper_pidfd):
            if descriptor >= 0:
                os.close(descriptor)


@dataclass(slots=True)
class Launched:
    """A runner at its gate, or past it, with the supervisor's ends of everything."""

    spare: Spare
    runner_pid: int
    channel: socket.socket | None
    """the gateway's end, until it is given to a gateway"""
    supply: socket.socket
    stdout: int
    stderr: int
    ready: int
    steps: tuple[wire.StepReport, ...] = field(default=())
    returned: list[int] = field(default_factory=list)
    """descriptors that the launch made for the supervisor; no step does yet"""

    def close(self) -> None:
        _close_all(self.returned)
        self.returned = []
        self.supply.close()
        if self.channel is not None:
            self.channel.close()
        for descriptor in (self.stdout, self.stderr, self.ready):
            if descriptor >= 0:
                os.close(descriptor)
        self.stdout = self.stderr = self.ready = -1


class Birth:
    """A spare that was ordered from the zygote. Exactly one of `finished` and `forget` is to be called, once."""

    def __init__(
        self,
        zygote: Zygote,
        place: Place,
        *,
        steps: Sequence[Step],
        mounts: Sequence[int],
        reaper_program: bytes,
        new_pid_namespace: bool,
    ) -> None:
        """The place stays the caller's until there is a spare, the mounts for good. ZygoteGone or OSError."""
        self.place = place
        self._zygote, self._apart_from = zygote, zygote.apart_from
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._sock.setblocking(False)
        lifeline, self._lifeline = os.pipe()
        self._exit_pipe, exit_pipe = os.pipe()
        text, program = kernel.sealed_memfd("steps", tokens(steps)), kernel.sealed_memfd("filter", reaper_program)
        given = [text, theirs.detach(), lifeline, exit_pipe, program]
        entrances: list[int] = []
        try:
            entrances, v2_directory = place.group.entrances()
            given += [] if v2_directory is None else [v2_directory]
            self._order = zygote.fork(
                [text, given[1], lifeline, exit_pipe, place.user_namespace, program],
                entrances=entrances, v2_directory=v2_directory, mounts=mounts, new_pid_namespace=new_pid_namespace,
            )  # fmt: skip
        except BaseException:
            self._close()
            raise
        finally:
            for descriptor in (*given, *entrances):
                os.close(descriptor)

    async def finished(self, *, stands_by: bool) -> Spare:
        """The spare; one that `stands_by` has said that it waits for its plan, and its reaper was looked at.

        On any failure what was forked is dead; the place stays the caller's. LaunchRefused, ZygoteGone or OSError.
        """
        try:
            fork = await self._order.made()
        except BaseException:
            self._close()
            raise
        spare = Spare(
            place=self.place, reaper_pid=fork.pid, reaper_pidfd=fork.pidfd, sock=self._sock, lifeline=self._lifeline,
            exit_pipe=self._exit_pipe, apart_from=self._apart_from, zygotes_layout=self._zygote.layout,
        )  # fmt: skip
        if stands_by:
            try:
                report, _, returned = await _report(spare.sock, _SPARE_SECONDS)
                _close_all(returned)
                _require(report, wire.Stage.SPARE)
                _look_at_reaper(spare)
            except BaseException:
                kill(spare)
                self._close()
                os.close(spare.reaper_pidfd)
                raise
            spare.steps = report.steps
        return spare

    def forget(self) -> None:
        """The caller gives it up; whatever is forked for it is killed."""
        self._order.forget()
        self._close()

    def _close(self) -> None:
        self._sock.close()
        os.close(self._lifeline)
        os.close(self._exit_pipe)


def _look_at_reaper(spare: Spare) -> None:
    """LaunchRefused where it is not as it must be. From now on it cannot change itself."""
    try:
        spare.namespaces = verify.namespaces(spare.reaper_pid)
        found = verify.reaper_differences(
            spare.reaper_pid, expected_status(spare.uid), apart_from=spare.apart_from, in_cgroups=spare.group.holds
        )
    except OSError as error:
        raise LaunchRefused("the reaper ended as soon as it was made") from error
    if found:
        raise LaunchRefused("the look from outside found: " + "; ".join(found))
    # After the look: were the reaper gone, the pid that was looked at could be another process's by now.
    signal.pidfd_send_signal(spare.reaper_pidfd, 0)


async def assign(
    spare: Spare,
    plan: SandboxPlan,
    *,
    mounts: Sequence[int],
    program: bytes,
    job: wire.Job,
    code: Callable[[], Awaitable[int]],
) -> Launched:
    """Give a spare its plan, wait until the runner stands at its gate, and look at it from outside.

    Nothing of the agent's runs before `open_gate`, and nothing of what was looked at can change until then.

    `program` is the BPF of the runner's filter; `code` gives what a fresh interpreter runs (supervise.code), where the
    plan has one; `mounts` and that descriptor stay the caller's.
    LaunchRefused where a step was refused or the look found a difference; the reaper is dead then.
    """
    steps, then = _before_and_after_exec(plan.steps)
    fresh = [await code()] if then else []
    channel, runner_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    supply, runner_supply = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Never read: what an agent would send here has nowhere to go.
    supply.shutdown(socket.SHUT_RD)
    supply.setblocking(False)
    stdout_read, stdout_write = os.pipe()
    stderr_read, stderr_write = os.pipe()
    ready_read, ready_write = os.pipe()
    launched = Launched(
        spare=spare,
        runner_pid=0,
        channel=channel,
        supply=supply,
        stdout=stdout_read,
        stderr=stderr_read,
        ready=ready_read,
    )
    given = [
        kernel.sealed_memfd("steps", tokens(steps)),
        kernel.sealed_memfd("filter", program),
        runner_channel.detach(),
        runner_supply.detach(),
        stdout_write,
        stderr_write,
        ready_write,
        kernel.sealed_memfd("job", record.encode(job)),
    ]
    message = wire.ASSIGN
    if then:
        given.append(kernel.sealed_memfd("then", tokens(then)))
        message = wire.ASSIGN_FRESH
    try:
        descriptors = array.array("i", [*given, *fresh, *mounts])
        spare.sock.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    except BaseException as error:
        kill(spare)
        launched.close()
        if isinstance(error, OSError):
            raise LaunchRefused("the spare is gone") from error
        raise
    finally:
        for descriptor in given:
            os.close(descriptor)
    try:
        report, launched.runner_pid, launched.returned = await _report(spare.sock, _GATE_SECONDS)
        _require(report, wire.Stage.GATE)
        launched.steps = (*spare.steps, *report.steps)
        if not spare.namespaces:
            _look_at_reaper(spare)  # one that was made on demand has not stood by
        try:
            found = verify.differences(
                launched.runner_pid,
                spare.reaper_pid,
                plan.expected,
                apart_from=spare.apart_from,
                reapers_namespaces=spare.namespaces,
                zygotes_layout=spare.zygotes_layout,
                in_cgroups=spare.group.holds,
            )
        except OSError as error:
            raise LaunchRefused("the runner ended at its gate") from error
        if found:
            raise LaunchRefused("the look from outside found: " + "; ".join(found))
        # After the look: were the reaper gone, the pid that was looked at could be another process's by now.
        signal.pidfd_send_signal(spare.reaper_pidfd, 0)
    except BaseException:
        kill(spare)
        launched.close()
        raise
    return launched


def open_gate(launched: Launched) -> None:
    """Let the runner in: from now on the agent's code runs. LaunchRefused where it is gone; all of it is dead then."""
    try:
        launched.spare.sock.send(wire.OPEN)
    except OSError as error:
        kill(launched.spare)
        launched.close()
        raise LaunchRefused("the runner ended at its gate") from error


def _before_and_after_exec(steps: Sequence[Step]) -> tuple[Sequence[Step], Sequence[Step]]:
    """The steps of the process that a spare is, and of the one that it may become."""
    for number, step in enumerate(steps, start=1):
        if step.verb is Verb.EXEC:
            return steps[:number], steps[number:]
    return steps, ()


def kill(spare: Spare) -> None:
    """SIGKILL to pid 1 of the instance: the kernel ends the namespace with it; then whatever the cgroup still holds."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(spare.reaper_pidfd, signal.SIGKILL)
    spare.group.kill()


def new_channel(launched: Launched) -> socket.socket:
    """A new channel to a running instance: its runner gets one end, the other is the caller's. OSError if full."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        try:
            rights = array.array("i", [theirs.fileno()])
            launched.supply.sendmsg([b"C"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], socket.MSG_DONTWAIT)
        except BaseException:
            ours.close()
            raise
    return ours


def _require(report: wire.LaunchReport, stage: wire.Stage) -> None:
    if report.stage is wire.Stage.REFUSED:
        raise LaunchRefused(f"step {len(report.steps) + 1} {report.verb}: {report.message}")
    if report.stage is not stage:
        raise LaunchRefused(f"the launch reported {report.stage} where {stage} was expected")


async def _report(sock: socket.socket, seconds: float) -> tuple[wire.LaunchReport, int, list[int]]:
    """The next report on `sock`, the pid of the process that sent it, as the kernel says, and what it sent along."""
    deadline = time.monotonic() + seconds
    space = socket.CMSG_SPACE(struct.calcsize("iii")) + socket.CMSG_SPACE(4 * 8)
    while True:
        try:
            message, ancillary, _, _ = sock.recvmsg(wire.REPORT_BYTES_MAX, space, socket.MSG_CMSG_CLOEXEC)
            break
        except BlockingIOError:
            try:
                async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                    await readable(sock.fileno())
            except TimeoutError as error:
                raise LaunchRefused("the launch did not report in time") from error
        except ConnectionResetError as error:
            raise LaunchRefused("the launch ended without a report") from error
    returned = kernel.received_descriptors(ancillary)
    pid = 0
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            pid = struct.unpack("iii", data[:12])[0]
    if not message:
        raise LaunchRefused("the launch ended without a report")
    try:
        return record.decode(wire.LaunchReport, message, bytes_max=wire.REPORT_BYTES_MAX), pid, returned
    except record.RecordError as error:
        _close_all(returned)
        raise LaunchRefused(f"the launch reported something else: {error}") from error


def _close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
