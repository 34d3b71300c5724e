"""Give up everything but one readable folder and one pipe, then look whether that is so.

Runs as: root for a moment, then a uid that owns nothing.
Reads from strangers: nothing; it must be over before the first byte of theirs is read.
Any refusal ends the loader: there is no weaker way to load.
"""

from __future__ import annotations

import os
import resource

from runagentd import kernel
from runagentd.plan import landlock

CPU_SECONDS = 10
ADDRESS_SPACE = 512 * 1024 * 1024
_LIMITS = {
    resource.RLIMIT_CPU: CPU_SECONDS,
    resource.RLIMIT_AS: ADDRESS_SPACE,
    resource.RLIMIT_NOFILE: 32,
    # No process and no thread: counted per real uid (setrlimit(2)), and this uid has one process already.
    resource.RLIMIT_NPROC: 0,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_CORE: 0,
}

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3


class NotConfined(Exception):
    """The loader's own status is not what it must be."""


def confine(folder: int, report: int, *, uid: int, gid: int) -> None:
    """Keep the directory `folder` for reading and `report` for writing, and nothing else. OSError or NotConfined."""
    kernel.close_all_but({folder, report})
    # Both while /proc is within reach.
    last = kernel.last_capability()
    status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    kernel.unshare(kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | kernel.CLONE_NEWNS)
    # The folder is all that a path can name from here on, and Landlock says the same again below.
    os.fchdir(folder)
    os.chroot(".")
    for limit, value in _LIMITS.items():
        resource.setrlimit(limit, (value, value))
    kernel.drop_privileges(uid, gid, last=last)
    kernel.set_dumpable(False)  # after the ids: a change of them sets it again (prctl(2))
    _restrict_files(folder)
    text = os.pread(status, 65536, 0).decode("utf-8", "replace")
    os.close(status)
    look(text, uid=uid, gid=gid)


def _restrict_files(folder: int) -> None:
    abi = kernel.landlock_abi()
    if abi < 1:
        raise NotConfined("this kernel has no Landlock")
    filesystem, network, scoped = landlock.handled(abi)
    ruleset = kernel.landlock_create_ruleset(filesystem=filesystem, network=network, scoped=scoped)
    try:
        kernel.landlock_allow_path(ruleset, folder, _READ_FILE | _READ_DIR)
        kernel.landlock_restrict_self(ruleset)
    finally:
        os.close(ruleset)


def look(status: str, *, uid: int, gid: int) -> None:
    """NotConfined unless `status`, a text of /proc/PID/status, shows what it must (proc_pid_status(5))."""
    found = {key: value.split() for key, _, value in (line.partition(":") for line in status.splitlines())}
    expected = {
        "Uid": [str(uid)] * 4,
        "Gid": [str(gid)] * 4,
        "Groups": [],
        "NoNewPrivs": ["1"],
        "Threads": ["1"],
        **{name: ["0" * 16] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
    }
    wrong = [key for key, value in expected.items() if found.get(key) != value]
    if wrong:
        raise NotConfined("; ".join(f"{key} is {' '.join(found.get(key, ['missing']))}" for key in wrong))
