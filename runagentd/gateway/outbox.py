"""Answers that are made in the very turn of the event loop in which their requests were read: they leave together.

Runs as: the gateway, or its workers.
Reads from strangers: nothing.
A write to a socket wakes whoever waits at its other end, and where that one's processor sleeps, to wake it is most of
what the write costs. A client on this host that had each answer as soon as it was made was asleep again before the next
one; of answers that leave together the first wakes it, and it takes them all. Answers that somebody had to be waited
for come one by one anyway, and leave as they are made: for these, to wait cost more than it saved (both measured,
docs/performance.md).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

PIECES_MAX = 64
"""No answer waits for more than so many others to be made."""


class Outbox:
    """One for all connections of a process. `soon` is the event loop's `call_soon`."""

    def __init__(self, soon: Callable[[Callable[[], None]], object]) -> None:
        self._soon = soon
        self._pieces: list[tuple[asyncio.WriteTransport, bytes]] = []
        self._turn = 0
        self._ending = False

    def begin(self) -> int:
        """A request is about to be answered: the number of this turn, for `put`."""
        if not self._ending:
            self._ending = True
            self._soon(self._end_turn)
        return self._turn

    def put(self, transport: asyncio.WriteTransport, data: bytes, turn: int) -> None:
        """Write `data`, or have it written when this turn ends, if that is the one in which its request was begun.

        Whoever writes or closes otherwise flushes first.
        """
        if turn != self._turn:
            transport.write(data)
            return
        self._pieces.append((transport, data))
        if len(self._pieces) >= PIECES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write all that waits now."""
        pieces, self._pieces = self._pieces, []
        for transport, data in pieces:
            # uvloop says by an exception that a connection is gone, and the answers behind this one are others'.
            with contextlib.suppress(RuntimeError):
                transport.write(data)

    def _end_turn(self) -> None:
        self._ending = False
        self._turn += 1
        self.flush()
