"""A process for each call, and what is left after kill -9, from figures given literally."""

from __future__ import annotations

from benchmarks import lives
from benchmarks.lives import Footprint


def test_what_a_process_adds_is_the_difference_of_neighbours_in_time() -> None:
    """Both of a round saw the same weather."""
    [added, whole, clone] = lives.measured_isolated([1.0, 2.0, 3.0], [2.5, 4.0, 5.5], [0.5, 0.5, 1.0], "").rows
    assert (added.ours, added.target, added.met) == (2.0, "<= 2", True)
    assert (whole.ours, whole.peer, whole.ratio) == (4.0, 2.0, 2.0)
    assert (clone.ours, clone.peer, clone.ratio) == (2.0, 0.5, 4.0)


def test_without_sandlock_the_row_says_why() -> None:
    """And keeps our own figure."""
    row = lives.measured_isolated([1.0], [2.5], [], "not installed: no wheel").rows[2]
    assert (row.ours, row.ratio) == (1.5, None)
    assert row.note == "a clone by sandlock, which does nothing: not installed: no wheel"


def test_what_is_over_of_one_kind_is_not_made_good_by_another() -> None:
    """Two cgroups too many and a process too few are two."""
    assert Footprint(8, 32, 0).over(Footprint(9, 30, 0)) == 2
    assert Footprint(8, 30, 0).over(Footprint(9, 30, 0)) == 0
