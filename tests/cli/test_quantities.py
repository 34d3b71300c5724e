"""Numbers in words."""

from __future__ import annotations

import pytest

from runagentd.cli.quantities import age, count, duration, milliseconds, quantile, size

BOUNDS = (1000, 2000, 4000)


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (2048, "2 KiB"), (5 * 1024**2, "5 MiB"), (3 * 1024**3 // 2, "1.5 GiB")]
)
def test_sizes(number: int, text: str) -> None:
    assert size(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (200_000, "2d")])
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0.00031, "0.31 ms"), (0.012, "12.0 ms"), (0.25, "250 ms"), (1.25, "1.25 s"), (75.4, "75 s"),
    ],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_times_that_somebody_has_configured_keep_their_unit() -> None:
    assert [milliseconds(number) for number in (250, 1500, 30_000, 300_000, 7_200_000)] == [
        "250 ms", "1500 ms", "30 s", "5 m", "2 h",
    ]  # fmt: skip


def test_one_and_many() -> None:
    assert (count(1, "call"), count(2, "call"), count(0, "call")) == ("1 call", "2 calls", "0 calls")


def test_a_quantile_lies_evenly_within_its_bucket() -> None:
    """As Prometheus' histogram_quantile has it."""
    assert quantile(0.5, (10, 0, 0, 0), BOUNDS) == 0.0005
    assert quantile(0.5, (1, 2, 1, 0), BOUNDS) == 0.0015


def test_a_quantile_is_no_more_than_can_have_been() -> None:
    """A bucket may reach beyond the deadline at which every call ends."""
    assert quantile(0.99, (0, 0, 5, 0), BOUNDS, most=0.003) == 0.003
    assert quantile(0.99, (0, 0, 0, 5), BOUNDS, most=0.003) == 0.003
    assert quantile(0.5, (10, 0, 0, 0), BOUNDS, most=0.003) == 0.0005


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    """And of nothing there is none."""
    assert quantile(0.99, (0, 0, 0, 5), BOUNDS) == 0.004
    assert quantile(0.5, (0, 0, 0, 0), BOUNDS) is None
    assert quantile(0.5, (), ()) is None
