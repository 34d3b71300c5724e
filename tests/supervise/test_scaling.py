"""How many instances there should be: a table of situations, and what holds in all of them."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runagentd.supervise.scaling import Observed, wishes

CALM = Observed(
    now=1000.0, minimum=1, maximum=4, idle_seconds=60.0, wanted=0, alive=1, unproven=0, failures=0, needed=()
)
"""One instance, nobody calls."""
NEVER = -math.inf


def seen(**changes: object) -> Observed:
    return dataclasses.replace(CALM, **changes)  # type: ignore[arg-type]  # the rows below name real fields


@pytest.mark.parametrize(
    ("situation", "start", "keep", "look_again"),
    [
        pytest.param(seen(), 0, 1, None, id="nobody calls: the minimum stays"),
        pytest.param(seen(wanted=1), 0, 1, None, id="one is enough"),
        pytest.param(seen(wanted=3), 2, 3, None, id="calls that wait are somebody who waits"),
        pytest.param(seen(wanted=900), 3, 4, None, id="no more than the policy allows, whatever the gateway says"),
        pytest.param(seen(wanted=3, alive=3, unproven=2), 0, 3, None, id="those that start are on their way"),
        pytest.param(seen(minimum=0, alive=0), 0, 0, None, id="asleep"),
        pytest.param(seen(minimum=0, alive=0, wanted=1), 1, 1, None, id="woken by a call"),
        pytest.param(
            seen(alive=3, needed=(1000.0, 990.0, 980.0)), 0, 3, 1040.0, id="three were needed 20 s ago: they stay"
        ),
        pytest.param(
            seen(alive=3, needed=(1000.0, 990.0, 940.0)), 0, 2, 1001.0, id="the third was not needed for a minute"
        ),
        pytest.param(seen(alive=3, needed=(1000.0, 900.0, 900.0)), 0, 1, 1001.0, id="two were not: both go"),
        pytest.param(
            seen(minimum=0, alive=1, needed=(939.0,)), 0, 0, 1001.0, id="the last one goes where none must be there"
        ),
        pytest.param(seen(maximum=2, alive=4, wanted=4), 0, 2, 1001.0, id="an operator has lowered the maximum"),
        pytest.param(seen(wanted=4, alive=0, failures=1), 1, 4, None, id="after a failure one at a time"),
        pytest.param(seen(wanted=4, alive=1, unproven=1, failures=1), 0, 4, None, id="and no other until it is ready"),
        pytest.param(seen(wanted=4, alive=0, failures=3, not_before=1000.2), 0, 4, 1000.2, id="not before the delay"),
        pytest.param(seen(wanted=4, spawns=1.9), 1, 4, 1000.05, id="not faster than the rate"),
        pytest.param(seen(wanted=4, pressed=True), 0, 4, None, id="none more while the host is short of memory"),
        pytest.param(seen(one_caller=True), 0, 1, None, id="one for each caller: one for who comes first"),
        pytest.param(seen(one_caller=True, wanted=1), 1, 2, None, id="it has a caller now: another for who comes next"),
        pytest.param(seen(one_caller=True, wanted=4, alive=4), 0, 4, None, id="as far as the maximum goes"),
        pytest.param(seen(one_caller=True, wanted=9, alive=3), 1, 4, None, id="whatever the gateway says"),
        pytest.param(
            seen(one_caller=True, minimum=0, wanted=1, alive=0), 1, 1, None, id="none beyond what is asked for"
        ),
        pytest.param(seen(one_caller=True, wanted=-5), 0, 1, None, id="nonsense takes nothing from the minimum"),
        pytest.param(seen(wanted=4, alive=0, pressed=True), 1, 4, None, id="but one, or the agent would not answer"),
    ],
)
def test_what_is_wished_in_a_situation(situation: Observed, start: int, keep: int, look_again: float | None) -> None:
    """Up at once, down late, and never beyond what the policy, the rate and the host allow."""
    found = wishes(situation)
    assert (found.start, found.keep) == (start, keep)
    assert found.look_again == look_again


def test_a_spike_is_remembered_for_the_idle_time_and_not_longer() -> None:
    """Ten calls at once, then none: four instances for a minute, then one, whoever asks in between."""
    spike = wishes(seen(wanted=10))
    assert spike.needed == (1000.0, 1000.0, 1000.0, 1000.0)
    quiet = wishes(seen(now=1030.0, alive=4, needed=spike.needed))
    assert (quiet.keep, quiet.look_again) == (4, 1060.0)
    over = wishes(seen(now=1060.0, alive=4, needed=quiet.needed))
    assert over.keep == 1
    assert over.needed == (1060.0, 1000.0, 1000.0, 1000.0)


moments = st.floats(0, 2000, allow_nan=False) | st.just(NEVER)


@given(
    st.builds(
        Observed,
        now=st.just(1000.0),
        minimum=st.integers(0, 8),
        maximum=st.integers(8, 16),
        idle_seconds=st.floats(1, 900),
        wanted=st.integers(-3, 10**9),
        needed=st.lists(st.floats(0, 1000) | st.just(NEVER), max_size=20).map(
            lambda found: tuple(sorted(found, reverse=True))
        ),
        alive=st.integers(0, 16),
        unproven=st.integers(0, 16),
        failures=st.integers(0, 5),
        not_before=st.floats(0, 2000),
        spawns=st.floats(0, 100),
        pressed=st.booleans(),
        one_caller=st.booleans(),
    )
)
def test_whatever_is_seen_the_bounds_hold(situation: Observed) -> None:
    """Never more than the maximum, never a minimum that is not kept, and a moment to look again only in the future."""
    found = wishes(situation)
    assert 0 <= found.start <= max(0, situation.maximum - situation.alive)
    assert situation.minimum <= found.keep <= situation.maximum
    assert len(found.needed) == situation.maximum
    assert found.start <= situation.spawns or situation.failures
    assert found.look_again is None or found.look_again > situation.now
    missing = situation.minimum - situation.alive
    if missing > 0 and not found.start and not situation.failures:
        assert found.look_again is not None
