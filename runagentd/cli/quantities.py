"""Sizes, times and quantiles, in words of a few characters for people.

Runs as: whoever runs a command. Pure.
Reads from strangers: counts that a gateway made which may be captured: any number gives a text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

NONE = "-"


def size(number: int) -> str:
    """A number of bytes: 0 B, 512 KiB, 1.5 GiB."""
    value = float(number)
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def age(seconds: float) -> str:
    """How long something has been there: 5s, 3m, 2h, 4d."""
    whole = max(0, int(seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= length:
            return f"{whole // length}{unit}"
    return f"{whole}s"


def milliseconds(number: int) -> str:
    """A time that somebody has configured: 250 ms, 30 s, 5 m, 2 h."""
    for unit, length in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if number >= length and number % length == 0:
            return f"{number // length} {unit}"
    return f"{number} ms"


def duration(seconds: float | None) -> str:
    """How long something took: 0.31 ms, 12.0 ms, 1.25 s, 75 s; a dash where nothing is known."""
    if seconds is None:
        return NONE
    if seconds < 0.001:
        return f"{seconds * 1000:.2f} ms"
    if seconds < 0.1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def count(number: int, thing: str) -> str:
    """1 call, 2 calls."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def quantile(
    share: float, buckets: Sequence[int], bounds_microseconds: Sequence[int], *, most: float = math.inf
) -> float | None:
    """Below how many seconds that share of a histogram lies; None where it is empty.

    As Prometheus reckons: evenly spread within a bucket, and the last bound where it lies beyond that; but no more than
    `most` seconds, where nothing can have taken longer.
    """
    wanted = share * sum(buckets)
    if wanted <= 0:
        return None
    below = lower = 0
    for number, bound in zip(buckets, bounds_microseconds):
        if number > 0 and below + number >= wanted:
            return min(most, (lower + (bound - lower) * (wanted - below) / number) / 1e6)
        below, lower = below + number, bound
    return min(most, lower / 1e6)
