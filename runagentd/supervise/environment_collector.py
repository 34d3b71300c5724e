"""Removes the environments that nothing has used for as long as the operator wants them kept.

Runs as: the supervisor.
Reads from strangers: nothing.
What a maintainer must not break: what is looked at and what is taken out of its place is one step of the event loop, so
that nobody can find an environment between the two. Only what is out of its place already is removed at leisure.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from runagentd.log import Log
from runagentd.supervise.environment_store import EnvironmentStore

AGAIN_SECONDS = 3600.0
"""Between two looks at most: clocks are put forward, and an operator may remove things by hand."""
APART_SECONDS = 1.0


class EnvironmentCollector:
    """`needed` gives what deployments name, `keep_seconds` what the operator says at this moment."""

    def __init__(
        self,
        *,
        store: EnvironmentStore,
        needed: Callable[[], Collection[str]],
        keep_seconds: Callable[[], float],
        log: Log,
    ) -> None:
        self._store = store
        self._needed = needed
        self._keep_seconds = keep_seconds
        self._log = log
        self._running = False
        self._next: asyncio.Handle | None = None
        self._removing: set[asyncio.Task[None]] = set()
        store.on_unused = self._look_soon

    def start(self) -> None:
        """Once it is known what there is: before, an agent that is about to be served again would lose its own."""
        self._running = True
        self.look()

    def look(self) -> None:
        """Take away what is due, and look again when the next is."""
        if not self._running:
            return
        self._cancel()
        wait = AGAIN_SECONDS
        try:
            needed, keep_seconds = self._needed(), self._keep_seconds()
            for path in self._store.collect(needed, unused_seconds=keep_seconds):
                self._log.info("an unused environment is removed", digest=path.name[:12])
                task = asyncio.create_task(_remove(path), name=f"remove {path.name}")
                self._removing.add(task)
                task.add_done_callback(self._removing.discard)
            due = self._store.due(needed, unused_seconds=keep_seconds)
            wait = wait if due is None else min(max(due, APART_SECONDS), AGAIN_SECONDS)
        except Exception as error:  # noqa: BLE001  (whoever deploys or ends has no part in it; it is tried again)
            self._log.error("unused environments cannot be removed", reason=error)
        self._next = asyncio.get_running_loop().call_later(wait, self.look)

    def _look_soon(self) -> None:
        """Not at once: who gives one up may be about to take the next, or to write down that it is needed."""
        if self._running:
            self._cancel()
            self._next = asyncio.get_running_loop().call_soon(self.look)

    def _cancel(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    async def close(self) -> None:
        """Look no more; what is being removed is gone when this returns."""
        self._running = False
        self._cancel()
        await asyncio.gather(*self._removing)


async def _remove(path: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
