"""System calls that Python has no function for, by number."""

from __future__ import annotations

import ctypes
import os
import platform

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_X86_64, _ARM64 = 0, 1
_NUMBERS = {
    "add_key": (248, 217), "bpf": (321, 280), "clone3": (435, 435), "init_module": (175, 105),
    "io_uring_setup": (425, 425), "memfd_secret": (447, 447), "mount": (165, 40), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "open_tree": (428, 428), "perf_event_open": (298, 241), "personality": (135, 92),
    "pidfd_getfd": (438, 438), "pivot_root": (155, 41), "process_vm_readv": (310, 270), "ptrace": (101, 117),
    "setns": (308, 268), "shmget": (29, 194), "socket": (41, 198), "unshare": (272, 97), "userfaultfd": (323, 282),
}  # fmt: skip
_COLUMN = {"x86_64": _X86_64, "aarch64": _ARM64}.get(platform.machine(), _X86_64)


def call(name: str, *arguments: int | bytes | None) -> int:
    """The system call `name`; OSError where the kernel says no."""
    converted = [
        ctypes.c_ulong(argument & (2**64 - 1)) if isinstance(argument, int) else ctypes.c_char_p(argument)
        for argument in arguments
    ]
    result = int(_libc.syscall(ctypes.c_long(_NUMBERS[name][_COLUMN]), *converted))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result


def address(size: int) -> int:
    """The address of `size` zero bytes that stay where they are."""
    buffer = ctypes.create_string_buffer(size)
    _kept.append(buffer)
    return ctypes.addressof(buffer)


_kept: list[ctypes.Array[ctypes.c_char]] = []
