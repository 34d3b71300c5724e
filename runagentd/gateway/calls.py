"""A call as the gateway sees it: what was asked, and what has come back so far.

Runs as: the gateway. No I/O: `channel` feeds a call, a door takes from it.
Reads from strangers: nothing; `channel` has checked all that arrives here.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from runagentd.errors import Refusal
from runagentd.gateway.values import Value

CHUNKS_MAX = 16
"""The largest window of credits: how far a generator may run ahead of its reader, in chunks."""
CHUNKS_FIRST = 4
"""The window before the size of a chunk is known."""
BUFFER_BYTES = 1024 * 1024
"""What the chunks of one stream may take in memory, as long as each is smaller than that."""


OURS = "runagentd"
"""The caller of a call that the daemon makes itself, with nothing of anybody's. No caller's digest is like this."""


class Mode(enum.StrEnum):
    """Whether the caller wants one result or a stream of chunks."""

    SINGLE = "single"
    STREAM = "stream"


class State(enum.Enum):
    """Where a call is. Only the closing frame, or the end of its instance, makes an open call CLOSED."""

    WAITING = enum.auto()
    OPEN = enum.auto()
    STOPPING = enum.auto()
    """its caller has its answer or is gone; the function still runs and holds its place"""
    CLOSED = enum.auto()


class Asked(msgspec.Struct, frozen=True):
    """The part of a call that does not change."""

    request_id: str
    tag: str
    mode: Mode
    arguments: bytes
    """the JSON text `[args, kwargs]`"""
    deadline: float
    """on the event loop's clock"""
    principal: str
    caller: str
    """with whom it may share: the principal, or, where that is apart, the principal within a tenant"""
    traceparent: str
    tracestate: str | None = None


class Observer(Protocol):
    """Who wants to know what becomes of a call, whether its caller is still there or not."""

    def delivered(self, value: Value) -> None:
        """A result or a chunk has come."""

    def ended(self, call: Call, error: Refusal | None) -> None:
        """Nothing more will; called once."""


class Call:
    """One call, from the moment it was decoded until its function has stopped."""

    __slots__ = (
        "_error",
        "_events",
        "_in_hand",
        "_loop",
        "_waiter",
        "asked",
        "budget",
        "cancelled",
        "chunks",
        "credit",
        "ended",
        "instance",
        "largest_chunk",
        "number",
        "observer",
        "once",
        "outstanding",
        "released",
        "sent",
        "started",
        "state",
        "timer",
        "unread",
    )

    def __init__(self, asked: Asked, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """`loop` is the running one, from whoever knows it: to ask which that is takes a system call (getpid(2))."""
        self._loop = loop
        self.asked = asked
        self.state = State.WAITING
        self.number = 0
        self.cancelled = 0.0
        """when its function was told to stop; 0.0 where it was not"""
        self.budget = 0.0
        """seconds to the deadline when it began to wait for a place"""
        self.instance = ""
        self.started = 0.0
        self.chunks = 0
        self.outstanding = 0
        """credits that the runner still has"""
        self.unread = 0
        """chunks that have come and were not taken, or were taken and are not yet out of our hands"""
        self.largest_chunk = 1
        self.credit: Callable[[Call], None] | None = None
        """called when a chunk has left our hands; set by the channel that the call is open on"""
        self.timer: asyncio.TimerHandle | None = None
        self.sent = False
        """whether any runner was given it"""
        self.once = False
        """never to be given to a second runner, however sure it seems that the first did not begin it"""
        self.observer: Observer | None = None
        self.released: Callable[[], None] | None = None
        """called when the call is CLOSED: what it held is free"""
        self.ended = False
        self._error: Refusal | None = None
        self._events: deque[Value] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._in_hand = 0
        """how many values were taken and are not yet out of our hands"""

    # ---- what the channel and the queue do

    def deliver(self, value: Value) -> None:
        """A result or a chunk has come."""
        if self.ended:
            return
        if self.observer is not None:
            self.observer.delivered(value)
        self._events.append(value)
        self.unread += 1
        self._wake()

    def end(self, error: Refusal | None = None) -> None:
        """Nothing more will come for the caller; with `error`, because of that. Only the first end counts."""
        if self.ended:
            return
        self.ended = True
        self._error = error
        if self.observer is not None:
            self.observer.ended(self, error)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self._wake()

    def close(self) -> None:
        """Its function has stopped, or never began."""
        self.state = State.CLOSED
        if self.released is not None:
            released, self.released = self.released, None
            released()

    def cut(self, error: Refusal) -> None:
        """The caller is to have nothing more, not even what has come already."""
        self._events.clear()
        self.end(error)
        self._error = error  # also where all had come, and not all of it was taken

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ---- what a door does

    async def next(self, *, patience: float | None = None) -> Value | None:
        """The next value, or None at the end; `Refusal` where the call failed, TimeoutError after `patience` seconds.

        To ask for the next one says that the one before has left our hands: its credit goes back to the runner.
        """
        if self._in_hand:
            self.unread -= self._in_hand
            self._in_hand = 0
            if self.credit is not None:
                self.credit(self)
        while not self._events:
            if self.ended:
                if self._error is not None:
                    raise self._error
                return None
            await self._wait(patience)
        self._in_hand = 1
        return self._events.popleft()

    def at_hand(self, bytes_max: int) -> list[Value]:
        """Values that have come as well, of so many bytes together at most: they leave our hands with the last one."""
        found: list[Value] = []
        events = self._events
        while events and (bytes_max := bytes_max - len(events[0].body)) >= 0:
            found.append(events.popleft())
        self._in_hand += len(found)
        return found

    async def _wait(self, patience: float | None) -> None:
        loop = self._loop or asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = None
        if patience is not None:
            timer = loop.call_later(patience, _expire, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def grant(self) -> int:
        """How many credits the runner should get now; 0 for none yet. The window shrinks where chunks are large."""
        if self.ended or self.state is not State.OPEN:
            return 0
        window = max(1, min(CHUNKS_MAX, BUFFER_BYTES // self.largest_chunk))
        missing = window - self.outstanding - self.unread
        # Half a window at a time: one frame back for eight chunks, and still never an idle runner for want of one.
        return missing if missing >= max(1, window // 2) else 0


class Replay:
    """What a call gave that ran before, to be read like a call."""

    def __init__(self, values: Sequence[Value]) -> None:
        self._values = iter(values)

    async def next(self, *, patience: float | None = None) -> Value | None:
        """The next value, at once; None at the end."""
        del patience
        return next(self._values, None)

    def at_hand(self, bytes_max: int) -> list[Value]:
        """None: whatever it is, `next` gives it."""
        del bytes_max
        return []


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())
