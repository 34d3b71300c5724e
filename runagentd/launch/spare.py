"""From a fresh fork of the zygote to a runner at its gate: carry out the steps, report, wait to be let in.

Runs as: root, then the instance's uid; one thread, all signals blocked until the filter is loaded.
Reads from strangers: nothing; what it reads comes from the supervisor.
Fails closed: see `progress`.
"""

from __future__ import annotations

import os
import socket
import time
from typing import NoReturn

from runagentd import kernel
from runagentd.launch import gate, reaper, steps
from runagentd.launch.progress import REFUSED_STATUS, Progress
from runagentd.runner import rehearsal
from runagentd.wire import launch as wire
from runagentd.wire import record

_DESCRIPTORS_MAX = 128


def run(launch: steps.Launch) -> NoReturn:
    """All of an instance's life: the spare's steps, the wait for an assignment, the rest. Never returns."""
    try:
        progress = SpareProgress(launch)
        progress.carry_out(steps.parse(launch.read("steps")))
        launch.mounts = receive(launch)
        progress.carry_out(steps.parse(launch.read("steps")))
    except BaseException:  # noqa: BLE001  (nothing may unwind into the zygote's loop, which is below us on the stack)
        os._exit(REFUSED_STATUS)
    os._exit(0)


class ReaperUnfit(Exception):
    """Pid 1 could not give up its privileges."""


class SpareProgress(Progress):
    """The progress of a fork of the zygote's."""

    def __init__(self, launch: steps.Launch) -> None:
        super().__init__(launch)
        self._confined = -1
        """where the reaper says that it has given up everything; -1 once it has"""
        self.own = {
            "reaper": self._split,
            "wait-for-reaper": self._wait_for_reaper,
            "rehearse": self._rehearse,
            "stand-by": self._stand_by,
            "exec": self._exec,
            "gate": self._pass_gate,
        }

    def _split(self, agent_uid: str, last_capability: str) -> None:
        """Become two: the reaper, pid 1, which gives up all privileges now, and the runner, which goes on here."""
        launch = self.launch
        confined, tell = os.pipe()
        pid = _fork()
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
                os._exit(REFUSED_STATUS)
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

    def _rehearse(self) -> None:
        rehearsal.rehearse()

    def _stand_by(self) -> None:
        self.report(wire.Stage.SPARE)

    def _exec(self, program: str, *arguments: str) -> NoReturn:
        """Become a fresh interpreter that goes on with the steps of `then` (launch.fresh). Returns to nobody."""
        began = wire.StepReport(verb="exec", nanoseconds=time.monotonic_ns())
        done = wire.LaunchReport(stage=wire.Stage.GATE, steps=(*self.done, began), verb="", errno=0, message="")
        memory = kernel.sealed_memfd("done", record.encode(done))
        os.dup2(memory, wire.DONE_DESCRIPTOR)  # before another one takes that number
        for number in (*steps.NUMBERED, *steps.FRESH):
            os.set_inheritable(number, True)
        descriptor = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
        # By descriptor, so that what was opened is what runs (execveat(2), by fexecve(3)). An empty environment.
        os.execve(descriptor, [program, *arguments], {})

    def _pass_gate(self) -> NoReturn:
        gate.pass_gate(self)


def _fork() -> int:
    """As the spare was forked itself, where that is possible."""
    if not kernel.thread_id_address():
        return os.fork()
    pid, pidfd = kernel.fork_alone()
    if pid:
        os.close(pidfd)
    return pid


_ASSIGNMENTS = {wire.ASSIGN: wire.ASSIGN_DESCRIPTORS, wire.ASSIGN_FRESH: wire.ASSIGN_FRESH_DESCRIPTORS}


def receive(launch: steps.Launch) -> list[int]:
    """Wait for an assignment; its first descriptors get their names, the others are given back."""
    with socket.socket(fileno=os.dup(launch.descriptors["socket"])) as connection:
        message, ancillary, flags, _ = connection.recvmsg(
            64, socket.CMSG_SPACE(_DESCRIPTORS_MAX * 4), socket.MSG_CMSG_CLOEXEC
        )
    descriptors = kernel.received_descriptors(ancillary)
    if not message:
        os._exit(0)  # the supervisor has no use for this spare, or is gone
    names = _ASSIGNMENTS.get(message)
    if names is None or flags & socket.MSG_CTRUNC or len(descriptors) < len(names):
        os._exit(REFUSED_STATUS)
    launch.descriptors.update(zip(names, descriptors[: len(names)], strict=True))
    return descriptors[len(names) :]
