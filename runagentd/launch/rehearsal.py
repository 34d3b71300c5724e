"""Go through the parts of a launch that change nothing, so that each fork finds them at hand.

Runs as: the zygote, before it forks anything.
Reads from strangers: nothing.
As `runner.rehearsal`, which is about what comes after the gate: the interpreter specialises its code (PEP 659) and
remembers where it found which attribute, here, once for all instances. Else each fork would write both down for itself,
on pages of its own: 0.4 MB of each of an instance's two processes (measured 2026-11-28).
"""

from __future__ import annotations

import os
import select
import signal
import socket

from runagentd import kernel
from runagentd.launch import reaper, steps
from runagentd.launch.spare import SpareProgress, receive
from runagentd.wire import launch as wire

_TIMES = 16
"""CPython 3.11 specialises a function when it has been called eight times."""
_STEPS = b"".join(b"1\0%b\0" % verb for verb in (b"unshare", b"wait-for-reaper", b"stand-by"))
"""Of a spare, without arguments: unshare(2) of nothing, a reaper that was never forked, and a report."""


def rehearse_often() -> None:
    """As often as it takes."""
    for _ in range(_TIMES):
        _rehearse()


def _rehearse() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        # From here as in `spare.run`, of which only the steps are others.
        named = dict.fromkeys(wire.SPARE_DESCRIPTORS, -1)
        launch = steps.Launch(descriptors={**named, "socket": theirs.fileno(), "steps": _memfd(_STEPS)})
        progress = SpareProgress(launch)
        progress.carry_out(steps.parse(launch.read("steps")))
        given = [_memfd(_STEPS) for _ in wire.ASSIGN_DESCRIPTORS]
        socket.send_fds(ours, [wire.ASSIGN], given)
        launch.mounts = receive(launch)
        progress.carry_out(steps.parse(launch.read("steps")))
        for descriptor in (*given, *(launch.take(name) for name in wire.ASSIGN_DESCRIPTORS if name != "steps")):
            os.close(descriptor)
    _be_reaper()


def _be_reaper() -> None:
    children = kernel.signal_descriptor([signal.SIGCHLD])
    poll = select.poll()
    poll.register(children, select.POLLIN)
    poll.poll(0)
    os.close(children)
    reaper.reap(-1, -1)
    kernel.set_process_name("zygote")


def _memfd(content: bytes) -> int:
    return kernel.sealed_memfd("rehearsal", content)
