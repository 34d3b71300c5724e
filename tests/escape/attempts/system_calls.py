"""Attempts with system calls that an agent does not need: the kernel's larger and less travelled doors.

Runs as: see `frame`.
Reads from strangers: nothing.
Each is called so that it does nothing even where it is allowed: a wrong magic number, an empty object, ourselves as
target. An errno that comes after the kernel's own permission check counts outside as "it got through".
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct

from tests.escape.attempts import kernel
from tests.escape.attempts.frame import Function, Nothing, attempt, attempts

AREA = "system calls"

Argument = int | bytes | None


def _call(name: str, *arguments: Argument) -> Function:
    return lambda: f"{name} answered {kernel.call(name, *arguments)}"


_ARRAY = struct.pack("<IIII112x", 2, 4, 4, 1)  # BPF_MAP_CREATE: an array of one number
_CLOCK = struct.pack("<IIQQQQQ64x", 1, 112, 0, 0, 0, 0, 0x61)  # PERF_COUNT_SW_CPU_CLOCK, disabled, user space only

# Name, what is appended to tell two attempts of one call apart, why it would be worth having, arguments.
_CALLS: tuple[tuple[str, str, str, tuple[Argument, ...]], ...] = (
    ("bpf", "", "programs of ours in the kernel", (0, _ARRAY, len(_ARRAY))),
    ("perf_event_open", "", "counters that see what the neighbours do", (_CLOCK, 0, -1, -1, 0)),
    ("userfaultfd", "", "stops the kernel in the middle of a copy", (1,)),
    (
        "add_key",
        "",
        "keyrings belong to a uid, and hold what a namespace should not",
        (b"user", b"escape", b"x", 1, -3),
    ),
    ("request_key", "", "starts a program of the host's to find a key", (b"user", b"escape-none", None, 0)),
    ("keyctl", "", "join a session keyring by name", (0, -3, 0)),
    ("io_setup", "", "the older asynchronous calls, without a filter on what they do", (1, kernel.room(8))),
    ("memfd_secret", "", "memory that even the kernel does not look into", (0,)),
    ("kcmp", "", "compares kernel addresses of two processes", (os.getpid(), os.getpid(), 0, 0, 0)),
    ("acct", "", "writes a log of all processes to a file", (b"/nonexistent",)),
    ("swapon", "", "swap to a file of ours", (b"/nonexistent", 0)),
    ("swapoff", "", "take swap from the host", (b"/nonexistent",)),
    ("quotactl", "", "quotas of the host", (0x800002 << 8, None, 0, kernel.room(128))),
    ("reboot", "", "with a wrong magic number, which the kernel looks at second", (1, 2, 3, None)),
    ("settimeofday", "", "the host's clock; with nothing to set", (0, 0)),
    ("syslog", "", "the kernel's log", (10, 0, 0)),
    ("init_module", "", "a module that is none", (kernel.room(64), 64, b"")),
    ("delete_module", "", "a module that is not there", (b"escape_none", 0x800)),
    ("finit_module", "", "a module from a file", (0, b"", 0)),
    ("kexec_load", "", "another kernel; with too many segments", (0, 1000, 0, 0)),
    ("kexec_file_load", "", "another kernel from a file", (-1, -1, 0, 0, 0)),
    ("fanotify_init", "", "watches and decides every open of the host", (0, 0)),
    ("inotify_init1", "", "watches who reads the shared runtime", (0,)),
    ("ioprio_set", "", "our turn at the disk first", (1, 0, 0)),
    ("personality", "", "no address randomisation for programs to come", (0x0040000,)),
    (
        "personality",
        "_with_the_upper_half_set",
        "the query's number with one bit the kernel ignores",
        (kernel.HALF | 0xFFFFFFFF,),
    ),
    ("iopl", "", "ports of the hardware", (3,)),
    ("modify_ldt", "", "16-bit code segments, a kernel exploit's old friend", (0, kernel.room(64), 64)),
    ("mbind", "", "memory policy; CVE-2023-4611 was in it", (0, 0, 0, 0, 0, 0)),
    ("migrate_pages", "", "moves memory of others between nodes", (os.getpid(), 0, 0, 0)),
    ("move_pages", "", "shows where pages of memory lie", (0, 0, 0, 0, 0, 0)),
    ("membarrier", "", "interrupts other processors", (0, 0, 0)),
    ("mincore", "", "shows which pages of the shared runtime others have used: CVE-2019-5489", (0, 0, kernel.room(8))),
    ("cachestat", "", "the same for files", (0, kernel.room(16), kernel.room(40), 0)),
    ("process_madvise", "", "advice about another's memory", (-1, 0, 0, 0, 0)),
    ("process_mrelease", "", "frees another's memory", (-1, 0)),
    ("mlock", "", "memory that is never given back", (kernel.room(16), 16)),
    ("mlockall", "", "all of it", (2,)),
    ("vmsplice", "", "pages into pipes: Dirty Pipe's family", (-1, 0, 0, 0)),
    ("splice", "", "pages between pipes", (-1, 0, -1, 0, 0, 0)),
    ("syncfs", "", "makes the host's disks write", (0,)),
    ("shmget", "", "shared memory by number", (0, 4096, 0o1600)),
    ("semget", "", "semaphores by number", (0, 1, 0o1600)),
    ("msgget", "", "messages by number", (0, 0o1600)),
    ("mq_open", "", "messages by name", (b"escape", 0o102, 0o600, 0)),
    ("prlimit64", "_on_ourselves", "limits, even downwards", (0, 4, struct.pack("<QQ", 0, 0), 0)),
    (
        "openat",
        "_to_create_setgid",
        "a mode that looks small to whoever reads 16 bits",
        (kernel.AT_FDCWD, b"/tmp/escape-setgid", os.O_CREAT | os.O_WRONLY, kernel.HALF | 0o2755),
    ),
)
attempts(
    AREA,
    "EPERM",
    [(f"call_{name}{suffix}", idea, _call(name, *arguments)) for name, suffix, idea, arguments in _CALLS],
    sees="open EINVAL EFAULT ENOENT ENOEXEC EBADF ENOTBLK ENOKEY ENODEV ENOTSUP ESRCH EEXIST",
    lacks="ENOSYS",
)
_RING = "does what system calls do, where no filter looks"
attempts(
    AREA,
    "EPERM ENOSYS",
    [
        ("call_io_uring_setup", _RING, _call("io_uring_setup", 4, kernel.room(120))),
        ("call_io_uring_register", _RING, _call("io_uring_register", -1, 0, 0, 0)),
    ],
    sees="open EBADF EINVAL",
    lacks="ENOSYS",
)


# ---- other processes' memory and descriptors


@attempt(AREA, "EPERM")
def trace_ourselves() -> str:
    """PTRACE_TRACEME lets the parent change our system calls after the filter looked at them."""
    return f"ptrace answered {kernel.call('ptrace', 0, 0, 0, 0)}"


@attempt(AREA, "EPERM")
def trace_the_parent() -> str:
    """PTRACE_SEIZE attaches to the runner without stopping it."""
    return f"ptrace answered {kernel.call('ptrace', 0x4206, os.getppid(), 0, 0)}"


def _own_memory(name: str) -> Function:
    def copy() -> str:
        here, there = kernel.room(16), kernel.room(16)
        count = kernel.call(name, os.getpid(), kernel.vector(here, 16), 1, kernel.vector(there, 16), 1, 0)
        return f"{count} bytes"

    return copy


attempts(
    AREA,
    "EPERM",
    [
        ("read_memory_by_pid", "process_vm_readv, on ourselves", _own_memory("process_vm_readv")),
        ("write_memory_by_pid", "process_vm_writev, on ourselves", _own_memory("process_vm_writev")),
    ],
)


@attempt(AREA, "EPERM")
def take_a_descriptor_of_another_process() -> str:
    """pidfd_getfd copies any descriptor of a process that we may trace; here our own."""
    return f"descriptor {kernel.call('pidfd_getfd', os.pidfd_open(os.getpid()), 0, 0)}"


# ---- numbers that are not what they seem


@attempt(AREA, "SIGSYS", sees="ENOSYS open")
def call_by_x32_number() -> str:
    """Bit 30 selects the x32 ABI: the same calls under numbers that a filter may not know."""
    if not kernel.X86_64:
        os.kill(os.getpid(), signal.SIGSYS)  # there is no x32 here to be tried
    return f"getpid answered {kernel.raw(0x40000000 | 39)}"


def _run(code: bytes) -> int:
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    return int(function())


@attempt(AREA, "SIGSYS SIGSEGV", sees="open SIGSEGV")
def call_by_interrupt_0x80() -> str:
    """int 0x80 makes a 32-bit call from 64-bit code: number 20 is getpid there, and 102 is socketcall."""
    if not kernel.X86_64:
        os.kill(os.getpid(), signal.SIGSYS)
    # mov eax, 20; int 0x80; ret. A kernel without 32-bit emulation answers with SIGSEGV.
    return f"getpid answered {_run(bytes.fromhex('b814000000cd80c3'))}"


@attempt(
    AREA, "ENOSYS", no_control="a number that no kernel knows answers ENOSYS everywhere; EPERM would break fallbacks"
)
def call_a_number_of_the_future() -> str:
    """A call newer than the policy must look as if the kernel did not have it."""
    return f"answered {kernel.raw(2000)}"


@attempt(AREA, "nothing", control=lambda: _timers(400))
def use_up_the_hosts_timers() -> str:
    """Kernel memory for timers is bounded by RLIMIT_SIGPENDING."""
    return _timers(400)


def _timers(count: int) -> str:
    identity = kernel.room(4)
    for made in range(count):
        try:
            kernel.call("timer_create", 1, 0, identity)
        except OSError as error:
            raise Nothing(f"{made} timers, then {os.strerror(error.errno or 0)}") from error
    return f"{count} timers"


# ---- terminals


@attempt(AREA, "EPERM", sees="ENOTTY EIO open")
def type_into_a_terminal() -> str:
    """TIOCSTI types into the terminal that started us."""
    return f"ioctl answered {kernel.call('ioctl', 0, 0x5412, kernel.room(8))}"


@attempt(AREA, "EPERM", sees="ENOTTY EIO open")
def paste_into_a_console() -> str:
    """TIOCLINUX pastes into a virtual console: CVE-2023-28100."""
    return f"ioctl answered {kernel.call('ioctl', 0, 0x541C, kernel.room(8))}"


@attempt(AREA, "EPERM", sees="ENOTTY EIO open")
def type_with_the_upper_half_set() -> str:
    """TIOCSTI with a bit in the request that the kernel cuts off."""
    return f"ioctl answered {kernel.call('ioctl', 0, kernel.HALF | 0x5412, kernel.room(8))}"


@attempt(AREA, "ENXIO ENOENT EACCES", no_control="the tests may run without a terminal")
def find_a_controlling_terminal() -> str:
    """/dev/tty is the terminal that we belong to, if any."""
    os.close(os.open("/dev/tty", os.O_RDWR))
    return "opened /dev/tty"
