"""What one call leaves and another of the same agent looks for.

Runs as: inside a served agent, as the agent.
Reads from strangers: nothing.
Standard library only: this module is copied into an agent's folder.
"""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass

from tests.escape.attempts.frame import Function, Nothing

SECRET = ("what-one-caller", "-said-to-an-agent")
"""In two halves: whole, it stands nowhere but where a caller has put it."""
_FILE = "/tmp/left"
_left: list[str] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Both are tried in the process that runs the call."""

    plant: Function
    look: Function
    expect: tuple[str, ...] = ("nothing",)


def _leave_in_the_module() -> str:
    _left.append("left")
    return "left"


def _find_in_the_module() -> str:
    if not _left:
        raise Nothing("the module is as it was imported")
    return f"{len(_left)} calls were here"


def _leave_a_process() -> str:
    if os.fork() == 0:
        os.setsid()
        time.sleep(60)
        os._exit(0)
    return "started"


def _find_a_process() -> str:
    # 1 is the reaper, 2 the runner; hidepid hides others from /proc, and from kill(2) it does not.
    others = [pid for pid in range(3, 500) if pid != os.getpid() and _exists(pid)]
    if not others:
        raise Nothing("no other process")
    return f"{len(others)} processes"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _leave_a_file() -> str:
    with open(_FILE, "w") as file:
        file.write("left")
    return _FILE


def _find_a_file() -> str:
    if not os.path.exists(_FILE):
        raise Nothing("no file")
    return _FILE


def _leave_nothing() -> str:
    return "its arguments alone"


def _find_arguments() -> str:
    """Search all memory that can be written to; what is only mapped and never touched is not read."""
    one, two = (half.encode() for half in SECRET)
    found = 0
    with open("/proc/self/maps") as maps:
        regions = [line.split() for line in maps]
    for fields in regions:
        if not fields[1].startswith("rw") or fields[-1].startswith("[v"):
            continue
        start, end = (int(text, 16) for text in fields[0].split("-"))
        memory = ctypes.string_at(start, end - start)
        place = -1
        while (place := memory.find(one, place + 1)) >= 0:
            found += memory[place + len(one) : place + len(one) + len(two)] == two
    if not found:
        raise Nothing("no trace of it")
    return f"{found} times"


TRACES: dict[str, Trace] = {
    "find_what_a_call_left_in_the_module": Trace(plant=_leave_in_the_module, look=_find_in_the_module),
    "find_what_a_call_has_started": Trace(plant=_leave_a_process, look=_find_a_process),
    "find_what_a_call_has_written": Trace(plant=_leave_a_file, look=_find_a_file),
    "find_the_arguments_of_a_call": Trace(plant=_leave_nothing, look=_find_arguments),
}
