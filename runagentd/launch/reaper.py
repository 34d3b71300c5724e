"""Pid 1 of an instance: reap what ends, tell the supervisor how the runner ended, and end with the supervisor.

Runs as: the instance's uid, pid 1 of its pid namespace, with a filter of its own that allows a handful of calls;
root until `_confine`, which comes first.
Reads from strangers: exit statuses of its children, as the kernel tells them.
When pid 1 ends, the kernel kills everything else in the namespace (pid_namespaces(7)): that is the whole clean-up.
"""

from __future__ import annotations

import os
import select
import signal
from typing import NoReturn

from runagentd import kernel
from runagentd.launch import steps
from runagentd.wire import launch as wire

CONFINED = b"C"


def run(launch: steps.Launch, *, runner: int, agent_uid: int, last_capability: int, tell_confined: int) -> NoReturn:
    """Reap until the runner (a pid) has ended or the lifeline has no writer any more; never returns.

    One byte on `tell_confined` says that all privileges are gone and the filter is loaded.
    """
    program = launch.read("reaper_filter")
    lifeline, exit_pipe = launch.descriptors["lifeline"], launch.descriptors["exit"]
    # All signals stay blocked: as pid 1 only SIGKILL from outside reaches it anyway.
    children = kernel.signal_descriptor([signal.SIGCHLD])
    _confine(launch, agent_uid, last_capability)
    kernel.close_all_but({lifeline, exit_pipe, children, tell_confined})
    kernel.load_seccomp_filter(program)
    os.write(tell_confined, CONFINED)
    os.close(tell_confined)
    poll = select.poll()
    poll.register(children, select.POLLIN)
    poll.register(lifeline, select.POLLIN)
    while True:
        events = poll.poll()
        if any(descriptor == lifeline for descriptor, _ in events):
            os._exit(0)
        os.read(children, 128)
        reap(runner, exit_pipe)


def _confine(launch: steps.Launch, agent_uid: int, last_capability: int) -> None:
    """The same steps that the runner will take, in the same order."""
    steps.clear_groups(launch)
    steps.user_namespace(launch)
    steps.identity(launch, str(agent_uid))
    steps.capabilities(launch, str(last_capability))
    steps.no_new_privs(launch)
    steps.not_dumpable(launch)


def reap(runner: int, exit_pipe: int) -> None:
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid != runner:
            continue  # an orphan of the agent's
        signalled = os.WIFSIGNALED(status)
        record = wire.ExitRecord(
            kind=wire.ExitKind.SIGNALLED if signalled else wire.ExitKind.EXITED,
            status=os.WTERMSIG(status) if signalled else os.WEXITSTATUS(status),
            user_microseconds=int(usage.ru_utime * 1e6),
            system_microseconds=int(usage.ru_stime * 1e6),
            memory_peak=usage.ru_maxrss * 1024,
        )
        os.write(exit_pipe, wire.pack_exit(record))
        os._exit(0)
