"""The calls of one agent that wait for a place: bounded, and fair between callers.

Runs as: the gateway. No I/O and no clock: times are arguments.
Reads from strangers: nothing; callers are told apart by the digest of who they are.

Deficit round robin (Shreedhar and Varghese, SIGCOMM 1995) over callers, in seconds of a place. What a call costs is
known only when it has ended, so it is charged then: a caller whose calls took long waits until the others have had as
much. Who calls seldom therefore waits for one call of each other caller at most, however many those have in the queue.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Container, Iterator

from runagentd.gateway.calls import Call

_QUANTUM_LEAST = 1e-4
"""Seconds: with less, a round would be all bookkeeping."""
DEBTORS_MAX = 4096
"""Callers that are remembered while they do not wait."""


class Full(Exception):
    """There is no room for this call."""


class FairQueue:
    """`charge` is to be told of every call that ends, also of one that did not wait."""

    def __init__(self) -> None:
        self._callers: OrderedDict[str, deque[Call]] = OrderedDict()
        """whose turn it is next comes first; nobody is in it without a call"""
        self._deficit: dict[str, float] = {}
        """seconds that a caller may still use; below zero: has used more than the others"""
        self._size = 0
        self._quantum = _QUANTUM_LEAST

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Call]:
        for calls in self._callers.values():
            yield from calls

    def put(self, call: Call, room: int) -> Call | None:
        """Add a call; gives the one that has to leave for it, where there are `room` already.

        That is the newest of the caller with the most, if this one has clearly fewer: a flood fills its own share of
        the queue, and not that of others. `Full` where nobody has.
        """
        own = len(self._callers.get(call.asked.caller, ()))
        leaving = None
        if self._size >= room:
            longest = max(self._callers.values(), key=len, default=None)
            if longest is None or len(longest) <= own + 1:
                raise Full
            leaving = longest[-1]
            self.remove(leaving)
        self._callers.setdefault(call.asked.caller, deque()).append(call)
        self._size += 1
        return leaving

    def put_back(self, call: Call) -> None:
        """Add a call that was taken and could not be started, before the others of its caller."""
        self._callers.setdefault(call.asked.caller, deque()).appendleft(call)
        self._callers.move_to_end(call.asked.caller, last=False)
        self._size += 1

    def waiting(self) -> dict[str, int]:
        """How many calls each caller has in here; nobody is in it without one."""
        return {caller: len(calls) for caller, calls in self._callers.items()}

    def take(self, among: Container[str] | None = None) -> Call:
        """The call whose turn it is, of all callers or of those `among`; KeyError where none of theirs waits."""
        callers = [caller for caller in self._callers if among is None or caller in among]
        if not callers:
            raise KeyError("no call waits")
        if among is None and len(callers) == 1 and self._deficit.keys() <= self._callers.keys():
            # Nobody else waits, and nobody else owes anything: there is nothing to be fair about.
            self._deficit.clear()
            return self._taken(callers[0])
        deficits = [self._deficit.get(caller, 0.0) for caller in callers]
        if max(deficits) < 0:
            # Everybody has had more than their share: as many rounds at once as it takes for the first to go on.
            self._advance(math.ceil(-max(deficits) / self._quantum) * self._quantum)
        return self._taken(next(caller for caller in callers if self._deficit.get(caller, 0.0) >= 0))

    def _taken(self, caller: str) -> Call:
        calls = self._callers[caller]
        call = calls.popleft()
        self._size -= 1
        if calls:
            self._callers.move_to_end(caller)
        else:
            del self._callers[caller]
        return call

    def _advance(self, seconds: float) -> None:
        """Everybody may use so much more; who owes nothing any more and does not wait is forgotten."""
        for caller, deficit in list(self._deficit.items()):
            # Rounding must not leave the first one a hair below zero: then nobody could go on.
            left = deficit + seconds if deficit + seconds < -_QUANTUM_LEAST / 2 else max(0.0, deficit + seconds)
            if left >= 0 and caller not in self._callers:
                del self._deficit[caller]
            else:
                self._deficit[caller] = left

    def remove(self, call: Call) -> None:
        """Take one out that wants no place any more; nothing where it is not in here."""
        calls = self._callers.get(call.asked.caller)
        if calls is None or call not in calls:
            return
        calls.remove(call)
        self._size -= 1
        if not calls:
            del self._callers[call.asked.caller]

    def charge(self, caller: str, seconds: float) -> None:
        """A call of this caller has held a place that long."""
        self._quantum += (max(seconds, _QUANTUM_LEAST) - self._quantum) / 8
        if not self._size:
            # Nobody waited for it: there is nothing to make up for, and nothing to remember of anybody.
            self._deficit.clear()
            return
        self._deficit[caller] = self._deficit.get(caller, 0.0) - seconds
        if len(self._deficit) > DEBTORS_MAX:
            self._deficit = {name: deficit for name, deficit in self._deficit.items() if name in self._callers}

    def ahead_of(self, caller: str) -> int:
        """About how many calls come before the next one of this caller: of each other caller as many as of this one."""
        own = len(self._callers.get(caller, ()))
        others = (len(calls) for name, calls in self._callers.items() if name != caller)
        return own + sum(min(waiting, own + 1) for waiting in others)

    def clear(self) -> list[Call]:
        """Take all of them out, in no particular order."""
        calls = list(self)
        self._callers.clear()
        self._deficit.clear()
        self._size = 0
        return calls
