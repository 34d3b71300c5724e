"""What the siege has shown, judged: what a limit let through, whether memory was flat, and who was slower. Pure.

Runs as: `make siege`.
Reads from strangers: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NS = 1_000_000_000
TOKENS_OFF = 1
"""How far a limit may be from what it says."""
GROWTH_BYTES_A_MINUTE = 1024 * 1024
"""Below that, memory is flat."""
SLOWER_AT_MOST = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """What one client has sent against one limit, by its own clock (nanoseconds), and how much of it got through."""

    sent: int
    passed: int
    first_sent: int
    first_answered: int
    last_answered: int
    refused_sent: int
    """when the last request that was refused was sent: then nothing was left in the bucket; 0 where none was"""
    passed_then: int
    """how many had got through before that was answered"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """About one limit: what it let through, and what it may and must have."""

    limit: str
    passed: int
    most: int
    passed_then: int
    least: int
    """until the last refusal"""
    reached: bool
    """whether anything was refused; if not, `least` says nothing"""

    @property
    def exact(self) -> bool:
        return self.passed <= self.most and (not self.reached or self.passed_then >= self.least)


def judge(limit: str, flood: Flood, *, count: int, seconds: int, burst: int) -> Verdict:
    """A bucket that was full lets `burst` through, and `count` more in each `seconds`.

    The daemon's clock for the flood is not known: it has begun between the moments at which the first request was sent
    and the first answer came. Too much is what is over the longest time that there can have been; too little is what is
    under the shortest one up to the last refusal, since after that something may be left in the bucket.
    """
    longest = flood.last_answered - flood.first_sent
    shortest = max(0, flood.refused_sent - flood.first_answered)
    return Verdict(
        limit=limit,
        passed=flood.passed,
        most=burst + longest * count // (seconds * NS) + TOKENS_OFF,
        passed_then=flood.passed_then,
        least=burst + shortest * count // (seconds * NS) - TOKENS_OFF,
        reached=flood.refused_sent > 0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of the gateway, sampled each second of the attack."""

    first: int
    last: int
    most: int
    growth_a_minute: float
    """bytes, by the straight line that fits best through the samples after the warm-up"""

    @property
    def flat(self) -> bool:
        return self.growth_a_minute <= GROWTH_BYTES_A_MINUTE


def memory(samples: Sequence[tuple[float, int]], *, warm_up: float) -> Memory:
    """`samples`: (seconds of attack, bytes), in order; those before `warm_up` say nothing about growth."""
    if len(samples) < 2:
        raise ValueError("two samples of memory at least")
    later = [(at, size) for at, size in samples if at >= warm_up] or list(samples)
    return Memory(
        first=samples[0][1],
        last=samples[-1][1],
        most=max(size for _, size in samples),
        growth_a_minute=60 * slope(later),
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Least squares; 0 where all points are at one time."""
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread if spread else 0.0


def schedule(connection: int, *, connections: int, per_second: int, seconds: float) -> list[float]:
    """When one of the connections is to send its calls, in seconds from the start.

    All together send evenly, whatever became of the calls before: a slow answer does not make the load smaller.
    """
    return [number / per_second for number in range(connection, round(per_second * seconds), connections)]
