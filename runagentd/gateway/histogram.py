"""Durations in buckets: what is left of many when only their distribution matters.

Runs as: the gateway. Pure.
Reads from strangers: nothing.
"""

from __future__ import annotations

import bisect

SECONDS = (
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)
"""Upper bounds of the buckets of what callers wait for."""


class Histogram:
    """How long something took, how often."""

    __slots__ = ("buckets", "sum")

    def __init__(self) -> None:
        self.buckets = [0] * (len(SECONDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.buckets[bisect.bisect_left(SECONDS, seconds)] += 1
        self.sum += seconds

    def merge(self, other: Histogram) -> None:
        """Take over what another one has counted."""
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.sum += other.sum
