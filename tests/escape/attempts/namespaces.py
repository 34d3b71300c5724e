"""Attempts with namespaces and mounts: new ones, other ones, and changing the ones that hold us.

Runs as: see `frame`.
Reads from strangers: nothing.
"""

from __future__ import annotations

import os
import struct

from tests.escape.attempts import kernel
from tests.escape.attempts.frame import Function, attempt, attempts

AREA = "namespaces"

_IDEAS = {
    "user": "every capability, inside; where most kernel exploits of recent years begin",
    "mnt": "mounts of our own",
    "pid": "process ids of our own",
    "net": "a network of our own, with all of its kernel code",
    "ipc": "shared memory of our own",
    "uts": "a host name of our own",
    "cgroup": "a root of control groups of our own",
    "time": "clocks of our own",
}


def _unshare(flag: int) -> Function:
    def unshare() -> str:
        kernel.call("unshare", flag)
        return "in a namespace of our own"

    return unshare


def _clone(flag: int) -> Function:
    return lambda: kernel.forked(flag)


def _clone3(flag: int) -> Function:
    def clone3() -> str:
        arguments = struct.pack("<8Q", flag, 0, 0, 0, kernel.SIGCHLD, 0, 0, 0)
        child = kernel.call("clone3", arguments, len(arguments))
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        return "made a process in a namespace of its own"

    return clone3


attempts(
    AREA,
    "EPERM",
    [(f"unshare_{name}", idea, _unshare(kernel.CLONE_FLAGS[name])) for name, idea in _IDEAS.items()],
)
attempts(
    AREA,
    "EPERM",
    # CLONE_NEWTIME is not among them: clone(2) reads that bit as part of the exit signal.
    [(f"clone_{name}", idea, _clone(kernel.CLONE_FLAGS[name])) for name, idea in _IDEAS.items() if name != "time"],
)
attempts(
    AREA,
    "ENOSYS",
    [
        (f"clone3_{name}", "clone3 hides its flags in memory, where no filter reads", _clone3(kernel.CLONE_FLAGS[name]))
        for name in ("user", "mnt", "net")
    ],
)


@attempt(AREA, "ENOSYS")
def clone3_into_a_control_group() -> str:
    """CLONE_INTO_CGROUP starts a child in a group that a descriptor names: out of our limits."""
    held = os.open("/sys/fs/cgroup" if os.path.isdir("/sys/fs/cgroup") else "/", os.O_RDONLY)
    arguments = struct.pack("<11Q", 0, 0, 0, 0, kernel.SIGCHLD, 0, 0, 0, 0, 0, held)
    child = kernel.call("clone3", arguments, len(arguments))
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "clone3 was tried"


@attempt(AREA, "EPERM")
def clone_user_with_the_upper_half_set() -> str:
    """A filter that compares 64 bits for equality does not see the flag; the kernel reads 32."""
    return kernel.forked(kernel.HALF | kernel.CLONE_FLAGS["user"])


def _setns(path: str, kind: int) -> Function:
    def setns() -> str:
        kernel.call("setns", os.open(path, os.O_RDONLY), kind)
        return "entered"

    return setns


attempts(
    AREA,
    "EPERM EACCES ENOENT",
    [
        ("enter_the_mounts_of_process_1", "another root", _setns("/proc/1/ns/mnt", 0)),
        ("enter_the_network_of_process_1", "another network", _setns("/proc/1/ns/net", 0)),
    ],
)


@attempt(AREA, "EPERM")
def enter_our_own_namespace_again() -> str:
    """setns at all, with a descriptor that is certainly there."""
    kernel.call("setns", os.open("/proc/self/ns/uts", os.O_RDONLY), kernel.CLONE_FLAGS["uts"])
    return "entered"


@attempt(AREA, "EPERM")
def enter_by_pidfd() -> str:
    """setns takes a pidfd since Linux 5.8, and then needs no /proc."""
    kernel.call("setns", os.pidfd_open(os.getppid()), kernel.CLONE_FLAGS["uts"])
    return "entered"


@attempt(AREA, "EPERM")
def ask_for_the_parent_of_a_namespace() -> str:
    """NS_GET_USERNS opens the namespace that owns ours."""
    descriptor = os.open("/proc/self/ns/uts", os.O_RDONLY)
    return f"descriptor {kernel.call('ioctl', descriptor, 0xB701, 0)}"


# ---- mounts, the old way


def _mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int) -> Function:
    def mount() -> str:
        kernel.call("mount", source, target, kind, flags, None)
        return f"mounted on {target.decode()}"

    return mount


_BIND, _REMOUNT, _RDONLY, _MOVE, _REC, _SHARED = 4096, 32, 1, 8192, 16384, 1 << 20

attempts(
    AREA,
    "EPERM",
    [
        ("mount_a_tmpfs", "a file system without our limits", _mount(b"none", b"/tmp", b"tmpfs", 0)),
        ("mount_proc", "a /proc without hidepid and subset", _mount(b"none", b"/tmp", b"proc", 0)),
        ("bind_the_root", "a bind mount loses the flags of the other", _mount(b"/", b"/tmp", None, _BIND | _REC)),
        ("remount_the_root", "take read-only away", _mount(None, b"/", None, _REMOUNT | _BIND)),
        ("remount_tmp", "take noexec away", _mount(None, b"/tmp", None, _REMOUNT | _BIND)),
        ("share_the_root", "make our mounts appear elsewhere", _mount(None, b"/", None, _SHARED)),
    ],
)


@attempt(AREA, "EPERM")
def unmount_proc() -> str:
    """What lies below a mount comes to light when it goes."""
    kernel.call("umount2", b"/proc", 2)
    return "unmounted"


@attempt(AREA, "EPERM", sees="open EINVAL EBUSY")
def turn_the_root() -> str:
    """pivot_root undoes what pivot_root did."""
    kernel.call("pivot_root", b".", b".")
    return "turned"


# ---- mounts, the new way


@attempt(AREA, "EPERM")
def open_a_file_system() -> str:
    """fsopen and fsmount mount without mount(2)."""
    return f"descriptor {kernel.call('fsopen', b'tmpfs', 0)}"


@attempt(AREA, "EPERM")
def pick_a_file_system() -> str:
    """fspick reconfigures the one that is there."""
    return f"descriptor {kernel.call('fspick', kernel.AT_FDCWD, b'/tmp', 0)}"


@attempt(AREA, "EPERM")
def copy_the_mount_tree() -> str:
    """open_tree(OPEN_TREE_CLONE) gives a tree that no path reaches."""
    return f"descriptor {kernel.call('open_tree', kernel.AT_FDCWD, b'/', 1)}"


def _move_a_clone() -> str:
    tree = kernel.call("open_tree", kernel.AT_FDCWD, b"/tmp", 1)
    kernel.call("move_mount", tree, b"", kernel.AT_FDCWD, b"/app", 4)
    return "moved"


@attempt(AREA, "EPERM", control=_move_a_clone)
def move_a_mount() -> str:
    """move_mount takes a mount away and puts it elsewhere."""
    kernel.call("move_mount", kernel.AT_FDCWD, b"/tmp", kernel.AT_FDCWD, b"/app", 0)
    return "moved"


@attempt(AREA, "EPERM")
def clear_the_flags_of_a_mount() -> str:
    """mount_setattr clears read-only without a remount."""
    attributes = struct.pack("<4Q", 0, 1, 0, 0)
    kernel.call("mount_setattr", kernel.AT_FDCWD, b"/", 0, attributes, len(attributes))
    return "cleared"


@attempt(AREA, "EPERM", lacks="ENOSYS")
def list_mounts_by_number() -> str:
    """listmount shows mounts that no path leads to."""
    request = struct.pack("<IIQQ", 24, 0, 0xFFFFFFFFFFFFFFFF, 0)
    return f"{kernel.call('listmount', request, kernel.room(8 * 64), 64, 0)} mounts"


@attempt(AREA, "EPERM", lacks="ENOSYS", sees="EFAULT EINVAL ENOENT")
def look_at_a_mount_by_number() -> str:
    """statmount tells where a mount comes from."""
    return f"statmount answered {kernel.call('statmount', 0, 0, 0, 0)}"


# ---- names


@attempt(AREA, "EPERM")
def rename_the_machine() -> str:
    """sethostname."""
    kernel.call("sethostname", b"escaped", 7)
    return "renamed"


@attempt(AREA, "EPERM")
def rename_the_domain() -> str:
    """setdomainname."""
    kernel.call("setdomainname", b"escaped", 7)
    return "renamed"
