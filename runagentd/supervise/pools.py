"""A zygote and its spares for each Python runtime in use: started at its first use, ended a while after its last.

Runs as: the supervisor.
Reads from strangers: nothing.
No pool knows of another: a runtime whose zygote does not start costs the agents that asked for it, and nobody else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from runagentd.supervise.pool import SparePool
from runagentd.wire.runtime import PythonRuntime

UNUSED_SECONDS = 60.0
"""How long a runtime keeps its zygote that no agent uses any more: one that is deployed again shall find it warm."""
_LOOK_SECONDS = 15.0


class Pools:
    """`make` makes a pool, which has a zygote at once; `in_use` says which runtimes agents are on now.

    The daemon's own runtime always has one: it is what most agents start from, the first one included.
    """

    def __init__(
        self,
        own: PythonRuntime,
        *,
        make: Callable[[PythonRuntime], SparePool],
        in_use: Callable[[], set[PythonRuntime]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = own
        self._make = make
        self._in_use = in_use
        self._clock = clock
        self._pools = {own: make(own)}
        self._used = {own: clock()}
        """when each was last seen in use"""
        self._leaving: list[SparePool] = []
        """whose zygote was ended, and not yet reaped"""
        self._ends: set[asyncio.Task[None]] = set()
        self._next_look: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def own(self) -> SparePool:
        """That of the daemon's own runtime."""
        return self._pools[self._own]

    def of(self, runtime: PythonRuntime) -> SparePool:
        """The pool of a runtime; where there was none it begins to fill."""
        self._used[runtime] = self._clock()
        pool = self._pools.get(runtime)
        if pool is None:
            pool = self._pools[runtime] = self._make(runtime)
            pool.refill()
            self._look_later()
        return pool

    def __iter__(self) -> Iterator[tuple[PythonRuntime, SparePool]]:
        """Those that are there, the daemon's own first."""
        return iter(list(self._pools.items()))

    @property
    def ready(self) -> int:
        """How many spares wait, of all runtimes."""
        return sum(pool.ready for pool in self._pools.values())

    def reaped(self, pid: int) -> None:
        """A child of the supervisor's has ended and was reaped; it may have been a zygote."""
        for pool in self._pools.values():
            if pool.zygote.reaped(pid):
                return
        self._leaving = [pool for pool in self._leaving if not pool.zygote.reaped(pid)]

    def look(self) -> None:
        """End the pools of runtimes that have been out of use for long enough."""
        now, used = self._clock(), self._in_use()
        for runtime in [runtime for runtime in self._pools if runtime != self._own]:
            if runtime in used:
                self._used[runtime] = now
            elif now - self._used[runtime] >= UNUSED_SECONDS:
                del self._used[runtime]
                self._end(self._pools.pop(runtime))

    async def close(self) -> None:
        """End all of them."""
        self._closed = True
        if self._next_look is not None:
            self._next_look.cancel()
        await asyncio.gather(*(pool.close() for pool in self._pools.values()), *self._ends)

    def _end(self, pool: SparePool) -> None:
        self._leaving.append(pool)
        task = asyncio.get_running_loop().create_task(pool.close(), name="end of a runtime's pool")
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    def _look_later(self) -> None:
        if self._next_look is None and not self._closed:
            self._next_look = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._looked)

    def _looked(self) -> None:
        self._next_look = None
        self.look()
        if len(self._pools) > 1:
            self._look_later()
