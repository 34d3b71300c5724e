"""Says what goes on to a person who waits, when it changes and every few seconds: they have to know that it does go on.

Runs as: the supervisor.
Reads from strangers: nothing; but a builder that was captured may have something said as often as it likes. So no more
than some words a second are passed on, and of those that came too fast the last ones are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

HEARTBEAT_SECONDS = 5.0
APART_SECONDS = 0.1


class Teller:
    """`tell` is called with each text. Whoever has gone away is noticed by it, sooner or later."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._text = ""
        self._next: asyncio.TimerHandle | None = None
        self._earliest = 0.0
        """when something may be said again, on the loop's clock"""

    def say(self, text: str) -> None:
        """From now on this is what goes on."""
        if text == self._text:
            return
        self._text = text
        self.close()
        wait = self._earliest - asyncio.get_running_loop().time()
        if wait > 0:
            self._next = asyncio.get_running_loop().call_later(wait, self._again)
        else:
            self._again()

    def _again(self) -> None:
        loop = asyncio.get_running_loop()
        self._earliest = loop.time() + APART_SECONDS
        self._next = loop.call_later(HEARTBEAT_SECONDS, self._again)
        self._tell(self._text)

    def close(self) -> None:
        """Say nothing more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
