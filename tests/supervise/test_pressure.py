"""When a host counts as short of memory: the kernel's account, with a gap between yes and no."""

from __future__ import annotations

import pytest

from runagentd.supervise.pressure import after

FULL = "full avg10=99.00 avg60=0.00 avg300=0.00 total=1\n"


def psi(avg10: float) -> str:
    return f"some avg10={avg10:.2f} avg60=99.00 avg300=99.00 total=37333\n{FULL}"


@pytest.mark.parametrize(
    ("before", "avg10", "expected"),
    [
        (False, 0.0, False),
        (False, 19.99, False),
        (False, 20.0, True),
        (True, 15.0, True),
        (True, 10.0, True),
        (True, 9.99, False),
    ],
)
def test_it_begins_at_twenty_percent_and_ends_below_ten(before: bool, avg10: float, expected: bool) -> None:
    """Of the last ten seconds, in which some process waited: no other number counts."""
    assert after(before, psi(avg10)) is expected


@pytest.mark.parametrize("text", ["", FULL, "some avg60=99.00\n", "some avg10=many\n", "\n\nsome\n"])
@pytest.mark.parametrize("before", [True, False])
def test_what_cannot_be_read_changes_nothing(text: str, before: bool) -> None:
    """A later kernel may write it otherwise."""
    assert after(before, text) is before
