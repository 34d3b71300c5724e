"""Descriptors that a daemon is given when it starts, by name: LISTEN_FDS of sd_listen_fds(3).

Runs as: the supervisor, the gateway and its workers, under systemd or the foreman alike.
Reads from strangers: nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

_FIRST = 3


def descriptors(environment: Mapping[str, str]) -> dict[str, int]:
    """The inherited descriptors by their names; empty where they were meant for another process."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = int(environment.get("LISTEN_FDS", "0"))
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found = {}
    for number in range(_FIRST, _FIRST + count):
        os.set_inheritable(number, False)
        position = number - _FIRST
        found[names[position] if position < len(names) and names[position] else str(number)] = number
    return found


def watch(lifeline: int, gone: Callable[[], object]) -> None:
    """Call `gone` once, in the running loop, when the other end of a lifeline has ended; what is written is nothing."""
    import asyncio  # not for the foreman, which has no loop

    loop = asyncio.get_running_loop()
    os.set_blocking(lifeline, False)

    def look() -> None:
        try:
            if os.read(lifeline, 1):
                return
        except BlockingIOError:
            return
        loop.remove_reader(lifeline)
        gone()

    loop.add_reader(lifeline, look)


def start_environment(names: list[str], pid: int) -> dict[str, str]:
    """What to put into a daemon's environment so that `descriptors` finds these names, from descriptor 3 on."""
    return {"LISTEN_PID": str(pid), "LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}
