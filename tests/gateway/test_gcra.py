"""The rate limiter against an exact model: a bucket in rational numbers, refilled at every look."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from runagentd.gateway.guard import gcra
from runagentd.gateway.guard.gcra import SECOND, Buckets, Rate

RATES = st.builds(Rate, st.integers(1, 2000), st.sampled_from([1, 60, 3600]), st.integers(1, 500))


class Model:
    """A bucket of `burst` tokens, one of which comes back each interval."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.tokens = Fraction(rate.burst)
        self.at = 0

    def refill(self, now: int) -> None:
        self.tokens = min(Fraction(self.rate.burst), self.tokens + Fraction(now - self.at, self.rate.interval))
        self.at = now

    def take(self, now: int) -> bool:
        self.refill(now)
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@given(RATES, st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(1, 30)), max_size=60))
def test_it_lets_through_exactly_what_the_model_does(rate: Rate, steps: list[tuple[int, int]]) -> None:
    """Whatever the rate and whenever somebody asks; and the wait that it names is exact to the nanosecond."""
    buckets, model, now = Buckets(10), Model(rate), 0
    for pause, attempts in steps:
        now += pause
        for _ in range(attempts):
            wait = buckets.wait("k", rate, now)
            assert (wait == 0) is model.take(now)
            if wait:
                assert buckets.wait("k", rate, now + wait - 1) == 1
                assert buckets.wait("k", rate, now + wait) == 0
                break
            buckets.take("k", rate, now)
            left, reset = buckets.left("k", rate, now)
            assert left == int(model.tokens)
            assert reset == -(-(rate.burst - model.tokens) * rate.interval // SECOND)


@given(
    st.lists(RATES, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 2 * SECOND), st.integers(0, 3), st.integers(1, 5)), max_size=60),
)
def test_buckets_of_several_keys_each_follow_their_own_model(
    rates: list[Rate], steps: list[tuple[int, int, int]]
) -> None:
    """In any order, with other rates, and forgotten while they are full: there is room for two keys more."""
    buckets, now = Buckets(len(rates) + 2), 0
    models = [Model(rate) for rate in rates]
    for pause, which, attempts in steps:
        now += pause
        number = which % len(rates)
        for _ in range(attempts):
            wait = buckets.wait(f"k{number}", rates[number], now)
            assert (wait == 0) is models[number].take(now)
            if not wait:
                buckets.take(f"k{number}", rates[number], now)
        for other, model in enumerate(models):
            model.refill(now)
            assert buckets.left(f"k{other}", rates[other], now)[0] == int(model.tokens)


@given(st.integers(1, 10**6), st.sampled_from([1, 60, 3600]))
def test_rounding_never_lets_through_more(count: int, seconds: int) -> None:
    """So many in so long, and not one more."""
    assert Rate(count, seconds, 1).interval * count >= seconds * SECOND


def test_keys_do_not_touch_each_other() -> None:
    """One that is used up is no other's business."""
    buckets, rate = Buckets(10), Rate(1, 1, 1)
    buckets.take("a", rate, 0)
    assert (buckets.wait("a", rate, 0), buckets.wait("b", rate, 0)) == (SECOND, 0)


def test_a_flood_of_new_keys_neither_grows_nor_forgets() -> None:
    """The bucket that was used up stays so; whoever does not fit shares one bucket with all others like it."""
    buckets, rate = Buckets(100), Rate(1, 3600, 2)
    buckets.take("victim", rate, 0)
    buckets.take("victim", rate, 0)
    for number in range(10_000):
        key = f"new-{number}"
        if buckets.wait(key, rate, number) == 0:
            buckets.take(key, rate, number)
        assert len(buckets) <= 100
    assert buckets.wait("victim", rate, 10_000) > 0
    assert buckets.wait("another", rate, 10_000) > 0


def test_full_buckets_make_room() -> None:
    """After a while every new key has its own again."""
    buckets, rate = Buckets(gcra._LOOKS), Rate(1, 1, 1)
    for number in range(100):
        now = number * 2 * SECOND
        assert buckets.wait(f"k{number}", rate, now) == 0
        buckets.take(f"k{number}", rate, now)
        assert buckets.wait(f"k{number}", rate, now) == SECOND
    assert len(buckets) <= gcra._LOOKS
