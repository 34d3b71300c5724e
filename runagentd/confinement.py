"""What a process that faces the network gives up before it reads a byte: ids, capabilities, most of the kernel.

Runs as: the gateway, its workers and the egress process; root until `confine` returns. The builder takes the looks
alone.
Reads from strangers: nothing.

The filter is a list of what is refused, and not of what is allowed: CPython, OpenSSL and SQLite are updated by the
operator's distribution, and a call that one of them begins to need must not end the service. What it takes away is what
a captured process could do to others: start or trace processes, change mounts, namespaces and keys, and the parts of
the kernel that have a history (io_uring, bpf, userfaultfd, perf). Whether it may connect somewhere is each process's.
"""

from __future__ import annotations

import errno
import os
import resource
import struct
from collections.abc import Collection, Sequence

from runagentd import kernel

_X86_64, _AARCH64 = 0xC000003E, 0xC00000B7  # linux/audit.h
_X32_BIT = 0x40000000

# Names, and the numbers on x86-64 and arm64; None where there is no such call. From 424 on they are the same.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "fork": (57, None),
    "vfork": (58, None),
    "clone": (56, 220),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "unshare": (272, 97),
    "setns": (308, 268),
    "io_setup": (206, 0),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "personality": (135, 92),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
}

# glibc asks for clone3 first, and for clone where the kernel has none.
_ABSENT = {"clone3": (435, 435)}

# MSG_FASTOPEN connects (tcp(7)): with shutdown(2) on a listening socket before, even without socket(2) and connect(2).
# The flags are argument 3 of sendto and sendmmsg, and 2 of sendmsg.
_SENDING: dict[str, tuple[int, int, int]] = {
    "sendto": (44, 206, 3),
    "sendmsg": (46, 211, 2),
    "sendmmsg": (307, 269, 3),
}
_MSG_FASTOPEN = 0x20000000
_CLONE_THREAD = 0x10000  # clone(2)

# Classic BPF (seccomp(2), linux/filter.h); struct seccomp_data has nr at 0, arch at 4, the arguments from 16 on.
_LOAD, _IS, _HAS_ANY, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def program(
    machine: str, *, allowed: Collection[str] = (), threads: bool = False, families: Sequence[int] = ()
) -> bytes:
    """The filter as an array of struct sock_filter; KeyError for an architecture without numbers here.

    `allowed` are calls of `REFUSED` that this process needs all the same; `threads` lets it start threads, and still no
    process. `families` are those of address_families(7) of which it may make sockets, where "socket" is allowed at all;
    none is any.
    """
    arch, column = {"x86_64": (_X86_64, 0), "aarch64": (_AARCH64, 1)}[machine]
    lines = [
        _line(_LOAD, 4),
        _line(_IS, arch, 1, 0),
        _line(_RETURN, _KILL),
        _line(_LOAD, 0),
    ]
    if arch == _X86_64:
        lines += [_line(_HAS_ANY, _X32_BIT, 0, 1), _line(_RETURN, _KILL)]
    for numbers in () if "connect" in allowed else _SENDING.values():
        # Little-endian: the lower half of a 64-bit argument comes first, and no flag is in the upper.
        lines += [
            _line(_IS, numbers[column], 0, 4),
            _line(_LOAD, 16 + 8 * numbers[2]),
            _line(_HAS_ANY, _MSG_FASTOPEN, 0, 1),
            _line(_RETURN, _ERRNO | errno.EPERM),
            _line(_RETURN, _ALLOW),
        ]
    if threads:
        clone = REFUSED["clone"][column]
        lines += [
            _line(_IS, clone or 0, 0, 3),
            _line(_LOAD, 16),
            _line(_HAS_ANY, _CLONE_THREAD, 1, 0),
            _line(_RETURN, _ERRNO | errno.EPERM),
            _line(_LOAD, 0),
            _line(_IS, clone or 0, 0, 1),
            _line(_RETURN, _ALLOW),
        ]
    if families:
        lines += [
            _line(_IS, REFUSED["socket"][column] or 0, 0, len(families) + 3),
            _line(_LOAD, 16),
            # From each over those that come after it, and over the refusal.
            *(_line(_IS, family, len(families) - position, 0) for position, family in enumerate(families)),
            _line(_RETURN, _ERRNO | errno.EPERM),
            _line(_RETURN, _ALLOW),
        ]
    for calls, answer in ((_ABSENT, errno.ENOSYS), (REFUSED, errno.EPERM)):
        for name, both in calls.items():
            number = both[column]
            if number is not None and name not in allowed:
                lines += [_line(_IS, number, 0, 1), _line(_RETURN, _ERRNO | answer)]
    lines.append(_line(_RETURN, _ALLOW))
    return b"".join(lines)


def _line(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, k)


def confine(uid: int, gid: int, filter: bytes, *, tasks: int, last_capability: int | None = None) -> None:
    """Drop to `uid`, load the filter, and believe the kernel only: PermissionError where anything is left.

    `tasks` is how many threads and processes the uid may have, this one not counted where it is 0. `last_capability` is
    for a process that sees no more of /proc than itself.
    """
    # What a captured process forks would outlive its restart, and the daemon.
    resource.setrlimit(resource.RLIMIT_NPROC, (tasks, tasks))
    if os.getuid() == 0:
        kernel.drop_privileges(uid, gid, last=last_capability)
    look(kernel.status_fields(), uid, gid)
    if len(os.listdir("/proc/self/task")) != 1:
        raise PermissionError("another thread would not have the filter")
    kernel.load_seccomp_filter(filter)
    look_at_filter(kernel.status_fields())


def look(status: dict[str, str], uid: int, gid: int) -> None:
    """proc_pid_status(5)."""
    uids, gids = status["Uid"].split(), status["Gid"].split()
    left = [name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(status[name], 16)]
    if set(uids) != {str(uid)} or set(gids) != {str(gid)} or uid == 0 or gid == 0:
        raise PermissionError(f"uid {uids} and gid {gids} are not {uid} and {gid}, or are root's")
    if left or status["NoNewPrivs"] != "1" or status["Groups"]:
        raise PermissionError(
            f"privileges are left: {left}, NoNewPrivs {status['NoNewPrivs']}, groups {status['Groups']!r}"
        )


def look_at_filter(status: dict[str, str]) -> None:
    """proc_pid_status(5), and an attempt: unshare(2) of nothing does nothing, and is refused all the same."""
    if status["Seccomp"] != "2":
        raise PermissionError(f"there is no filter of system calls: Seccomp {status['Seccomp']}")
    try:
        kernel.unshare(0)
    except PermissionError:
        return
    raise PermissionError("the filter of system calls refuses nothing")
