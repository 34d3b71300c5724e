"""What is said of measured values: medians, high quantiles, and ratios with their spread. Pure.

Runs as: `make bench`.
Reads from strangers: nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all values do not exceed (nearest rank, so always one that was measured)."""
    if not values:
        raise ValueError("there is no quantile of nothing")
    ordered = sorted(values)
    rank = -(-share * len(ordered) // 1)  # ceil, without floating error for whole products
    return ordered[min(len(ordered), max(1, int(rank))) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One series of measured values."""

    count: int
    p50: float
    p95: float
    least: float


def summary(values: Sequence[float]) -> Summary:
    return Summary(
        count=len(values), p50=statistics.median(values), p95=quantile(values, 0.95), least=min(values)
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Of two medians; `low` and `high` hold the middle half of the ratios of neighbours in time."""

    of_medians: float
    low: float
    high: float


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """`ours` to `theirs`; both were measured in turns, so that the n-th of each saw the same weather."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} values cannot be paired with {len(theirs)}")
    pairs = [one / other for one, other in zip(ours, theirs)]
    return Ratio(
        of_medians=statistics.median(ours) / statistics.median(theirs),
        low=quantile(pairs, 0.25),
        high=quantile(pairs, 0.75),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a ratio should be: at most, or at least, `bound`."""

    bound: float
    at_most: bool

    def met(self, ratio: Ratio) -> bool:
        return ratio.of_medians <= self.bound if self.at_most else ratio.of_medians >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.bound:g} ×"
