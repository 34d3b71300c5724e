"""What happened lately, for an operator to read: the last events, numbered, in memory.

Runs as: the supervisor.
Reads from strangers: nothing; texts of an agent's are cut here, and escaped where they are printed.
An agent that ends again and again pushes out older events; the log has them all.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections import deque
from collections.abc import Callable

from runagentd.wire.admin import EVENTS_MAX, Event, EventKind, EventsAsk, EventsTold

KEPT_MAX = 4096
DETAIL_CHARACTERS_MAX = 300
WAIT_SECONDS_MAX = 10.0
"""Whoever follows asks again after that; who has gone away is noticed then."""
FOLLOWERS_MAX = 16


class TooManyFollowers(Exception):
    """As many wait for the next event as may."""


class Events:
    """The ring. `clock` gives seconds since the epoch."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._kept: deque[Event] = deque(maxlen=KEPT_MAX)
        self._last = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self.life = secrets.token_hex(8)

    def add(
        self,
        kind: EventKind,
        detail: str = "",
        *,
        agent: str = "",
        agent_name: str = "",
        instance: str = "",
        cause: str = "",
    ) -> None:
        """One more; the oldest goes where there are too many."""
        self._last += 1
        self._kept.append(
            Event(
                number=self._last,
                unix_ms=int(self._clock() * 1000),
                kind=kind,
                agent=agent,
                agent_name=agent_name,
                instance=instance,
                cause=cause,
                detail=_cut(detail),
            )
        )
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def tell(self, ask: EventsAsk, agent: str) -> EventsTold:
        """What comes after; waits where there is nothing. `agent` is the id that was meant, empty for all."""
        loop = asyncio.get_running_loop()
        end = loop.time() + min(WAIT_SECONDS_MAX, max(0, ask.wait_ms) / 1000)
        after = max(0, ask.after) if ask.life == self.life else 0
        lost = max(0, self._last - len(self._kept) - after)
        while True:
            found, looked = self._after(after, agent)
            if found or loop.time() >= end:
                return EventsTold(
                    life=self.life, events=tuple(found), looked=looked, lost=lost, more=looked < self._last
                )
            after = looked
            await self._wait(end)

    def _after(self, after: int, agent: str) -> tuple[list[Event], int]:
        """At most EVENTS_MAX, and the number of the last one that was looked at."""
        found: list[Event] = []
        oldest = self._last - len(self._kept) + 1
        for event in itertools.islice(self._kept, max(0, after + 1 - oldest), None):
            if agent in ("", event.agent):
                found.append(event)
                if len(found) == EVENTS_MAX:
                    return found, event.number
        return found, self._last

    async def _wait(self, end: float) -> None:
        """Until something has happened, or until `end`."""
        if len(self._waiting) >= FOLLOWERS_MAX:
            raise TooManyFollowers
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            async with asyncio.timeout_at(end):
                await waiter
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(waiter)


def _cut(text: str) -> str:
    """Bounded, and without halves of surrogate pairs, which have no form in UTF-8."""
    if len(text) > DETAIL_CHARACTERS_MAX:
        text = text[: DETAIL_CHARACTERS_MAX - 1] + "…"
    return text.encode("utf-8", "replace").decode("utf-8")
