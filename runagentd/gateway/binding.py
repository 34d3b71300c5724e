"""Which instance serves whom, where an instance takes calls of one caller only (`calls.isolation = "principal"`).

Runs as: the gateway. Pure: the time is an argument.
Reads from strangers: nothing; callers are told apart by a digest of who they are.

An instance has no caller until its first call, and then that one until it ends. So instances are not interchangeable:
what one caller has too many of, another can have only by an end and a start. Everything here says who should have how
many; that no call reaches an instance of somebody else is not decided here, but checked where calls are sent
(`instances.Instance.start`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

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


def wanted(seats: Sequence[Seat], waiting: Mapping[str, int], target: int) -> int:
    """How many instances with a caller there should be: those there are, and what calls of this moment lack."""
    held, calls = _held(seats), _calls(seats, waiting)
    lacking = sum(max(0, -(-count // target) - held[caller]) for caller, count in calls.items())
    return held.total() + lacking


def choose(seats: Sequence[S], caller: str, target: int) -> S | None:
    """Of instances with a place: one of this caller's with fewer calls than `target`, or one that nobody has yet."""
    own = min((seat for seat in seats if seat.caller == caller), key=_load, default=None)
    if own is not None and own.load < target:
        return own
    free = next((seat for seat in seats if seat.caller is None), None)
    return free if free is not None else own


def first_in_line(seats: Sequence[Seat], waiting: Mapping[str, int]) -> frozenset[str]:
    """Of the callers who wait, those with the fewest instances: one of them gets the next that nobody has."""
    held = _held(seats)
    fewest = min((held[caller] for caller in waiting), default=0)
    return frozenset(caller for caller in waiting if held[caller] == fewest)


def leaving(
    seats: Sequence[S], waiting: Mapping[str, int], *, coming: int, maximum: int, concurrency: int, now: float
) -> list[S]:
    """Instances that take no more calls, so that callers who wait get others in their place.

    `coming` are those that nobody has and that start, or may be started. First go instances that have no call at all,
    the longest unused first, whoever needs one. Then, for callers with less than their share: what others have beyond
    theirs. At last, for callers with none: one whose caller has had a turn. A share is `maximum` divided by the callers
    who have calls.
    """
    held, calls = _held(seats), _calls(seats, waiting)
    bound = [seat for seat in seats if seat.caller is not None]
    chosen: list[S] = []

    def take(lacking: int, candidates: list[S]) -> None:
        chosen.extend(candidates[: max(0, lacking - coming - len(chosen))])

    lacks = {caller: -(-count // concurrency) for caller, count in waiting.items()}
    idle = [seat for seat in bound if not seat.load and seat.caller not in waiting]
    take(sum(lacks.values()), sorted(idle, key=lambda seat: seat.last_used))

    share = max(1, maximum // max(1, len(calls)))
    rich = []
    for seat in sorted((seat for seat in bound if seat not in chosen), key=lambda seat: (seat.load, seat.last_used)):
        if seat.caller is not None and held[seat.caller] > share:
            held[seat.caller] -= 1
            rich.append(seat)
    before = _held(seats)
    take(sum(min(lack, max(0, share - before[caller])) for caller, lack in lacks.items()), rich)

    over = [seat for seat in bound if seat not in chosen and now - seat.bound_at >= turn_seconds(seat)]
    take(sum(not before[caller] for caller in waiting), sorted(over, key=lambda seat: seat.bound_at))
    return chosen


def surplus(seats: Sequence[S], keep_free: int, count: int) -> list[S]:
    """`count` of these instances without a call, to be ended: those that nobody has beyond `keep_free` come first."""
    free = sorted((seat for seat in seats if seat.caller is None), key=lambda seat: seat.last_used)
    bound = sorted((seat for seat in seats if seat.caller is not None), key=lambda seat: seat.last_used)
    beyond = len(free) - keep_free
    order = [*free[: max(0, beyond)], *bound, *free[max(0, beyond) :]]
    return order[: max(0, count)]


def turn_seconds(seat: Seat) -> float:
    """How long its caller may keep it while others wait: no less than it took to start, or starts would be all."""
    return max(TURN_SECONDS, seat.start_seconds)


def _held(seats: Sequence[Seat]) -> Counter[str]:
    return Counter(seat.caller for seat in seats if seat.caller is not None)


def _calls(seats: Sequence[Seat], waiting: Mapping[str, int]) -> Counter[str]:
    """How many calls each caller has, running and waiting; nobody is in it without one."""
    calls = Counter(waiting)
    for seat in seats:
        if seat.caller is not None and seat.load:
            calls[seat.caller] += seat.load
    return calls


def _load(seat: Seat) -> int:
    return seat.load
