"""Ways to end one's own instance, or to make it useless: each costs that instance and nothing else.

Runs as: the agent, within the runner's process; never outside.
Reads from strangers: nothing.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.escape.attempts import kernel
from tests.escape.attempts.frame import Function, in_fork


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One end: how the call may end, why the instance must have ended, and how long the call is given (0: as usual)."""

    name: str
    idea: str
    run: Function
    code: str
    cause: str
    timeout_seconds: int


ENDS: dict[str, End] = {}


def _end(code: str, cause: str, *, timeout_seconds: int = 0) -> Callable[[Function], Function]:
    def put(run: Function) -> Function:
        name, idea = run.__name__, (run.__doc__ or "").strip()
        ENDS[name] = End(name=name, idea=idea, run=run, code=code, cause=cause, timeout_seconds=timeout_seconds)
        return run

    return put


@_end("OUT_OF_MEMORY", "oom")
def a_memory_bomb() -> str:
    """Touch two gibibytes."""
    held = []
    for _ in range(128):
        held.append(bytearray(os.urandom(4096)) * 4096)
    return f"{len(held) * 16} MiB"


@_end("OUT_OF_MEMORY", "oom")
def a_memory_bomb_in_children() -> str:
    """Sixty-four mebibytes in each of thirty children: the limit is the instance's, not the process's."""

    def hold() -> None:
        held = bytearray(os.urandom(4096)) * (64 * 256)
        time.sleep(20)
        del held

    children = [in_fork(hold) for _ in range(30)]
    for child in children:
        os.waitpid(child, 0)
    return "2 GiB"


@_end("OUT_OF_MEMORY", "oom")
def a_memory_bomb_in_shared_memory() -> str:
    """Shared anonymous memory belongs to no process, and is counted all the same."""
    size = 1 << 30
    shared = mmap.mmap(-1, size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    for offset in range(0, size, 4096):
        shared[offset] = 1
    return "1 GiB"


@_end("INSTANCE_DIED", "exit")
def exit_at_once() -> str:
    """os._exit behind the runner's back."""
    os._exit(0)


@_end("INSTANCE_DIED", "signal")
def abort() -> str:
    """SIGABRT, as a failed assertion in C does."""
    os.abort()


@_end("INSTANCE_DIED", "signal")
def crash() -> str:
    """SIGSEGV."""
    return str(ctypes.string_at(0))


@_end("INSTANCE_DIED", "signal")
def kill_ourselves() -> str:
    """SIGKILL to the runner."""
    os.kill(os.getpid(), signal.SIGKILL)
    return "still here"


@_end("INSTANCE_DIED", "signal")
def kill_everybody_we_see() -> str:
    """kill(-1): all processes that may be signalled, which must be ours alone."""
    in_fork(lambda: os.kill(-1, signal.SIGKILL))
    time.sleep(10)
    return "still here"


@_end("INSTANCE_DIED", "seccomp")
def a_call_of_another_abi() -> str:
    """An x32 number kills the process that makes it."""
    kernel.raw(0x40000000 | 39)
    return "still here"


@_end("TIMEOUT_ERROR", "deadline", timeout_seconds=1)
def ignore_the_deadline() -> str:
    """Catch whatever is raised into the function, and go on."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            time.sleep(1)
        except BaseException:
            continue
    return "still here"


@_end("TIMEOUT_ERROR", "deadline", timeout_seconds=1)
def stop() -> str:
    """SIGSTOP: a runner that says nothing any more, and is not dead."""
    os.kill(os.getpid(), signal.SIGSTOP)
    return "still here"


@_end("TIMEOUT_ERROR", "deadline", timeout_seconds=1)
def never_come_back_from_c() -> str:
    """A loop in C with all signals blocked: no exception can be raised into it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    ctypes.PyDLL(None).sleep(60)
    return "still here"
