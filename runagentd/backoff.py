"""How long to wait before something is tried again that has failed: twice as long each time, up to a bound.

Runs as: the foreman, the supervisor, the egress process. Pure.
Reads from strangers: nothing.
"""

from __future__ import annotations

_DOUBLINGS_MAX = 32
"""2.0 ** 1024 is no float any more: what fails for hours must not end who waits for it."""


def doubled(first: float, times: int, *, most: float) -> float:
    """`first`, doubled so many times, and never more than `most`."""
    return min(most, first * 2.0 ** min(times, _DOUBLINGS_MAX))
