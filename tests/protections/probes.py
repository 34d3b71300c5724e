"""Attempts that need the bait, or a bound of the policy: what the escape suite cannot try on an ordinary host.

Runs as: inside a served agent, as the agent, like the attempts of tests/escape.
Reads from strangers: nothing.
Standard library only: this module is copied into an agent's folder. `BAIT` names the folder that `daemon` laid out.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.escape.attempts import kernel
from tests.escape.attempts.frame import Function, Nothing

MIB = 1024 * 1024
LEAK = 100
"""The descriptor of the bait: `launcher.plant_descriptor`."""
MARK_CODE_RAN = b"code-ran"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One attempt: the words that may be observed, and whether it needs the runner's own process."""

    run: Function
    expect: tuple[str, ...]
    in_runner: bool


PROBES: dict[str, Probe] = {}


def probe(expect: str, *, in_runner: bool = False) -> Callable[[Function], Function]:
    """Put a function on the list, under its own name."""

    def put(function: Function) -> Function:
        PROBES[function.__name__] = Probe(run=function, expect=tuple(expect.split()), in_runner=in_runner)
        return function

    return put


def bait(name: str) -> str:
    return os.path.join(os.environ["BAIT"], name)


def mark() -> None:
    """Say outside that code of the agent's has run: its process has another name."""
    kernel.libc.prctl(15, MARK_CODE_RAN, 0, 0, 0)


# ---- the bait


@probe("EACCES")
def read_a_file_of_root() -> str:
    with open(bait("of-root")) as file:
        return file.read()


@probe("EACCES")
def read_a_file_of_the_daemons_group() -> str:
    with open(bait("of-the-group")) as file:
        return file.read()


@probe("EROFS EACCES")
def write_in_a_folder_of_the_host() -> str:
    path = os.path.join(bait("open"), str(time.monotonic_ns()))
    with open(path, "w") as file:
        file.write("mine\n")
    os.unlink(path)
    return f"wrote {path}"


@probe("EACCES")
def read_a_device_of_the_host() -> str:
    with open(bait("zero"), "rb", buffering=0) as file:
        return f"{len(file.read(16))} bytes"


@probe("ENOENT")
def see_below_a_granted_folder() -> str:
    with open(os.path.join(bait("below"), "file")) as file:
        return file.read()


@probe("ENOENT")
def see_a_mount_that_came_later() -> str:
    with open(os.path.join(bait("late"), "file")) as file:
        return file.read()


@probe("EPERM EACCES nothing")
def become_root_by_a_set_uid_program() -> str:
    child = os.posix_spawn(bait("set-uid"), ["set-uid"], {})
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise Nothing("it ran, as what we are")
    return "effective uid 0"


# ---- who and where we are


@probe("nothing")
def learn_our_oom_score() -> str:
    with open("/proc/self/oom_score_adj") as file:
        text = file.read().strip()
    if text == "500":
        raise Nothing("500: an agent goes before the host's services")
    return f"{text}: others would be killed before us"


@probe("nothing")
def share_a_session_with_the_host() -> str:
    session = os.getsid(0)
    if session == 1:
        raise Nothing("the session is the reaper's")
    return f"session {session} is not of our pid namespace"


@probe("nothing", in_runner=True)
def have_a_pid_of_the_host() -> str:
    if (os.getpid(), os.getppid()) == (2, 1):
        raise Nothing("pid 2, child of pid 1")
    return f"pid {os.getpid()}, child of {os.getppid()}"


@probe("EACCES")
def override_permissions() -> str:
    path = "/tmp/closed"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    os.chmod(path, 0)
    try:
        os.close(os.open(path, os.O_RDONLY))
    finally:
        os.unlink(path)
    return "opened a file of mode 0"


@probe("EACCES EPERM")
def read_our_own_memory() -> str:
    os.close(os.open("/proc/self/mem", os.O_RDONLY))
    return "a process of this uid could read and write it as well"


@probe("ENOKEY EACCES")
def find_a_key_of_the_daemon() -> str:
    return f"key {kernel.call('keyctl', 10, -3, b'user', b'key-of-the-daemon', 0)}"


@probe("EBADF")
def use_a_forgotten_descriptor() -> str:
    return f"the old root: {' '.join(os.listdir(LEAK))}"


@probe("nothing", in_runner=True)
def climb_above_the_root() -> str:
    found = os.listdir("/..")
    if "app" in found:
        raise Nothing("/.. is our own root")
    return f"the old root: {' '.join(found)}"


@probe("EROFS")
def make_a_folder_in_the_root() -> str:
    os.mkdir("/folder")
    return "made"


@probe("EROFS EACCES")
def make_a_folder_in_an_open_root() -> str:
    os.mkdir("/folder")
    return "made"


@probe("EROFS")
def make_a_folder_in_dev() -> str:
    os.mkdir("/dev/folder")
    return "made"


@probe("EROFS")
def change_our_libraries() -> str:
    folder = next(path for path, _, files in os.walk("/app/.venv") if "library.py" in files)
    with open(os.path.join(folder, "library.py"), "a") as file:
        file.write("# changed\n")
    return "the next instance would run it"


@probe("EROFS EACCES EPERM")
def write_to_our_own_proc() -> str:
    with open("/proc/self/comm", "w") as file:
        file.write("renamed")
    return "written"


@probe("ENOENT")
def see_process_1() -> str:
    return f"owner {os.stat('/proc/1').st_uid}"


@probe("EPERM EACCES")
def map_code_from_a_kept_folder() -> str:
    with open("/app/kept/code", "w+b") as file:
        file.write(bytes(4096))
        file.flush()
        mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
    return "mapped as code"


# ---- bounds


@probe("SIGKILL")
def use_more_memory() -> str:
    held = []
    for _ in range(288):
        block = mmap.mmap(-1, MIB)
        for page in range(0, MIB, 4096):
            block[page] = 1
        held.append(block)
    return f"{len(held)} MiB"


@probe("EAGAIN")
def start_many_threads() -> str:
    end = threading.Event()
    threads = []
    try:
        for _ in range(80):
            thread = threading.Thread(target=end.wait)
            thread.start()
            threads.append(thread)
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    finally:
        end.set()
    return f"{len(threads)} threads"


@probe("nothing")
def use_more_of_a_processor() -> str:
    """Under a policy of a twentieth of one; the best of some windows, for others use the machine as well."""
    best, until = 0.0, time.monotonic() + 6.0
    while best < 0.1 and time.monotonic() < until:
        wall, used = time.monotonic(), time.process_time()
        while time.monotonic() < wall + 0.4:
            pass
        best = max(best, (time.process_time() - used) / (time.monotonic() - wall))
    if best < 0.1:
        raise Nothing(f"{best:.2f} of one")
    return f"{best:.2f} of one"


@probe("EAGAIN")
def lock_memory_by_mapping() -> str:
    result = kernel.libc.mmap(None, ctypes.c_size_t(MIB), 3, 0x22 | 0x2000, -1, ctypes.c_long(0))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return "1 MiB is locked"


@probe("EMFILE ENOMEM")
def make_a_message_queue() -> str:
    return f"queue {kernel.call('mq_open', b'probe', os.O_RDWR | os.O_CREAT, 0o600, 0)}"


@probe("EPERM EACCES")
def raise_our_priority() -> str:
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    return f"nice {os.getpriority(os.PRIO_PROCESS, 0)}"


@probe("EPERM")
def be_real_time_for_a_moment() -> str:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return "SCHED_FIFO"


@probe("nothing")
def have_a_core_limit() -> str:
    if resource.getrlimit(resource.RLIMIT_CORE) == (1, 1):
        raise Nothing("0: a crash writes no memory to the host")
    return f"{resource.getrlimit(resource.RLIMIT_CORE)}"


# ---- calls that a filter stops before the kernel looks at them


_ABSENT = -1
"""An address at which there is nothing: only the kernel itself stumbles over it."""


def _probe_calls(*calls: tuple[str, tuple[int, int], tuple[int | bytes | None, ...]]) -> None:
    """Harmless uses of calls that only a filter refuses. Numbers are those of x86-64 and arm64, 0 for none."""
    for name, numbers, arguments in calls:
        number = numbers[0 if kernel.X86_64 else 1]

        def run(number: int = number, arguments: tuple[int | bytes | None, ...] = arguments) -> str:
            try:
                return f"answered {kernel.raw(number, *arguments)}"
            except OSError as error:
                if error.errno in (errno.EPERM, errno.ENOSYS):
                    raise
                return f"got as far as {errno.errorcode[error.errno or 0]}"

        PROBES[name] = Probe(run=run, expect=("EPERM",), in_runner=False)


_NEW = os.O_WRONLY | os.O_CREAT
_SET_UID = 0o4755
_probe_calls(
    ("mount_from_nowhere", (165, 40), (_ABSENT, _ABSENT, _ABSENT, 0, 0)),
    ("read_our_capabilities", (125, 90), (_ABSENT, 0)),
    ("change_our_root", (161, 51), (_ABSENT,)),
    ("ask_for_an_action_of_seccomp", (317, 277), (2, 0, b"\0\0\xff\x7f")),
    ("mark_for_fanotify", (301, 263), (-1, 1, 1, -100, _ABSENT)),
    ("read_how_the_clock_is_adjusted", (159, 171), (bytes(256),)),
    ("open_with_the_set_uid_bit", (2, 0), (b"/tmp/opened", _NEW, _SET_UID)),
    ("creat_with_the_set_uid_bit", (85, 0), (b"/tmp/created", _SET_UID)),
    ("fchmodat_with_the_set_uid_bit", (268, 53), (-100, b"/tmp", 0o4700)),
    ("fchmodat2_with_the_set_uid_bit", (452, 452), (-100, b"/tmp", 0o4700, 0)),
    ("landlock_ourselves", (444, 444), (0, 0, 1)),
)


@probe("EPERM")
def make_a_fifo() -> str:
    os.mkfifo("/tmp/fifo")
    os.unlink("/tmp/fifo")
    return "made"


@probe("EPERM")
def chown_our_own_file() -> str:
    with open("/tmp/owned", "w") as file:
        os.fchown(file.fileno(), os.getuid(), os.getgid())
    return "changed"
