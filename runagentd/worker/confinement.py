"""What a worker gives up before it reads a byte of anybody's: the gateway's list, and every file there is.

Runs as: a worker of the gateway; root until `confine` returns.
Reads from strangers: nothing.
"""

from __future__ import annotations

import os

from runagentd import kernel
from runagentd.gateway import confinement

_ROOT = "/tmp"
_FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC


def leave_files() -> None:
    """Have a root directory of our own, without anything in it but what proc(5) says of ourselves. OSError.

    Certificates come as descriptors, and OpenSSL opens files by name: /proc/self/fd is what it finds them in. Of /proc
    there is this process's own folder, and no other one's.
    """
    own = kernel.open_tree(kernel.AT_FDCWD, f"/proc/{os.getpid()}", kernel.OPEN_TREE_CLONE)
    try:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.mount("none", _ROOT, "tmpfs", _FLAGS, "size=4k,nr_inodes=4,mode=0755")
        os.makedirs(f"{_ROOT}/proc/self")
        kernel.move_mount(own, f"{_ROOT}/proc/self")
        kernel.mount("none", _ROOT, "", _FLAGS | kernel.MS_REMOUNT | kernel.MS_RDONLY, "")
    finally:
        os.close(own)
    os.chdir(_ROOT)
    kernel.pivot_root(".", ".")
    kernel.unmount(".")
    os.chdir("/")


def look_at_files() -> None:
    """PermissionError where anything else can be seen."""
    if (os.listdir("/"), os.listdir("/proc")) != (["proc"], ["self"]):
        raise PermissionError("something is left in our root directory")


def confine(uid: int, gid: int) -> None:
    """No file, no id, no capability, no new socket, no process: PermissionError or OSError where anything is left."""
    last = kernel.last_capability()
    leave_files()
    look_at_files()
    confinement.confine(uid, gid, last_capability=last)
