"""System calls by number, for what Python has no function for and for numbers that should not exist.

Runs as: see `frame`.
Reads from strangers: nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

X86_64 = platform.machine() == "x86_64"

# Name: number on x86-64, number on arm64; 0 is "not on this architecture" (no call here has number 0 on x86-64).
_NUMBERS = {
    "acct": (163, 89), "add_key": (248, 217), "bpf": (321, 280), "cachestat": (451, 451), "capset": (126, 91),
    "chroot": (161, 51), "clone": (56, 220), "clone3": (435, 435), "delete_module": (176, 106),
    "execveat": (322, 281), "fanotify_init": (300, 262), "finit_module": (313, 273), "fsopen": (430, 430),
    "fspick": (433, 433), "getpid": (39, 172), "init_module": (175, 105), "inotify_init1": (294, 26),
    "io_setup": (206, 0), "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "ioctl": (16, 29),
    "iopl": (172, 0), "ioprio_set": (251, 30), "kcmp": (312, 272), "kexec_file_load": (320, 294),
    "kexec_load": (246, 104), "keyctl": (250, 219), "listmount": (458, 458), "mbind": (237, 235),
    "membarrier": (324, 283), "memfd_create": (319, 279), "memfd_secret": (447, 447), "migrate_pages": (256, 238),
    "mincore": (27, 232), "mlock": (149, 228), "mlockall": (151, 230), "modify_ldt": (154, 0), "mount": (165, 40),
    "mount_setattr": (442, 442), "move_mount": (429, 429), "move_pages": (279, 239), "mq_open": (240, 180),
    "msgget": (68, 186), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "open_tree": (428, 428),
    "openat": (257, 56), "openat2": (437, 437), "perf_event_open": (298, 241), "personality": (135, 92),
    "pidfd_getfd": (438, 438), "pidfd_open": (434, 434), "pivot_root": (155, 41), "prctl": (157, 167),
    "prlimit64": (302, 261), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl": (179, 60),
    "reboot": (169, 142), "request_key": (249, 218), "rt_sigqueueinfo": (129, 138), "sched_setattr": (314, 274),
    "seccomp": (317, 277), "semget": (64, 190), "setdomainname": (171, 162), "setfsuid": (122, 151),
    "sethostname": (170, 161), "setns": (308, 268), "settimeofday": (164, 170), "setxattr": (188, 5),
    "shmget": (29, 194), "socket": (41, 198), "splice": (275, 76), "statmount": (457, 457), "swapoff": (168, 225),
    "swapon": (167, 224), "syncfs": (306, 267), "syslog": (103, 116), "tgkill": (234, 131), "timer_create": (222, 107),
    "umount2": (166, 39), "unshare": (272, 97), "userfaultfd": (323, 282), "vmsplice": (278, 75),
}  # fmt: skip

CLONE_FLAGS = {
    "user": 0x10000000, "mnt": 0x00020000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x08000000,
    "uts": 0x04000000, "cgroup": 0x02000000, "time": 0x00000080,
}  # fmt: skip
SIGCHLD = 17
AT_FDCWD = -100
HALF = 1 << 32
"""One bit in the upper half of an argument that the kernel reads as 32 bits."""


def call(name: str, *arguments: int | bytes | None) -> int:
    """The system call `name`; OSError where the kernel, or a filter, says no."""
    number = number_of(name)
    if number == 0 and name != "io_setup":
        raise OSError(errno.ENOSYS, "not on this architecture", name)
    return raw(number, *arguments)


def number_of(name: str) -> int:
    return _NUMBERS[name][0 if X86_64 else 1]


def raw(number: int, *arguments: int | bytes | None) -> int:
    """The system call of that number, each argument in all of its 64 bits."""
    converted = [
        ctypes.c_char_p(argument) if not isinstance(argument, int) else ctypes.c_ulong(argument & (2**64 - 1))
        for argument in arguments
    ]
    result = int(libc.syscall(ctypes.c_long(number), *converted))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), f"system call {number}")
    return result


def room(size: int) -> int:
    """The address of `size` zero bytes that live as long as the process."""
    buffer = ctypes.create_string_buffer(size)
    _rooms.append(buffer)
    return ctypes.addressof(buffer)


_rooms: list[ctypes.Array[ctypes.c_char]] = []


def vector(address: int, size: int) -> bytes:
    """One struct iovec."""
    return address.to_bytes(8, "little") + size.to_bytes(8, "little")


def forked(flags: int) -> str:
    """clone(2) as fork(2), with `flags`; the child ends at once."""
    child = call("clone", flags | SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return f"process {child} was made with flags {flags:#x}"


def prctl(option: int, *arguments: int) -> int:
    return call("prctl", option, *arguments, *[0] * (4 - len(arguments)))
