"""Whether a version that gets a part of an agent's calls is worse than the one that serves: one pure function.

Runs as: the supervisor. Pure.
Reads from strangers: numbers of a gateway that may be captured. The worst that they can do is to end a split, and so
have all calls go to the version that the operator had serve before.

Callers can make calls fail. Which version has a call is drawn by lot, so what callers do meets both versions alike, and
a version is judged by what it does worse than the other.
"""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass

WINDOW_SECONDS = 60.0
CALLS_MIN = 20
"""Fewer calls say nothing about a rate."""
DEATHS_MIN = 3
"""Instances that end by themselves, whether somebody calls or not."""
WORSE = 2.0
"""So many times the rate of the version that serves, on top of what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What has come of the calls and the instances of one version within the window."""

    calls: int = 0
    failures: int = 0
    """calls that failed by the version's fault: an exception, an answer without a form, a death, its own deadline"""
    deaths: int = 0
    """instances that ended and were not to"""

    @property
    def rate(self) -> float:
        """Failures of a hundred calls."""
        return 100 * self.failures / self.calls if self.calls else 0.0


class Window:
    """Adds up what happened within the last WINDOW_SECONDS. Times are seconds of one monotonic clock.

    What comes within one second is one entry: however much is told, there are no more entries than seconds.
    """

    def __init__(self) -> None:
        self._entries: deque[tuple[float, Tally]] = deque()

    def add(self, now: float, tally: Tally) -> None:
        self._forget(now)
        if self._entries and now - self._entries[-1][0] < 1.0:
            began, before = self._entries.pop()
            self._entries.append((began, _added(before, tally)))
        else:
            self._entries.append((now, tally))

    def sum(self, now: float) -> Tally:
        self._forget(now)
        return functools.reduce(_added, (tally for _, tally in self._entries), Tally())

    def _forget(self, now: float) -> None:
        while self._entries and self._entries[0][0] <= now - WINDOW_SECONDS:
            self._entries.popleft()


def _added(one: Tally, other: Tally) -> Tally:
    return Tally(
        calls=one.calls + other.calls, failures=one.failures + other.failures, deaths=one.deaths + other.deaths
    )


def verdict(side: Tally, serving: Tally, *, errors_max: int) -> str:
    """Why this version is to get no more calls, in words; "" where there is no reason.

    `errors_max` is how many of a hundred calls may fail; 100 allows everything, deaths too.
    """
    if errors_max >= 100:
        return ""
    if side.deaths >= DEATHS_MIN and side.deaths > WORSE * serving.deaths:
        return f"{side.deaths} of its instances ended by themselves within {WINDOW_SECONDS:.0f} s"
    if side.calls < CALLS_MIN or side.rate <= errors_max or side.rate <= WORSE * serving.rate:
        return ""
    compared = f"{serving.failures} of {serving.calls} of the version that serves"
    return (
        f"{side.failures} of {side.calls} calls failed within {WINDOW_SECONDS:.0f} s, "
        f"more than {errors_max} %, and {compared}"
    )
