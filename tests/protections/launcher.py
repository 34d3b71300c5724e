"""Steps of a launch that protect less than the product's, and steps that lay out a bait: for weakened plans only.

Runs as: the zygote and its children, in the copy of the launcher's package that `trial` makes.
Reads from strangers: nothing.
A weakened plan names these verbs; the copy's table of verbs is the product's and this one.
"""

from __future__ import annotations

import os
import socket
from typing import NoReturn

from runagentd import kernel
from runagentd.launch import reaper, steps
from runagentd.wire import launch as wire

_FLAGS = {
    "ro": kernel.MS_RDONLY,
    "nosuid": kernel.MS_NOSUID,
    "nodev": kernel.MS_NODEV,
    "noexec": kernel.MS_NOEXEC,
}
LEAK = 100
"""The number of the descriptor that `plant_descriptor` leaves open."""


def _flags(words: str) -> int:
    return sum(_FLAGS[word] for word in words.split(",") if word)


def flagged_new_root(launch: steps.Launch, flags: str, mode: str, size: str, inodes: str) -> None:
    kernel.mount("root", steps.NEW_ROOT, "tmpfs", _flags(flags), f"size={size},nr_inodes={inodes},mode={mode}")


def flagged_tmpfs(launch: steps.Launch, flags: str, path: str, size: str, inodes: str, mode: str, owner: str) -> None:
    options = f"size={size},nr_inodes={inodes},mode={mode},uid={owner},gid={owner}"
    kernel.mount("tmpfs", steps.NEW_ROOT + path, "tmpfs", _flags(flags), options)


def flagged_proc(launch: steps.Launch, flags: str, options: str, path: str) -> None:
    kernel.mount("proc", steps.NEW_ROOT + path, "proc", _flags(flags), options)


def pivot_and_keep_the_old_root(launch: steps.Launch, working_directory: str) -> None:
    os.chdir(steps.NEW_ROOT)
    kernel.pivot_root(".", ".")
    os.chdir(working_directory)


def capabilities_without(launch: steps.Launch, part: str, last: str) -> None:
    """`steps.capabilities` without the "bounding-set", or without the "securebits"."""
    if part == "securebits":
        kernel._SECUREBITS_LOCKED = 0
    kernel.clear_capabilities(-1 if part == "bounding-set" else int(last))


def plant_descriptor(launch: steps.Launch) -> None:
    """A bait: the old root, open, as it would be after a mistake in the launcher."""
    descriptor = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.dup2(descriptor, LEAK)
    os.close(descriptor)


def descriptors_without(launch: steps.Launch, *parts: str) -> None:
    """`steps.descriptors` without "close", the closing of all others, or without "check", the look at what is open."""
    close_range, check = kernel.close_range, steps.check_descriptors
    if "close" in parts:
        kernel.close_range = lambda first, last=0: None
    if "check" in parts:
        steps.check_descriptors = lambda expected: None
    try:
        steps.descriptors(launch)
    finally:
        kernel.close_range, steps.check_descriptors = close_range, check


_left_out: set[str] = set()
"""What the reaper that is forked off next leaves out: this process is a fork, so that it is one launch's own."""


def reaper_without(launch: steps.Launch, *parts: str) -> None:
    """The reaper that is forked off next goes without these steps of its own, or has its "dumpable" flag set."""
    _left_out.update(parts)

    def confine(launch: steps.Launch, agent_uid: int, last_capability: int) -> None:
        todo: list[tuple[str, tuple[str, ...]]] = [
            ("clear_groups", ()),
            ("user_namespace", ()),
            ("identity", (str(agent_uid),)),
            ("capabilities", (str(last_capability),)),
            ("no_new_privs", ()),
            ("not_dumpable", ()),
        ]
        for name, arguments in todo:
            if name == "not_dumpable" and "dumpable" in _left_out:
                set_dumpable(launch)
            if name not in _left_out:
                getattr(steps, name)(launch, *arguments)
        if "filter" in _left_out:
            kernel.load_seccomp_filter = lambda program, flags=0: 0
        if "descriptors" in _left_out:
            kernel.close_all_but = lambda keep: None

    reaper._confine = confine


def set_dumpable(launch: steps.Launch) -> None:
    """A bait: what a change of uid leaves behind where the operator has set fs.suid_dumpable to 1 (proc_sys_fs(5))."""
    kernel.set_dumpable(True)


def gate_without_waiting(launch: steps.Launch) -> NoReturn:
    """The gate reports as it should, and then somebody else says OPEN."""
    from runagentd.launch.gate import pass_gate
    from runagentd.launch.progress import Progress

    progress = Progress(launch)
    progress.report(wire.Stage.GATE)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    launch.descriptors["socket"] = theirs.detach()
    ours.send(wire.OPEN)
    pass_gate(progress)


STEPS: dict[str, steps.Function] = {
    "flagged-new-root": flagged_new_root,
    "flagged-tmpfs": flagged_tmpfs,
    "flagged-proc": flagged_proc,
    "pivot-and-keep-the-old-root": pivot_and_keep_the_old_root,
    "capabilities-without": capabilities_without,
    "plant-descriptor": plant_descriptor,
    "descriptors-without": descriptors_without,
    "reaper-without": reaper_without,
    "set-dumpable": set_dumpable,
    "gate-without-waiting": gate_without_waiting,
}
