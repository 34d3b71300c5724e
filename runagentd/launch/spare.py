"""From a fresh fork of the zygote to a runner at its gate: carry out the steps, report, wait to be let in.

Runs as: root, then the instance's uid; one thread, all signals blocked until the filter is loaded.
Reads from strangers: nothing; what it reads comes from the supervisor.
Fails closed: a step that is refused is reported by name and errno, and the process ends before any agent code.
"""

from __future__ import annotations

import array
import gc
import os
import socket
import time
from typing import NoReturn

from runagentd import kernel
from runagentd.launch import reaper, steps
from runagentd.runner import main as runner
from runagentd.runner import rehearsal
from runagentd.runner.handover import Handover, Limits
from runagentd.wire import launch as wire
from runagentd.wire import record

_REFUSED_STATUS = 70
_DESCRIPTORS_MAX = 128


def run(launch: steps.Launch) -> NoReturn:
    """All of an instance's life: the spare's steps, the wait for an assignment, the rest. Never returns."""
    try:
        progress = _Progress(launch)
        progress.carry_out(steps.parse(launch.read("steps")))
        launch.mounts = _receive(launch, wire.ASSIGN, wire.ASSIGN_DESCRIPTORS)
        progress.carry_out(steps.parse(launch.read("steps")))
    except BaseException:  # noqa: BLE001  (nothing may unwind into the zygote's loop, which is below us on the stack)
        os._exit(_REFUSED_STATUS)
    os._exit(0)


class ReaperUnfit(Exception):
    """Pid 1 could not give up its privileges."""


class _Progress:
    """Carries out steps and remembers how long each took."""

    def __init__(self, launch: steps.Launch) -> None:
        self._launch = launch
        self._done: list[wire.StepReport] = []
        self._confined = -1
        """where the reaper says that it has given up everything; -1 once it has"""

    def carry_out(self, todo: list[list[str]]) -> None:
        verb = ""
        try:
            for verb, *arguments in todo:
                before = time.monotonic_ns()
                if verb == "gate":
                    self._pass_gate()
                elif verb == "reaper":
                    self._split(*arguments)
                elif verb == "wait-for-reaper":
                    self._wait_for_reaper()
                elif verb == "rehearse":
                    rehearsal.rehearse()
                elif verb == "stand-by":
                    self.report(wire.Stage.SPARE)
                else:
                    steps.STEPS[verb](self._launch, *arguments)
                self._done.append(wire.StepReport(verb=verb, nanoseconds=time.monotonic_ns() - before))
        except Exception as error:  # noqa: BLE001  (whatever goes wrong ends the launch, with its reason)
            number = getattr(error, "errno", None) or 0
            text = f"{type(error).__name__}: {error}"[:500]
            self.report(wire.Stage.REFUSED, verb=verb, errno=number, message=text)
            os._exit(_REFUSED_STATUS)

    def report(self, stage: wire.Stage, *, verb: str = "", errno: int = 0, message: str = "") -> None:
        report = wire.LaunchReport(stage=stage, steps=tuple(self._done), verb=verb, errno=errno, message=message)
        returned, self._launch.returned = self._launch.returned, []
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", returned))] if returned else []
        with socket.socket(fileno=os.dup(self._launch.descriptors["socket"])) as connection:
            connection.sendmsg([record.encode(report)], rights)
        for descriptor in returned:
            os.close(descriptor)
        if stage is wire.Stage.SPARE:
            self._done.clear()

    def _split(self, agent_uid: str, last_capability: str) -> None:
        """Become two: the reaper, pid 1, which gives up all privileges now, and the runner, which goes on here."""
        launch = self._launch
        confined, tell = os.pipe()
        pid = os.fork()
        if pid:
            kernel.set_process_name("reaper")
            os.close(confined)
            try:
                reaper.run(
                    launch,
                    runner=pid,
                    agent_uid=int(agent_uid),
                    last_capability=int(last_capability),
                    tell_confined=tell,
                )
            finally:
                os._exit(_REFUSED_STATUS)
        kernel.set_process_name("runner")
        os.close(tell)
        self._confined = confined
        for name in ("lifeline", "exit", "reaper_filter"):
            os.close(launch.take(name))

    def _wait_for_reaper(self) -> None:
        """Until the reaper has given up everything; it does so while the runner goes on."""
        if self._confined < 0:
            return
        if os.read(self._confined, 1) != reaper.CONFINED:
            raise ReaperUnfit("the reaper did not confine itself")
        os.close(self._confined)
        self._confined = -1

    def _pass_gate(self) -> NoReturn:
        launch = self._launch
        self.report(wire.Stage.GATE)
        gate = socket.socket(fileno=launch.take("socket"))
        # While the supervisor looks: none of it runs a line of the agent's.
        job = record.decode(wire.Job, launch.read("job"), bytes_max=wire.JOB_BYTES_MAX)
        handover = Handover(
            channel_fd=launch.take("channel"),
            supply_fd=launch.take("supply"),
            ready_fd=launch.take("ready"),
            manifest=job.manifest,
            limits=Limits(
                concurrency=job.concurrency,
                result_bytes=job.result_bytes,
                cancel_grace_ms=job.cancel_grace_ms,
                traceback=job.traceback,
            ),
            app_path="/app",
        )
        prepared = runner.prepare(handover)
        if gate.recv(16) != wire.OPEN:
            os._exit(_REFUSED_STATUS)
        gate.close()
        gc.enable()
        runner.run(prepared)
        os._exit(0)


def _receive(launch: steps.Launch, expected: bytes, names: tuple[str, ...]) -> list[int]:
    """Wait for a message of the supervisor's; its first descriptors get `names`, the others are given back."""
    with socket.socket(fileno=os.dup(launch.descriptors["socket"])) as connection:
        message, ancillary, flags, _ = connection.recvmsg(
            64, socket.CMSG_SPACE(_DESCRIPTORS_MAX * 4), socket.MSG_CMSG_CLOEXEC
        )
    descriptors = kernel.received_descriptors(ancillary)
    if not message:
        os._exit(0)  # the supervisor has no use for this spare, or is gone
    if message != expected or flags & socket.MSG_CTRUNC or len(descriptors) < len(names):
        os._exit(_REFUSED_STATUS)
    launch.descriptors.update(zip(names, descriptors[: len(names)], strict=True))
    return descriptors[len(names) :]
