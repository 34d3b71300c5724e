"""Make a v2 cgroup one that may have limited children: enable its controllers, and empty it of processes first.

Runs as: the supervisor, root, at its start.
Reads from strangers: nothing.
What a maintainer must not break: a process that is not the daemon's is never moved. Where one lives in the daemon's own
cgroup (a login session's shell, say), the daemon does not start, and says how to start it.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from pathlib import Path

from runagentd.errors import HostError
from runagentd.plan.facts import Hierarchy
from runagentd.supervise.cgroup_files import CgroupFiles
from runagentd.supervise.cgroup_layout import LEAF

_ATTEMPTS = 5


def delegate(files: CgroupFiles, own: int, hierarchy: Hierarchy, is_ours: Callable[[int], bool]) -> None:
    """Enable the controllers for our children: no process may be left in our own cgroup then (cgroup-v2.rst,
    "No Internal Process Constraint"), so ours move to a leaf; what is not ours is not moved.
    """
    missing = set(hierarchy.controllers) - set(files.read(own, "cgroup.controllers").split())
    if missing:
        raise HostError(
            f"{hierarchy.own}: no cgroup controller {', '.join(sorted(missing))} here",
            "start the daemon with 'systemd-run --scope -p Delegate=yes', or by a unit with 'Delegate=yes'",
        )
    if set(hierarchy.controllers) <= set(files.read(own, "cgroup.subtree_control").split()):
        return
    enable = " ".join(f"+{name}" for name in hierarchy.controllers)
    with contextlib.suppress(OSError):  # the root of the whole hierarchy is exempt
        files.write(own, "cgroup.subtree_control", enable)
        return
    # More than once: what is moved may have started another process here a moment before.
    for attempt in range(_ATTEMPTS):
        _move_to_leaf(files, own, hierarchy, is_ours)
        try:
            files.write(own, "cgroup.subtree_control", enable)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or attempt == _ATTEMPTS - 1:
                raise HostError(f"{hierarchy.own}: cannot enable {enable}: {error.strerror}") from error


def _move_to_leaf(files: CgroupFiles, own: int, hierarchy: Hierarchy, is_ours: Callable[[int], bool]) -> None:
    pids = {int(line) for line in files.read(own, "cgroup.procs").split()}
    strangers = sorted(pid for pid in pids if not is_ours(pid))
    if strangers:
        raise HostError(
            f"{hierarchy.own}: processes that are not the daemon's live in this cgroup too "
            f"({', '.join(map(str, strangers[:5]))}), so it cannot have limited children",
            "start the daemon in a cgroup of its own: by 'systemd-run --scope -p Delegate=yes runagentd serve …', by a "
            "unit with 'Delegate=yes', or as the first process of a container",
        )
    with contextlib.suppress(FileExistsError):
        files.make(own, LEAF)
    for pid in sorted(pids):
        with contextlib.suppress(ProcessLookupError):
            files.write(own, f"{LEAF}/cgroup.procs", str(pid))


def descends_from(pid: int, root: int) -> bool:
    """Whether `pid` is `root` or was started below it."""
    seen: set[int] = set()
    while pid > 0 and pid not in seen:
        if pid == root:
            return True
        seen.add(pid)
        try:
            status = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        pid = int(status.rpartition(")")[2].split()[1])  # the name in parentheses may hold anything (proc_pid_stat(5))
    return False
