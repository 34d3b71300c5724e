"""What the gateway gives up before it reads a byte of anybody's: ids, capabilities, processes, and most of the kernel.

Runs as: the gateway; root until `confine` returns.
Reads from strangers: nothing.

The filter is a list of what is refused, and not of what is allowed: CPython, OpenSSL and SQLite are updated by the
operator's distribution, and a call that one of them begins to need must not end the service. What it takes away is what
a captured gateway could do to others: connect anywhere, listen elsewhere, start or trace processes, change mounts,
namespaces and keys, and the parts of the kernel that have a history (io_uring, bpf, userfaultfd, perf).
"""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path

from runagentd import confinement, kernel

PLACE = Path("/tmp")


def own_folder(data: int) -> Path:
    """Where SQLite finds the folder `data`: it opens by path, and the gateway can reach none of the state directory's.

    In a mount namespace of its own the gateway has that folder for its /tmp, and does not see the host's.
    """
    # Detached before: a mount of another namespace cannot be bound in this one.
    tree = kernel.open_tree(data, ".", kernel.OPEN_TREE_CLONE)
    try:
        attributes = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV | kernel.MOUNT_ATTR_NOEXEC
        kernel.mount_setattr(tree, set_attributes=attributes)
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.move_mount(tree, str(PLACE))
    finally:
        os.close(tree)
    return PLACE


def confine(uid: int, gid: int, *, last_capability: int | None = None) -> None:
    """Drop to `uid`, load the filter, and believe the kernel only: PermissionError where anything is left."""
    filter = confinement.program(platform.machine())
    confinement.confine(uid, gid, filter, tasks=0, last_capability=last_capability)
    look_at_sockets()


def look_at_sockets() -> None:
    """By an attempt: PermissionError where we can make one."""
    try:
        socket.socket(socket.AF_UNIX).close()
    except PermissionError:
        return
    raise PermissionError("the filter of system calls lets us make sockets")
