"""A zygote for each runtime in use: when it starts, when it ends, and that none knows of another."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

from runagentd.supervise.pools import UNUSED_SECONDS, Pools
from runagentd.wire.runtime import PythonRuntime
from tests.plan.facts import DEBIAN

OWN = DEBIAN.python
NEWER = dataclasses.replace(OWN, version="3.13", release="3.13.1", interpreter="/opt/python3.13/bin/python3.13")


class FakeZygote:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.told: list[int] = []

    def reaped(self, pid: int) -> bool:
        self.told.append(pid)
        return pid == self.pid


class FakePool:
    """What `Pools` uses of a pool."""

    ready = 1

    def __init__(self, runtime: PythonRuntime, pid: int) -> None:
        self.runtime = runtime
        self.zygote = FakeZygote(pid)
        self.refills = 0
        self.closed = False

    def refill(self) -> None:
        self.refills += 1

    async def close(self) -> None:
        self.closed = True


class Bench:
    def __init__(self) -> None:
        self.now = 1000.0
        self.used: set[PythonRuntime] = set()
        self.made: list[FakePool] = []
        self.pools = Pools(OWN, make=self._make, in_use=lambda: self.used, clock=lambda: self.now)  # type: ignore[arg-type]  # what `Pools` uses of one

    def _make(self, runtime: PythonRuntime) -> FakePool:
        self.made.append(FakePool(runtime, pid=100 + len(self.made)))
        return self.made[-1]

    async def look_after(self, seconds: float) -> None:
        """And what that begins is done."""
        self.now += seconds
        self.pools.look()
        await asyncio.sleep(0)


def on_bench(test: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = Bench()
        await test(bench)
        await bench.pools.close()
        assert all(pool.closed for pool in bench.made)

    asyncio.run(main())


def test_a_runtime_that_nobody_uses_has_none() -> None:
    """But the daemon's own."""

    async def test(bench: Bench) -> None:
        assert [runtime for runtime, _ in bench.pools] == [OWN]
        assert bench.pools.of(OWN) is bench.pools.own

    on_bench(test)


def test_the_first_use_starts_one_which_begins_to_fill() -> None:
    async def test(bench: Bench) -> None:
        first = bench.pools.of(NEWER)
        assert bench.pools.of(NEWER) is first
        assert [(pool.runtime, pool.refills) for pool in bench.made] == [(OWN, 0), (NEWER, 1)]
        assert bench.pools.ready == 2

    on_bench(test)


def test_it_ends_some_time_after_the_last_use_and_not_while_it_is_in_use() -> None:
    async def test(bench: Bench) -> None:
        bench.pools.of(NEWER)
        bench.used = {NEWER}
        await bench.look_after(10 * UNUSED_SECONDS)
        bench.used = set()
        await bench.look_after(UNUSED_SECONDS - 1)
        assert [pool.closed for pool in bench.made] == [False, False]
        await bench.look_after(1)
        assert [pool.closed for pool in bench.made] == [False, True]
        assert [runtime for runtime, _ in bench.pools] == [OWN]
        bench.pools.of(NEWER)
        assert [pool.runtime for pool in bench.made] == [OWN, NEWER, NEWER]

    on_bench(test)


def test_the_daemons_own_is_never_ended() -> None:
    async def test(bench: Bench) -> None:
        await bench.look_after(10 * UNUSED_SECONDS)
        assert [pool.closed for pool in bench.made] == [False]

    on_bench(test)


def test_an_end_is_told_to_the_zygote_that_ended_also_after_its_pool_did() -> None:
    """It is waited for once: who has not heard of it would wait again."""

    async def test(bench: Bench) -> None:
        bench.pools.of(NEWER)
        bench.pools.reaped(100)
        bench.pools.reaped(101)
        bench.pools.reaped(7)
        own, newer = bench.made
        assert (own.zygote.told, newer.zygote.told) == ([100, 101, 7], [101, 7])
        await bench.look_after(UNUSED_SECONDS)
        bench.pools.reaped(101)
        bench.pools.reaped(7)
        assert newer.zygote.told == [101, 7, 101]

    on_bench(test)
