"""Sizes and durations mean exactly what is written, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runagentd.policy.unfit import Unfit
from runagentd.policy.units import duration, duration_text, size, size_text


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [("8KiB", 8192), ("512MiB", 536870912), ("2GiB", 2147483648), ("0MiB", 0), (4096, 4096), (0, 0)],
)
def test_a_size_is_a_number_with_a_binary_unit_or_a_number_of_bytes(written: object, size_bytes: int) -> None:
    """KiB, MiB and GiB are powers of 1024."""
    assert size(written) == size_bytes


@pytest.mark.parametrize(
    "written",
    ["512MBit", "512MB", "512M", "512", "512 MiB", " 512MiB", "512mib", "0.5GiB", "-1MiB", "+1MiB", "01MiB", "1_0MiB",
     "٣MiB", "MiB", "", "1MiB\n", "1000000000000000000GiB", -1, 1.5, True, None, [], {}],
)  # fmt: skip
def test_anything_else_is_no_size(written: object) -> None:
    """Decimal units, spaces, signs, fractions and digits of other scripts are refused, with an example."""
    with pytest.raises(Unfit) as caught:
        size(written)
    assert caught.value.problems[0].hints == ('write a number with KiB, MiB or GiB, for example "512MiB"',)


@pytest.mark.parametrize(
    ("written", "milliseconds"), [("250ms", 250), ("30s", 30000), ("15m", 900000), ("1h", 3600000), ("0s", 0)]
)
def test_a_duration_is_a_number_with_a_unit(written: str, milliseconds: int) -> None:
    """ms, s, m and h; the value is in milliseconds."""
    assert duration(written) == milliseconds


@pytest.mark.parametrize("written", [30, 1.5, True, "30", "30sec", "1.5s", "1m30s", "30S", "-1s", "∞", "1d"])
def test_anything_else_is_no_duration(written: object) -> None:
    """A bare number above all: seconds to one reader, milliseconds to the next."""
    with pytest.raises(Unfit) as caught:
        duration(written)
    assert caught.value.problems[0].hints == ('write a number with ms, s, m or h, for example "30s"',)


@pytest.mark.parametrize(
    ("size_bytes", "written"), [(0, "0"), (1000, "1000"), (1024, "1KiB"), (1536 * 1024, "1536KiB"), (2**30, "1GiB")]
)
def test_a_size_is_shown_with_the_largest_unit_that_divides_it(size_bytes: int, written: str) -> None:
    """What is no whole number of KiB is shown in bytes: no rounding."""
    assert size_text(size_bytes) == written


@given(st.integers(min_value=0, max_value=2**60))
def test_a_size_that_is_shown_is_read_back_as_itself(size_bytes: int) -> None:
    """For every number of bytes."""
    shown = size_text(size_bytes)
    assert size(int(shown) if shown.isdigit() else shown) == size_bytes


@given(st.integers(min_value=0, max_value=2**39))
def test_a_duration_that_is_shown_is_read_back_as_itself(milliseconds: int) -> None:
    """For every number of milliseconds up to 17 years."""
    assert duration(duration_text(milliseconds)) == milliseconds


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none()))
def test_any_value_is_a_number_or_unfit(value: object) -> None:
    """Never another exception."""
    for parse in (size, duration):
        try:
            assert parse(value) >= 0
        except Unfit:
            pass
