"""Attempts on other processes by signal, and to take more than our share.

Runs as: see `frame`.
Reads from strangers: nothing.
Attempts that end the instance are in `ends`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import threading
import time

from tests.escape.attempts import kernel
from tests.escape.attempts.frame import Function, Nothing, attempt, attempts, in_fork, kill
from tests.escape.attempts.proc import visible_processes

AREA = "signals"


def _signal(number: int) -> Function:
    def send() -> str:
        os.kill(1, number)
        raise Nothing("accepted, and ignored: process 1 takes no signal from its own namespace")

    return send


attempts(
    AREA,
    "EPERM ESRCH nothing",
    [
        ("kill_process_1", "without the reaper nobody watches", _signal(signal.SIGKILL)),
        ("stop_process_1", "a stopped reaper reaps nothing", _signal(signal.SIGSTOP)),
        ("end_process_1", "SIGTERM, which it might handle", _signal(signal.SIGTERM)),
    ],
    no_control="the kernel protects process 1 of a namespace outside as well, and the host's own is not to be tried",
)


def _signal_another_process() -> str:
    child = in_fork(lambda: time.sleep(30))
    try:
        signal.pidfd_send_signal(os.pidfd_open(child), signal.SIGCONT)
        return "a process was signalled"
    finally:
        kill(child)


@attempt(AREA, "EPERM ESRCH nothing", control=_signal_another_process)
def kill_process_1_by_pidfd() -> str:
    """A pidfd finds its process wherever that is."""
    signal.pidfd_send_signal(os.pidfd_open(1), signal.SIGKILL)
    raise Nothing("accepted, and ignored")


@attempt(AREA, "EPERM ESRCH nothing", control=_signal_another_process)
def kill_the_thread_of_process_1() -> str:
    """tgkill names a thread."""
    kernel.call("tgkill", 1, 1, signal.SIGKILL)
    raise Nothing("accepted, and ignored")


@attempt(AREA, "EPERM ESRCH", control=_signal_another_process)
def forge_a_signal_of_the_kernels() -> str:
    """rt_sigqueueinfo with si_code SI_KERNEL would look as if the kernel had sent it."""
    information = ctypes.create_string_buffer(struct.pack("<iii", signal.SIGTERM, 0, 0x80) + bytes(116))
    kernel.call("rt_sigqueueinfo", 1, signal.SIGTERM, ctypes.addressof(information))
    return "sent"


@attempt(AREA, "nothing", shares="pid", control=lambda: _reachable(set()))
def find_somebody_to_signal() -> str:
    """Signal 0 to all numbers says who can be reached, without /proc."""
    # Outside, all that is visible would be family on a machine with few processes: the control counts it.
    visible = visible_processes()
    return _reachable(visible if len(visible) < 64 else set())


def _reachable(family: set[int]) -> str:
    family = family | {os.getpid(), os.getppid()}
    found = []
    for pid in range(2, 40_000):
        if pid in family:
            continue
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        except PermissionError:
            pass
        found.append(pid)
    if not found:
        raise Nothing("nobody but our own family")
    return f"{len(found)}, for example {found[0]}"


@attempt(AREA, "nothing EPERM ESRCH", control=lambda: _own(os.getppid()))
def let_the_kernel_signal_somebody() -> str:
    """F_SETOWN makes the kernel send SIGIO in our name, to any number."""
    for pid in (39_997, 39_998, 39_999):  # numbers that none of our own processes has
        with contextlib.suppress(ProcessLookupError):
            return _own(pid)
    raise Nothing("no such process")


def _own(pid: int) -> str:
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(reader, fcntl.F_SETOWN, pid)
        return f"SIGIO goes to {pid}"
    finally:
        os.close(reader)
        os.close(writer)


# ---- too much of everything

RESOURCES = "resources"


@attempt(RESOURCES, "nothing")
def multiply() -> str:
    """A fork bomb, of three hundred at most: pids_max is 64."""
    children: list[int] = []
    try:
        for _ in range(300):
            children.append(in_fork(lambda: time.sleep(30)))
    except BlockingIOError as error:
        raise Nothing(f"{len(children)} processes, then {os.strerror(error.errno or 0)}") from error
    finally:
        for child in children:
            kill(child)
            os.waitpid(child, 0)
    return f"{len(children)} processes"


@attempt(RESOURCES, "nothing")
def spin_threads() -> str:
    """The same with threads."""
    stop = threading.Event()
    started = 0
    try:
        for _ in range(300):
            threading.Thread(target=stop.wait, daemon=True).start()
            started += 1
    except RuntimeError as error:
        raise Nothing(f"{started} threads, then {error}") from error
    finally:
        stop.set()
    return f"{started} threads"


@attempt(RESOURCES, "EMFILE")
def use_up_descriptors() -> str:
    """Open files are memory of the kernel."""
    held = []
    try:
        for _ in range(600):
            held.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for descriptor in held:
            os.close(descriptor)
    return f"{len(held)} descriptors"


@attempt(RESOURCES, "EMFILE ETOOMANYREFS EAGAIN")
def hide_descriptors_in_sockets() -> str:
    """Descriptors in flight are counted nowhere but per uid: SCM_RIGHTS keeps them in a queue."""
    held = []
    try:
        for _ in range(200):
            first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            held += [first, second]
            for _ in range(4):
                socket.send_fds(first, [b"x"], [0] * 200)
    finally:
        for one in held:
            one.close()
    return "160,000 descriptors in flight"


def _limit(name: str, value: int) -> Function:
    """By the raw call: Python's own turns EPERM into a ValueError."""

    def set_limit() -> str:
        number = getattr(resource, f"RLIMIT_{name}")
        wanted = value or resource.getrlimit(number)[1]
        kernel.call("prlimit64", 0, number, struct.pack("<qq", wanted, wanted), 0)
        return f"{name} is {resource.getrlimit(number)}"

    return set_limit


for _name, _value, _idea in (
    ("NOFILE", 4096, "more open files"),
    ("FSIZE", 1 << 40, "larger files"),
    ("CORE", 1 << 30, "core files"),
    ("MEMLOCK", 1 << 30, "locked memory"),
    ("SIGPENDING", 4096, "queued signals"),
    ("RTPRIO", 1, "real-time priority"),
    ("NICE", 1, "a higher priority"),
    ("MSGQUEUE", 4096, "message queues"),
):
    # Raising a hard limit wants CAP_SYS_RESOURCE, which root may lack in a container: outside, the soft limit is
    # raised to the hard one, by the same call.
    attempts(
        RESOURCES,
        "EPERM",
        [(f"raise_{_name.lower()}", _idea, _limit(_name, _value))],
        control=_limit(_name, 0),
    )


@attempt(RESOURCES, "nothing", control=lambda: _core(resource.RLIM_INFINITY))
def leave_a_core_file() -> str:
    """A core file is made by a program of the host's, as root."""
    return _core(0)


def _core(wanted: int) -> str:
    if wanted:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
    limit = resource.getrlimit(resource.RLIMIT_CORE)
    if limit == (1, 1):
        # Not 0, which the kernel ignores where core_pattern names a program of the host's (core(5)).
        raise Nothing("RLIMIT_CORE is 1, the kernel's sign for no core at all")
    return str(limit)


@attempt(RESOURCES, "EPERM EACCES")
def be_first_in_the_queue() -> str:
    """A negative nice value."""
    os.setpriority(os.PRIO_PROCESS, 0, -10)
    return "nice -10"


@attempt(RESOURCES, "EPERM")
def be_real_time() -> str:
    """SCHED_FIFO takes the processor from everybody else."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return "was real-time"


@attempt(RESOURCES, "EPERM", sees="open EINVAL")
def be_real_time_by_deadline() -> str:
    """SCHED_DEADLINE, by the newer call."""
    attributes = struct.pack("<IIQiIQQQ", 48, 6, 0, 0, 0, 1_000_000, 10_000_000, 10_000_000)
    kernel.call("sched_setattr", 0, attributes, 0)
    return "has deadlines"


@attempt(RESOURCES, "EPERM")
def choose_a_processor() -> str:
    """To sit beside a certain neighbour."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return "pinned"


@attempt(RESOURCES, "nothing", no_control="needs two processors that nobody else uses while it measures")
def use_more_than_our_processor() -> str:
    """Four busy processes must not get more than one processor's time: cpu_max is 1.0."""
    seconds = 2.0
    burners = [in_fork(lambda: _burn(seconds)) for _ in range(4)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for burner in burners:
        os.waitpid(burner, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if used <= seconds * 1.3:
        raise Nothing(f"{used:.2f} s in {seconds:.0f} s")
    return f"{used:.2f} s of processor time in {seconds:.0f} s"


def _burn(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@attempt(RESOURCES, "EACCES EPERM EAGAIN", lacks="EAGAIN")
def make_everybody_wait_for_a_lease() -> str:
    """F_SETLEASE on a file of the runtime holds up whoever opens it."""
    descriptor = os.open(os.__file__, os.O_RDONLY)
    fcntl.fcntl(descriptor, 1024, fcntl.F_WRLCK)
    fcntl.fcntl(descriptor, 1024, fcntl.F_UNLCK)
    return "leased os.py"


@attempt(RESOURCES, "EPERM", lacks="EPERM")
def enlarge_a_pipe() -> str:
    """Pipes beyond the host's limit want CAP_SYS_RESOURCE, which root may lack in a container."""
    reader, writer = os.pipe()
    try:
        size = fcntl.fcntl(writer, 1031, 8 * 1024 * 1024)  # F_SETPIPE_SZ
    finally:
        os.close(reader)
        os.close(writer)
    return f"{size} bytes"
