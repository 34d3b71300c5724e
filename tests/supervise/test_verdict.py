"""When a version that gets a part of the calls gets none any more: a table."""

from __future__ import annotations

import pytest

from runagentd.supervise.verdict import Tally, Window, verdict


def tally(calls: int, failures: int = 0, deaths: int = 0) -> Tally:
    return Tally(calls=calls, failures=failures, deaths=deaths)


@pytest.mark.parametrize(
    ("side", "serving", "errors_max", "bad"),
    [
        pytest.param(tally(1000), tally(9000), 5, False, id="all is well"),
        pytest.param(tally(20, 2), tally(180), 5, True, id="two of twenty"),
        pytest.param(tally(20, 1), tally(180), 5, False, id="one of twenty is exactly what is allowed"),
        pytest.param(tally(19, 19), tally(180), 5, False, id="nineteen calls say nothing"),
        pytest.param(tally(20, 20), tally(0), 5, True, id="nobody calls the other"),
        pytest.param(tally(100, 10), tally(900, 90), 5, False, id="both fail alike: it is the callers"),
        pytest.param(tally(100, 20), tally(900, 90), 5, False, id="twice as often is not yet more than twice"),
        pytest.param(tally(100, 21), tally(900, 90), 5, True, id="more than twice as often"),
        pytest.param(tally(100, 50), tally(900, 400), 5, False, id="the other is nearly as bad"),
        pytest.param(tally(100, 0), tally(900, 900), 5, False, id="the other is worse"),
        pytest.param(tally(100, 1), tally(900), 0, True, id="nothing may fail"),
        pytest.param(tally(100, 100), tally(900), 100, False, id="everything may fail"),
        pytest.param(tally(0, 0, 3), tally(0), 5, True, id="three instances died and nobody called"),
        pytest.param(tally(1000, 0, 2), tally(9000), 5, False, id="two died"),
        pytest.param(tally(0, 0, 3), tally(0, 0, 2), 5, False, id="those of the other die, too"),
        pytest.param(tally(0, 0, 9), tally(0), 100, False, id="everything may die"),
    ],
)
def test_the_verdict(side: Tally, serving: Tally, errors_max: int, bad: bool) -> None:
    assert bool(verdict(side, serving, errors_max=errors_max)) is bad


def test_it_says_why() -> None:
    assert verdict(tally(40, 7), tally(300, 1), errors_max=5) == (
        "7 of 40 calls failed within 60 s, more than 5 %, and 1 of 300 of the version that serves"
    )
    assert verdict(tally(0, 0, 3), tally(9), errors_max=5) == "3 of its instances ended by themselves within 60 s"


def test_what_is_older_than_the_window_counts_no_more() -> None:
    window = Window()
    window.add(0.0, tally(10, 5))
    window.add(30.0, tally(10, 1))
    assert window.sum(59.9) == tally(20, 6)
    assert window.sum(60.0) == tally(10, 1)
    assert window.sum(90.0) == tally(0)


def test_a_flood_of_tallies_takes_no_more_room_than_the_seconds_that_it_lasts() -> None:
    window = Window()
    for number in range(100_000):
        window.add(number / 1000, tally(1, 1, 1))
    assert window.sum(100.0) == tally(59_000, 59_000, 59_000)
    assert len(window._entries) == 59
