"""Compile a filter to the program that seccomp(2) takes, with the distribution's libseccomp.

Runs as: the supervisor and `runagentctl doctor`; never a child: what it makes is handed over as bytes.
Reads from strangers: nothing.
Our own prologue stands before libseccomp's program: it kills calls of another ABI and answers ENOSYS to calls
that are newer than the table. Nothing but the native architecture is ever added (see policies/syscalls.toml).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct

from runagentd.errors import HostError
from runagentd.plan.seccomp import Action, Rule, SyscallFilter, Verdict
from runagentd.plan.syscalls import ALL_BITS

INSTRUCTIONS_MAX = 4096
"""BPF_MAXINSNS, bpf_common.h."""

AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_AARCH64 = 0xC00000B7
_X32_BIT = 0x40000000

# seccomp.h: enum scmp_filter_attr and enum scmp_compare.
_ATTRIBUTE_BAD_ARCH = 2
_ATTRIBUTE_OPTIMIZE = 8
_COMPARE_EQUAL = 4
_COMPARE_MASKED_EQUAL = 7
_BINARY_TREE = 2

# linux/seccomp.h, the same words in libseccomp's and the kernel's interface.
_RETURN = {
    Verdict.KILL_PROCESS: 0x80000000,
    Verdict.TRAP: 0x00030000,
    Verdict.ERRNO: 0x00050000,
    Verdict.NOTIFY: 0x7FC00000,
    Verdict.LOG: 0x7FFC0000,
    Verdict.ALLOW: 0x7FFF0000,
}

# linux/bpf_common.h: a word of struct seccomp_data, jumps, the end.
_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_AT_LEAST, _END = 0x20, 0x15, 0x25, 0x35, 0x06
_OFFSET_NUMBER, _OFFSET_ARCH = 0, 4


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operation", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class _Version(ctypes.Structure):
    """struct scmp_version."""

    _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise HostError("libseccomp.so.2 is missing", "install the package libseccomp2") from error
    context, number = ctypes.c_void_p, ctypes.c_int
    library.seccomp_version.restype = ctypes.POINTER(_Version)
    library.seccomp_version.argtypes = ()
    library.seccomp_arch_native.restype = ctypes.c_uint32
    library.seccomp_arch_native.argtypes = ()
    library.seccomp_syscall_resolve_name.restype = number
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_init.restype = context
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.restype = None
    library.seccomp_release.argtypes = (context,)
    library.seccomp_attr_set.restype = number
    library.seccomp_attr_set.argtypes = (context, number, ctypes.c_uint32)
    library.seccomp_rule_add_array.restype = number
    library.seccomp_rule_add_array.argtypes = (
        context, ctypes.c_uint32, number, ctypes.c_uint, ctypes.POINTER(_Comparison)
    )  # fmt: skip
    library.seccomp_export_bpf.restype = number
    library.seccomp_export_bpf.argtypes = (context, number)
    return library


def version() -> tuple[int, int, int]:
    """libseccomp's version; raises HostError where it is missing."""
    found = _library().seccomp_version().contents
    return found.major, found.minor, found.micro


def native_arch() -> int:
    """The AUDIT_ARCH_ word of this machine; raises HostError for one that the table was not written for."""
    arch = int(_library().seccomp_arch_native())
    if arch not in (AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64):
        raise HostError(f"this machine's architecture ({arch:#x}) has no seccomp table; x86-64 and arm64 have")
    return arch


def resolve(call: str, number: int | None = None) -> int | None:
    """The number of a call here, or None where this architecture does not have it.

    Raises KeyError for a name that libseccomp does not know, unless its `number` comes with it.
    """
    known = int(_library().seccomp_syscall_resolve_name(call.encode()))
    if known >= 0:
        if number is not None and number != known:
            raise HostError(f"libseccomp calls {call} number {known}, and policies/syscalls.toml {number}")
        return known
    if number is not None:
        return number
    if known == -1:  # __NR_SCMP_ERROR; what lies below are names of other architectures
        raise KeyError(call)
    return None


def compile(filter: SyscallFilter) -> bytes:
    """The program as an array of struct sock_filter."""
    library = _library()
    arch = native_arch()
    context = library.seccomp_init(_word(filter.default))
    if context is None:
        raise HostError(f"libseccomp {_dotted()} refuses the default action {filter.default.describe()}")
    try:
        # Its own default for this is to kill the thread only, which leaves a process with locks that nobody holds.
        _check(library.seccomp_attr_set(context, _ATTRIBUTE_BAD_ARCH, _RETURN[Verdict.KILL_PROCESS]), "bad-arch action")
        _check(library.seccomp_attr_set(context, _ATTRIBUTE_OPTIMIZE, _BINARY_TREE), "binary tree")
        for rule in filter.rules:
            _add(context, rule)
        body = _export(context)
    finally:
        library.seccomp_release(context)
    program = _prologue(arch, filter.newest.number) + body
    if len(program) // 8 > INSTRUCTIONS_MAX:
        raise HostError(f"the filter has {len(program) // 8} instructions; the kernel takes {INSTRUCTIONS_MAX}")
    return program


def _add(context: int, rule: Rule) -> None:
    try:
        number = resolve(rule.call, rule.number)
    except KeyError:
        if rule.optional:
            return
        raise HostError(
            f"libseccomp {_dotted()} does not know the system call {rule.call}",
            "give its number in policies/syscalls.toml, or set optional = true there",
        ) from None
    if number is None:
        return
    comparisons = (_Comparison * len(rule.conditions))()
    for slot, condition in zip(comparisons, rule.conditions):
        slot.argument = condition.argument
        if condition.mask == ALL_BITS:
            slot.operation, slot.first, slot.second = _COMPARE_EQUAL, condition.value, 0
        else:
            slot.operation, slot.first, slot.second = _COMPARE_MASKED_EQUAL, condition.mask, condition.value
    _check(
        _library().seccomp_rule_add_array(context, _word(rule.action), number, len(comparisons), comparisons),
        f"rule for {rule.call}",
    )


def _export(context: int) -> bytes:
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        _check(_library().seccomp_export_bpf(context, descriptor), "export")
        size = os.fstat(descriptor).st_size
        body = os.pread(descriptor, size, 0)
    finally:
        os.close(descriptor)
    if not body or len(body) != size or size % 8:
        raise HostError(f"libseccomp {_dotted()} wrote {len(body)} bytes, which is not a program")
    return body


def _prologue(arch: int, newest: int) -> bytes:
    """What every call meets first; calls that it knows go on to libseccomp's program behind it."""
    kill, enosys = _RETURN[Verdict.KILL_PROCESS], _RETURN[Verdict.ERRNO] | errno.ENOSYS
    # The last three lines are the ends: enosys, kill, and (falling off) the body.
    lines: list[tuple[int, int | str, int | str, int]] = [
        (_LOAD, 0, 0, _OFFSET_ARCH),
        (_JUMP_EQUAL, 0, "kill", arch),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
        (_JUMP_GREATER, 0, "body", newest),
    ]
    if arch == AUDIT_ARCH_X86_64:
        # x32 shares the AUDIT_ARCH word and marks its numbers instead. -1 is what a tracer skips a call with.
        lines.append((_JUMP_EQUAL, "enosys", 0, 0xFFFFFFFF))
        lines.append((_JUMP_AT_LEAST, "kill", "enosys", _X32_BIT))
    ends = {"enosys": len(lines), "kill": len(lines) + 1, "body": len(lines) + 2}
    lines += [(_END, 0, 0, enosys), (_END, 0, 0, kill)]
    program = bytearray()
    for position, (code, if_true, if_false, value) in enumerate(lines):
        # A jump counts from the instruction after it (struct sock_filter, linux/filter.h).
        jump_true = ends[if_true] - position - 1 if isinstance(if_true, str) else if_true
        jump_false = ends[if_false] - position - 1 if isinstance(if_false, str) else if_false
        program += struct.pack("=HBBI", code, jump_true, jump_false, value)
    return bytes(program)


def _word(action: Action) -> int:
    return _RETURN[action.verdict] | (action.errno & 0xFFFF)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise HostError(f"libseccomp {_dotted()}: {what}: {os.strerror(-result)}")


def _dotted() -> str:
    return ".".join(str(part) for part in version())
