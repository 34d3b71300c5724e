"""Who gets which instance, where each serves one caller: tables of situations, and what holds in all of them."""

from __future__ import annotations

import collections
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runagentd.gateway import binding
from runagentd.gateway.binding import Leaving

NOW = 100.0


@dataclass(frozen=True, eq=False)
class Seat:
    """One instance; `a1` is the first one of caller a, and `free` nobody's."""

    name: str
    load: int = 0
    last_used: float = 50.0
    bound_at: float = 10.0
    start_seconds: float = 0.01

    @property
    def caller(self) -> str | None:
        return None if self.name.startswith("free") else self.name[0]


@pytest.mark.parametrize(
    ("seats", "waiting", "target", "wanted"),
    [
        pytest.param([], {}, 1, 0, id="nobody calls"),
        pytest.param([Seat("free1"), Seat("free2")], {}, 1, 0, id="what nobody has is not wanted by anybody"),
        pytest.param([Seat("a1")], {}, 1, 1, id="what has a caller is of use to that one alone: it counts"),
        pytest.param([Seat("a1"), Seat("b1", load=1)], {}, 1, 2, id="whether it has a call or not"),
        pytest.param([Seat("a1")], {"b": 1}, 1, 2, id="another caller needs another"),
        pytest.param([Seat("a1", load=1)], {"a": 2}, 1, 3, id="and so do more calls of the same one"),
        pytest.param([Seat("a1", load=2)], {"a": 2, "b": 1}, 4, 2, id="target is for each caller by itself"),
        pytest.param([Seat("a1", load=3)], {}, 2, 2, id="also where all calls have a place"),
        pytest.param([], {"a": 1, "b": 1, "c": 5}, 5, 3, id="callers never share one"),
    ],
)
def test_how_many_are_wanted(seats: list[Seat], waiting: dict[str, int], target: int, wanted: int) -> None:
    assert binding.wanted(seats, waiting, target) == wanted


@pytest.mark.parametrize(
    ("seats", "target", "chosen"),
    [
        pytest.param([Seat("b1"), Seat("c1")], 1, None, id="those of others are none"),
        pytest.param([Seat("free"), Seat("a1")], 1, "a1", id="its own before one that nobody has"),
        pytest.param([Seat("a1", load=1), Seat("a2")], 2, "a2", id="of its own the less loaded"),
        pytest.param([Seat("a1", load=1), Seat("free")], 1, "free", id="one that nobody has beyond the target"),
        pytest.param(
            [Seat("a1", load=1), Seat("b1")], 1, "a1", id="its own beyond the target, where there is no other"
        ),
    ],
)
def test_where_a_call_of_a_goes(seats: list[Seat], target: int, chosen: str | None) -> None:
    found = binding.choose(seats, "a", target)
    assert (found.name if found else None) == chosen


def test_an_instance_that_nobody_has_goes_to_who_has_fewest() -> None:
    """Whoever has one already waits for those who have none."""
    seats = [Seat("a1", load=1), Seat("a2", load=1), Seat("b1", load=1)]
    assert binding.first_in_line(seats, {"a": 3, "b": 1, "c": 1, "d": 2}) == {"c", "d"}
    assert binding.first_in_line(seats, {"a": 3, "b": 1}) == {"b"}
    assert binding.first_in_line(seats, {"a": 3}) == {"a"}


def busy(name: str, *, start_seconds: float = 0.01) -> Seat:
    """It has a call, and has had its caller for a second."""
    return Seat(name, load=1, bound_at=NOW - 1, start_seconds=start_seconds)


def recent(name: str) -> Seat:
    """It has a call, and has just got its caller."""
    return Seat(name, load=1, bound_at=NOW - 0.1)


@pytest.mark.parametrize(
    ("seats", "waiting", "coming", "ending", "closed"),
    [
        pytest.param([Seat("a1"), Seat("b1")], {}, 0, "", "", id="nobody waits"),
        pytest.param([Seat("a1", last_used=2), Seat("b1", last_used=1)], {"c": 1}, 0, "b1", "", id="longest unused"),
        pytest.param([Seat("a1"), Seat("b1")], {"c": 1}, 1, "", "", id="another is on its way"),
        pytest.param([Seat("a1"), Seat("b1")], {"c": 1, "d": 1}, 1, "a1", "", id="one is, and two wait"),
        pytest.param([Seat("a1"), recent("b1")], {"c": 1, "d": 1}, 0, "a1", "", id="what has a call stays"),
        pytest.param([busy("a1"), Seat("a2")], {"a": 1}, 0, "", "", id="a caller's own is not taken for itself"),
        pytest.param([recent("a1"), recent("a2")], {"b": 1}, 0, "", "a1 a2", id="two of two, and another has none"),
        pytest.param([recent("a1"), Seat("a2", bound_at=NOW)], {"a": 9, "b": 1}, 0, "a2", "", id="first to be free"),
        pytest.param([recent("a1"), recent("b1")], {"a": 9, "c": 1}, 0, "", "", id="one each: not before its turn"),
        pytest.param([busy("a1"), busy("b1")], {"a": 9, "c": 1}, 0, "", "a1 b1", id="after it, the first to be free"),
        pytest.param([Seat("a1"), busy("b1")], {"a": 9, "c": 1}, 0, "a1", "", id="which is this one"),
        pytest.param([Seat("a1"), Seat("b1", bound_at=9)], {"a": 1, "b": 1, "c": 1}, 0, "b1", "", id="had it longest"),
        pytest.param(
            [busy("a1", start_seconds=5.0), busy("b1")], {"c": 2}, 0, "", "b1", id="a turn is no shorter than a start"
        ),
        pytest.param([busy("a1")], {"a": 5}, 0, "", "", id="nobody takes turns with itself"),
        pytest.param([busy("a1"), busy("b1")], {"b": 4, "a": 4}, 0, "", "", id="nor two who have one each"),
    ],
)  # fmt: skip
def test_what_leaves_so_that_others_can_come(
    seats: list[Seat], waiting: dict[str, int], coming: int, ending: str, closed: str
) -> None:
    """At a maximum of as many as there are, with one call at a time in each."""
    maximum = len(seats)
    found = binding.leaving(seats, waiting, coming=coming, maximum=maximum, concurrency=1, now=NOW)
    assert names(found) == (ending.split(), closed.split())


def names(found: Leaving[Seat]) -> tuple[list[str], list[str]]:
    return [seat.name for seat in found.ending], sorted(seat.name for seat in found.closed)


def test_a_flood_keeps_its_share_and_not_more() -> None:
    """All four are the flood's; a second caller gets two of them if it needs two, and never a third."""
    seats = [Seat(f"a{number}", load=number == 3, bound_at=NOW) for number in range(4)]
    found = binding.leaving(seats, {"a": 100, "b": 3}, coming=0, maximum=4, concurrency=1, now=NOW)
    assert names(found) == (["a0", "a1"], [])


def test_a_long_call_does_not_stand_for_one_that_could_end_at_once() -> None:
    """a's has run for long and will; b, whose calls are short, gives way as soon as one has ended."""
    long, short = Seat("a1", load=1, bound_at=1.0), Seat("b1", load=1, bound_at=2.0)
    found = binding.leaving([long, short], {"b": 9, "c": 1}, coming=0, maximum=2, concurrency=1, now=NOW)
    assert names(found) == ([], ["a1", "b1"])
    free = Seat("b1", bound_at=2.0)
    found = binding.leaving([long, free], {"b": 9, "c": 1}, coming=0, maximum=2, concurrency=1, now=NOW)
    assert names(found) == (["b1"], [])


def test_of_what_has_no_call_that_nobody_has_goes_first_but_for_the_minimum() -> None:
    """Asked for fewer: an idle one of a caller is of more use than one too many of nobody's."""
    seats = [Seat("free1", last_used=1), Seat("free2", last_used=2), Seat("a1", last_used=3), Seat("b1", last_used=2)]
    assert [seat.name for seat in binding.surplus(seats, 1, 2)] == ["free1", "b1"]
    assert [seat.name for seat in binding.surplus(seats, 1, 9)] == ["free1", "b1", "a1", "free2"]
    assert binding.surplus(seats, 1, -1) == []


seats = st.lists(
    st.builds(
        Seat,
        name=st.sampled_from(["a", "b", "c", "d", "free"]),
        load=st.integers(0, 3),
        last_used=st.floats(0, NOW),
        bound_at=st.floats(0, NOW),
        start_seconds=st.floats(0, 2),
    ),
    max_size=8,
)
callers = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 20))


@given(seats, callers, st.integers(0, 8), st.integers(1, 8), st.integers(1, 4))
def test_whatever_happens_nobody_is_pushed_out_for_more_than_is_lacking(
    seats: list[Seat], waiting: dict[str, int], coming: int, maximum: int, concurrency: int
) -> None:
    """What nobody has stays; nothing leaves twice; and no more than those who wait could use."""
    found = binding.leaving(seats, waiting, coming=coming, maximum=maximum, concurrency=concurrency, now=NOW)
    gone = found.ending
    assert all(seat.caller is not None and not seat.load for seat in gone)
    assert all(seat.caller is not None and seat.load for seat in found.closed)
    assert len(set(gone)) == len(gone)
    assert len(gone) <= max(0, sum(waiting.values()) - coming)
    if set(waiting) == {seat.caller for seat in seats}:
        held = collections.Counter(seat.caller for seat in seats)
        left = held - collections.Counter(seat.caller for seat in gone)
        assert all(left[caller] for caller in waiting), "everybody has one, and nobody is left with none"
