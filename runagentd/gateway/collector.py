"""When Python's garbage collector looks at everything: at a fixed pace, and not whenever many objects are new.

Runs as: the gateway.
Reads from strangers: nothing.

What the gateway makes for a call is freed as soon as nothing refers to it; the collector is there for circles, of which
libraries make some. Its full collections look at every object of every open connection, and nobody is answered
meanwhile: 25 to 70 ms with 900 connections. By its own rule (InternalDocs/garbage_collector.md of CPython) one takes
place whenever a quarter more has become old: several times in a second while an attacker opens connections.
"""

from __future__ import annotations

import asyncio
import gc

FULL_SECONDS = 30.0
"""Between two full collections: what a circle keeps is gone after that."""
_NEVER = 1_000_000_000


def take_over() -> None:
    """What is loaded by now lives for ever, so it need not be looked at again; from now on `pace` is needed."""
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)


async def pace() -> None:
    """A full collection now and then, where anything has become old since the last one. Never returns."""
    while True:
        await asyncio.sleep(FULL_SECONDS)
        if gc.get_count()[2]:
            gc.collect()
