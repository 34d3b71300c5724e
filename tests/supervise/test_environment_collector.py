"""When environments that nothing uses are looked for, and that one which is used is never among them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from runagentd.log import Form, Log
from runagentd.supervise.environment_collector import EnvironmentCollector
from runagentd.supervise.environment_store import EnvironmentStore

ONE = "1" * 64
REQUEST = "a" * 64


class Bench:
    def __init__(self, place: Path) -> None:
        self.store = EnvironmentStore(place / "environments")
        self.needed: set[str] = set()
        self.keep = 0.0
        self.collector = EnvironmentCollector(
            store=self.store,
            needed=lambda: self.needed,
            keep_seconds=lambda: self.keep,
            log=Log(sys.stderr, source="test", form=Form.TEXT),
        )
        self.waits: list[float] = []
        """seconds until each next look"""
        loop = asyncio.get_running_loop()
        self.call_later = loop.call_later
        loop.call_later = self._call_later  # type: ignore[method-assign, assignment]  # the clock is not waited for

    def _call_later(self, delay: float, callback: Callable[..., None], *arguments: Any) -> asyncio.TimerHandle:
        self.waits.append(delay)
        return self.call_later(delay, callback, *arguments)

    def adopt(self, digest: str = ONE, request: str = REQUEST, *, used: float | None = None) -> None:
        """An environment that nobody has, last used at this time."""
        tree = self.store.incoming / digest[:8]
        tree.mkdir()
        (tree / "six.py").write_text("")
        self.store.adopt(tree, digest, request).release()
        if used is not None:
            os.utime(self.store.incoming.parent / "trees" / digest, (used, used))

    def trees(self) -> list[str]:
        return sorted(path.name for path in (self.store.incoming.parent / "trees").iterdir())

    def incoming(self) -> list[Path]:
        return list(self.store.incoming.iterdir())


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Bench], Coroutine[Any, Any, None]]], None]:
    def go(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            bench = Bench(tmp_path)
            async with asyncio.timeout(10):
                await test(bench)
                await bench.collector.close()

        asyncio.run(main())

    return go


Run = Callable[[Callable[[Bench], Coroutine[Any, Any, None]]], None]


def test_nothing_is_removed_before_it_is_known_what_there_is(run: Run) -> None:
    async def test(bench: Bench) -> None:
        bench.adopt()
        bench.collector.look()
        assert bench.trees() == [ONE]
        bench.collector.start()
        assert bench.trees() == []
        await bench.collector.close()
        assert bench.incoming() == []

    run(test)


def test_what_is_given_up_last_is_removed_without_any_deploy(run: Run) -> None:
    """With keep = "0": of two who use it, the first one to go removes nothing."""

    async def test(bench: Bench) -> None:
        bench.adopt()
        first, second = bench.store.lease(ONE), bench.store.lease(ONE)
        bench.collector.start()
        first.release()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert bench.trees() == [ONE]
        assert os.listdir(second.descriptor) == ["six.py"]
        second.release()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert bench.trees() == []
        assert bench.store.answer(REQUEST) is None

    run(test)


def test_what_a_version_names_stays_whoever_gives_it_up(run: Run) -> None:
    async def test(bench: Bench) -> None:
        bench.adopt()
        bench.needed = {ONE}
        bench.collector.start()
        bench.store.lease(ONE).release()
        await asyncio.sleep(0)
        bench.collector.look()
        assert bench.trees() == [ONE]

    run(test)


def test_what_a_deploy_has_found_stays_whatever_is_looked_for_meanwhile(run: Run) -> None:
    """From the answer on it is the deploy's: there is no moment between the two."""

    async def test(bench: Bench) -> None:
        bench.adopt()
        bench.keep = 3600
        bench.collector.start()
        found = bench.store.answer(REQUEST)
        bench.keep = 0
        bench.collector.look()
        assert found is not None
        assert bench.trees() == [ONE]
        assert os.listdir(found.descriptor) == ["six.py"]
        found.release()

    run(test)


@pytest.mark.parametrize(("ago", "wait"), [(None, 3600), (100_000_000, 3600), (86_400 - 60, 60), (86_400 - 0.2, 1)])
def test_the_next_look_is_when_something_is_due_and_once_an_hour_at_least(
    run: Run, ago: float | None, wait: float
) -> None:
    """In the second case what was due is gone, and nothing is left to wait for."""

    async def test(bench: Bench) -> None:
        bench.keep = 86_400
        if ago is not None:
            bench.adopt(used=time.time() - ago)
        bench.collector.start()
        assert bench.waits[-1] == pytest.approx(wait, abs=0.9 if wait == 60 else 0)

    run(test)


def test_a_look_that_fails_is_tried_again_and_harms_nobody(run: Run, tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        (tmp_path / "environments/trees").rmdir()
        bench.collector.start()
        assert bench.waits[-1] == 3600
        (tmp_path / "environments/trees").mkdir()
        bench.adopt()
        bench.collector.look()
        assert bench.trees() == []

    run(test)


def test_no_time_to_keep_is_none_also_where_the_clock_was_put_back(run: Run) -> None:
    async def test(bench: Bench) -> None:
        bench.adopt(used=time.time() + 100_000)
        bench.collector.start()
        assert bench.trees() == []

    run(test)
