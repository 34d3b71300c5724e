"""Quantiles, ratios, targets."""

from __future__ import annotations

import pytest

from benchmarks.figures import Ratio, Target, quantile, ratio, summary


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.2, 1.0), (0.21, 2.0), (0.5, 3.0), (0.95, 5.0), (1.0, 5.0)]
)
def test_a_quantile_is_the_smallest_measured_value_that_the_share_does_not_exceed(
    share: float, expected: float
) -> None:
    """Nearest rank: nothing is interpolated."""
    assert quantile([5.0, 1.0, 4.0, 2.0, 3.0], share) == expected


def test_there_is_no_quantile_of_nothing() -> None:
    """Rather than a zero that looks measured."""
    with pytest.raises(ValueError, match="no quantile of nothing"):
        quantile([], 0.5)


def test_a_summary_has_count_median_high_quantile_and_minimum() -> None:
    """The median of an even number of values lies between the middle two."""
    found = summary([4.0, 1.0, 3.0, 2.0])
    assert (found.count, found.p50, found.p95, found.least) == (4, 2.5, 4.0, 1.0)


def test_a_ratio_is_of_medians_with_the_middle_half_of_neighbours_in_time() -> None:
    """One disturbed pair moves neither the ratio nor its spread."""
    assert ratio([2.0, 2.0, 4.0, 300.0], [1.0, 2.0, 2.0, 3.0]) == Ratio(of_medians=1.5, low=1.0, high=2.0)


def test_series_of_different_lengths_have_no_ratio() -> None:
    """They were not measured in turns."""
    with pytest.raises(ValueError, match="2 values cannot be paired with 1"):
        ratio([1.0, 2.0], [1.0])


def test_a_target_says_which_side_of_its_bound_is_good() -> None:
    """The bound itself is met."""
    exactly = Ratio(of_medians=1.0, low=0.9, high=1.1)
    assert Target(bound=1.0, at_most=True).met(exactly)
    assert Target(bound=1.0, at_most=False).met(exactly)
    assert not Target(bound=0.9, at_most=True).met(exactly)
    assert not Target(bound=1.5, at_most=False).met(exactly)
    assert [str(Target(bound=1.0, at_most=True)), str(Target(bound=1.5, at_most=False))] == ["≤ 1 ×", "≥ 1.5 ×"]
