"""How many instances an agent should have: one pure function from what is observed to what is wished.

Runs as: the supervisor. Pure: the time is an argument.
Reads from strangers: a number of a gateway that may be captured. It can make an agent have as many instances as its
policy allows, started no faster than `SPAWNS_PER_SECOND`, and nothing else.

Where an instance serves one caller only, those that have a caller are of no use to others: then the minimum is of
those that nobody has yet, and what is wanted comes on top of it.

Up at once: a call that waits is somebody who waits. Down late: only when fewer have been enough for `idle_seconds`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SPAWNS_PER_SECOND = 20.0
"""For one agent, on top of a burst of as many as it may have: each costs about 10 ms of a processor."""
LOOK_AGAIN_SECONDS = 1.0
"""When instances that are too many were busy, and none could be ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One agent at one moment. Times are seconds of one monotonic clock."""

    now: float
    minimum: int
    maximum: int
    idle_seconds: float
    wanted: int
    """how many instances the calls of this moment could use, as the gateway says"""
    needed: tuple[float, ...] = ()
    """for each number of instances, from 1 on, when that many were last needed; the one that `wishes` gave last"""
    alive: int
    """those that start, import or are ready"""
    unproven: int
    """those of them that are not ready yet"""
    failures: int
    """ends in a row that nobody wanted"""
    not_before: float = 0.0
    """nothing is started before: the delay that the last failure has earned"""
    spawns: float = math.inf
    """how many may be started now, by the rate"""
    pressed: bool = False
    """whether the host is short of memory"""
    one_caller: bool = False
    """`wanted` counts instances that have a caller, or are to get one at once; `minimum` is of others"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What should happen now."""

    start: int
    keep: int
    """what is alive beyond this number should end, if it is idle"""
    needed: tuple[float, ...]
    look_again: float | None
    """when the same question may have another answer although nothing has happened"""


def wishes(seen: Observed) -> Wishes:
    """How many to start, and how many to keep."""
    level = max(seen.minimum, min(seen.wanted, seen.maximum))
    if seen.one_caller:
        level = min(seen.maximum, seen.minimum + max(0, seen.wanted))
    needed = _needed(seen, level)
    recent = sum(1 for moment in needed if moment > seen.now - seen.idle_seconds)
    keep = max(level, recent)
    start, wait = _to_start(seen, level)
    moments = [wait] if wait is not None else []
    if seen.alive > keep:
        moments.append(seen.now + LOOK_AGAIN_SECONDS)
    if keep > level:
        moments.append(needed[keep - 1] + seen.idle_seconds)
    return Wishes(start=start, keep=keep, needed=needed, look_again=min(moments, default=None))


def _needed(seen: Observed, level: int) -> tuple[float, ...]:
    known = (*seen.needed[: seen.maximum], *([-math.inf] * (seen.maximum - len(seen.needed))))
    return tuple(seen.now if position < level else moment for position, moment in enumerate(known))


def _to_start(seen: Observed, level: int) -> tuple[int, float | None]:
    """How many, and when to ask again where there should be more than may be started now."""
    if seen.pressed:
        # What is there goes on. More would be paid for by everybody on the host.
        level = min(level, max(seen.minimum, 1))
    missing = max(0, level - seen.alive)
    if not missing:
        return 0, None
    if seen.now < seen.not_before:
        return 0, seen.not_before
    if seen.failures:
        # One at a time, until one is ready: an agent that cannot start must not cost others more than that.
        missing = min(missing, max(0, 1 - seen.unproven))
        return missing, None
    start = missing if seen.spawns >= missing else math.floor(seen.spawns)
    return start, seen.now + 1 / SPAWNS_PER_SECOND if start < missing else None
