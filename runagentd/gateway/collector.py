"""When Python's garbage collector looks at everything: at a pace of our own, and not whenever many objects are new.

Runs as: the gateway, or its workers.
Reads from strangers: nothing.

What the gateway makes for a call is freed as soon as nothing refers to it; the collector is there for circles, of which
libraries make some. Its full collections look at every object of every open connection, and nobody is answered
meanwhile: 25 to 70 ms with 900 connections. By its own rule (InternalDocs/garbage_collector.md of CPython) one takes
place whenever a quarter more has become old: several times in a second while an attacker opens connections.
A circle may hold what a stranger has sent, though, so one is also due where the process has grown.
"""

from __future__ import annotations

import asyncio
import gc
import mmap
import os

FULL_SECONDS = 30.0
"""Between two full collections: what a circle keeps is gone after that."""
GROWN_BYTES = 32 * 1024 * 1024
"""How much more memory makes one due sooner."""
LOOK_SECONDS = 1.0
"""How often memory is looked at, and how far apart two full collections are at least."""
_NEVER = 1_000_000_000


def open_statm() -> int:
    """A descriptor of proc_pid_statm(5), for a process that is about to lose sight of /proc. OSError."""
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


def take_over() -> None:
    """What is loaded by now lives for ever, so it need not be looked at again; from now on `pace` is needed."""
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)


def due(*, seconds: float, grown: int, old: bool) -> bool:
    """Whether a full collection is: so long after the last one, so many bytes larger, and whether anything is old."""
    return grown >= GROWN_BYTES or (old and seconds >= FULL_SECONDS)


async def pace(statm: int) -> None:
    """A full collection now and then. Never returns."""
    loop = asyncio.get_running_loop()
    last, size = loop.time(), _resident(statm)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if due(seconds=loop.time() - last, grown=_resident(statm) - size, old=gc.get_count()[2] > 0):
            gc.collect()
            # What it has not freed is in use, and makes no other one due.
            last, size = loop.time(), _resident(statm)


def _resident(statm: int) -> int:
    return int(os.pread(statm, 200, 0).split()[1]) * mmap.PAGESIZE
