"""Which instance serves whom, where an instance takes calls of one caller only (`calls.isolation = "principal"`).

Runs as: the gateway. Pure: the time is an argument.
Reads from strangers: nothing; callers are told apart by a digest of who they are.

An instance has no caller until its first call, and then that one until it ends. So instances are not interchangeable:
what one caller has too many of, another can have only by an end and a start. Everything here says who should have how
many; that no call reaches an instance of somebody else is not decided here, but checked where calls are sent
(`instances.Instance.start`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

TURN_SECONDS = 0.25
"""How long a caller keeps an instance at least while others wait who have none: to start another costs time as well."""


class Seat(Protocol):
    """An instance that is ready, as far as these functions look at it."""

    @property
    def caller(self) -> str | None:
        """Whose calls it takes; None before its first one."""

    @property
    def load(self) -> int:
        """How many calls it has."""

    @property
    def last_used(self) -> float:
        """When its last call ended."""

    @property
    def bound_at(self) -> float:
        """When it got its caller."""

    @property
    def start_seconds(self) -> float:
        """How long it took to become ready."""


S = TypeVar("S", bound=Seat)


@dataclass(frozen=True, slots=True)
class Leaving(Generic[S]):
    """Instances that give way."""

    ending: list[S] = field(default_factory=list)
    """that have no call, and are to be ended"""
    closed: set[S] = field(default_factory=set)
    """that take no more calls until one of them has none, or nobody waits for it any more"""

    def __contains__(self, seat: object) -> bool:
        return seat in self.closed or seat in self.ending


def wanted(seats: Sequence[Seat], waiting: Mapping[str, int], target: int) -> int:
    """How many instances with a caller there should be: those there are, and what calls of this moment lack."""
    held, calls = _count(seats, waiting)
    lacking = sum(max(0, -(-count // target) - held.get(caller, 0)) for caller, count in calls.items())
    return sum(held.values()) + lacking


def choose(seats: Sequence[S], caller: str, target: int) -> S | None:
    """Of instances with a place: one of this caller's with fewer calls than `target`, or one that nobody has yet."""
    own = min((seat for seat in seats if seat.caller == caller), key=_load, default=None)
    if own is not None and own.load < target:
        return own
    free = next((seat for seat in seats if seat.caller is None), None)
    return free if free is not None else own


def first_in_line(seats: Sequence[Seat], waiting: Mapping[str, int]) -> frozenset[str]:
    """Of the callers who wait, those with the fewest instances: one of them gets the next that nobody has."""
    held, _ = _count(seats, waiting)
    fewest = min((held.get(caller, 0) for caller in waiting), default=0)
    return frozenset(caller for caller in waiting if held.get(caller, 0) == fewest)


def leaving(
    seats: Sequence[S], waiting: Mapping[str, int], *, coming: int, maximum: int, concurrency: int, now: float
) -> Leaving[S]:
    """What takes no more calls, so that callers who wait get other instances in its place.

    `coming` are those that nobody has and that start, or may be started. First go instances that have no call at all,
    the longest unused first, whoever needs one. Then, for callers with less than their share: what others have beyond
    theirs. At last, for callers with none: those whose caller has had a turn. A share is `maximum` divided by the
    callers who have calls. Of busy ones it cannot be said which will be without a call first, so all of them wait
    for that: one with a long call must not stand for one that could end at once.
    """
    held, calls = _count(seats, waiting)
    bound = sorted((seat for seat in seats if seat.caller is not None), key=_last_used)
    lacks = {caller: -(-count // concurrency) for caller, count in waiting.items()}
    share = max(1, maximum // max(1, len(calls)))
    beyond = {caller: count - share for caller, count in held.items()}
    found: Leaving[S] = Leaving()

    def missing(lacking: int) -> int:
        return lacking - coming - len(found.ending)

    for seat in bound:
        if missing(sum(lacks.values())) > 0 and not seat.load and seat.caller not in waiting:
            found.ending.append(seat)
            beyond[str(seat.caller)] -= 1

    poor = sum(min(lack, max(0, share - held.get(caller, 0))) for caller, lack in lacks.items())
    for seat in bound:
        if missing(poor) > 0 and not seat.load and beyond[str(seat.caller)] > 0 and seat not in found.ending:
            found.ending.append(seat)
            beyond[str(seat.caller)] -= 1
    if missing(poor) > 0:
        found.closed.update(seat for seat in bound if seat.load and beyond[str(seat.caller)] > 0)

    none = sum(caller not in held for caller in waiting)
    over = [seat for seat in bound if now - seat.bound_at >= turn_seconds(seat)]
    for seat in sorted(over, key=_bound_at):
        if missing(none) > 0 and not seat.load and seat not in found.ending:
            found.ending.append(seat)
    if missing(none) > 0:
        found.closed.update(seat for seat in over if seat.load)
    return found


def surplus(seats: Sequence[S], keep_free: int, count: int) -> list[S]:
    """`count` of these instances without a call, to be ended: those that nobody has beyond `keep_free` come first."""
    free = sorted((seat for seat in seats if seat.caller is None), key=_last_used)
    bound = sorted((seat for seat in seats if seat.caller is not None), key=_last_used)
    beyond = len(free) - keep_free
    order = [*free[: max(0, beyond)], *bound, *free[max(0, beyond) :]]
    return order[: max(0, count)]


def turn_seconds(seat: Seat) -> float:
    """How long its caller may keep it while others wait: no less than it took to start, or starts would be all."""
    return max(TURN_SECONDS, seat.start_seconds)


def _count(seats: Sequence[Seat], waiting: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """How many instances each caller has, and how many calls, running and waiting; nobody is in it without any.

    Asked twice for each call: with collections.Counter it takes ten times as long.
    """
    held: dict[str, int] = {}
    calls = dict(waiting)
    for seat in seats:
        caller = seat.caller
        if caller is not None:
            held[caller] = held.get(caller, 0) + 1
            if load := seat.load:
                calls[caller] = calls.get(caller, 0) + load
    return held, calls


def _load(seat: Seat) -> int:
    return seat.load


def _last_used(seat: Seat) -> float:
    return seat.last_used


def _bound_at(seat: Seat) -> float:
    return seat.bound_at
