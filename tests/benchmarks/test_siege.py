"""How a siege is judged: exactness, memory, and the load that waits for nobody."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.siege.attackers import KINDS, Client, nonsense
from benchmarks.siege.cage import Report
from benchmarks.siege.judge import NS, RULES, Flood, Rule, Tally, judge, memory, schedule
from benchmarks.siege.report import Calm, Siege, Turn, undisturbed

RULE = Rule(per_second=50, burst=100)


def flood(
    *, passed: int, seconds: float = 10.0, delay: float = 0.0, refused: bool = True, later: int = 0, full: int = 0
) -> Flood:
    """A flood whose requests take `delay` seconds to be answered; `later` got through after the last refusal."""
    return Flood(
        sent=10_000,
        passed=passed,
        first_sent=0,
        first_answered=round(delay * NS),
        last_answered=round((seconds + delay) * NS),
        refused_sent=round(seconds * NS) if refused else 0,
        passed_then=passed - later,
        full=full,
    )


@pytest.mark.parametrize(("passed", "exact"), [(598, False), (599, True), (600, True), (601, True), (602, False)])
def test_a_limit_is_exact_within_one_token(passed: int, exact: bool) -> None:
    """100 at once and 50 a second for ten seconds: 600, and one more or less."""
    verdict = judge("principal", flood(passed=passed), RULE)
    assert (verdict.least, verdict.most, verdict.exact) == (599, 601, exact)


def test_what_a_client_cannot_know_is_left_open() -> None:
    """Its requests took 0.1 s: the daemon may have had the bucket open for 9.9 s or for 10.1."""
    verdict = judge("principal", flood(passed=600, delay=0.1), RULE)
    assert (verdict.least, verdict.most) == (594, 606)


def test_what_got_through_after_the_last_refusal_makes_up_for_nothing_before_it() -> None:
    """598 are two too few at a moment at which the bucket was empty, whatever came later."""
    assert not judge("principal", flood(passed=600, later=2), RULE).exact


def test_who_was_never_refused_says_only_that_it_was_not_too_much() -> None:
    """300 is fine where 600 might have been; 602 is not."""
    verdict = judge("principal", flood(passed=300, refused=False), RULE)
    assert (verdict.reached, verdict.exact) == (False, True)
    assert not judge("principal", flood(passed=602, refused=False), RULE).exact


def test_time_in_which_the_bucket_was_full_counts_for_nothing() -> None:
    """A client that stands still after its first request, for 40 ms: two of 50 a second less."""
    assert judge("principal", flood(passed=598, full=40_000_000), RULE).exact
    assert not judge("principal", flood(passed=596, full=40_000_000), RULE).exact


def test_memory_is_flat_where_it_grows_in_the_warm_up_only() -> None:
    """10 MiB in the first 20 seconds, nothing after them, and a body that is there for a moment at the end."""
    samples = [(float(second), min(second, 20) << 19) for second in range(60)]
    samples[57] = (57.0, 1 << 28)
    found = memory(samples)
    assert (found.first, found.last, found.most) == (0, 20 << 19, 1 << 28)
    assert (found.growth, found.flat) == (0, True)
    growing = memory([(float(second), second << 17) for second in range(60)])
    assert (growing.growth, growing.flat) == (15 << 17, False)


def test_a_schedule_is_even_over_all_connections() -> None:
    """Four a second over two connections: one takes the even quarters, one the odd ones."""
    assert schedule(0, connections=2, per_second=4, seconds=1.5) == [0.0, 0.5, 1.0]
    assert schedule(1, connections=2, per_second=4, seconds=1.5) == [0.25, 0.75, 1.25]


def test_a_tally_knows_what_had_got_through_when_the_bucket_was_empty() -> None:
    """Answers of several connections come in another order than their requests went out."""
    tally = Tally(Rule(per_second=1, burst=3))
    tally.note(10, 40, passed=True)
    tally.note(5, 30, passed=True)
    tally.note(50, 60, passed=False)
    tally.note(55, 65, passed=True)  # was under way with the one before
    tally.note(70, 80, passed=True)
    assert tally.flood() == Flood(
        sent=5, passed=4, first_sent=5, first_answered=30, last_answered=80, refused_sent=50, passed_then=3, full=0
    )  # fmt: skip


def test_a_tally_knows_how_long_the_bucket_may_have_been_full() -> None:
    """10 ms for one: full again 10 ms after the first, which the second comes 25 ms after."""
    ms = 1_000_000
    tally = Tally(Rule(per_second=100, burst=10))
    for sent in (0, 35, 36, 37, 50):
        tally.note(sent * ms, (sent + 1) * ms, passed=True)
    assert tally.flood().full == 25 * ms


def siege(*, verdict_passed: int, errors: dict[str, int] | None = None, after: int = 20) -> Siege:
    """One turn in which every limit was flooded for ten seconds."""
    floods = {
        limit: flood(passed=rule.burst + 10 * rule.per_second + (verdict_passed if limit == "tag" else 0))
        for limit, rule in RULES.items()
    }
    calm = Calm(microseconds=(1000,), errors=errors or {})
    turn = Turn(
        steady=calm, reports=(Report(kind="floods", counts={}, floods=floods),), memory=((0.0, 1),) * 8, busy={},
        others=0.0,
    )  # fmt: skip
    quiet = Calm(microseconds=(1000,), errors={})
    return Siege(
        calm=quiet, calm_dummy=quiet, ours=(turn,), dummy=(turn,), descriptors_before=20, descriptors_after=after
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "correct"),
    [
        (siege(verdict_passed=0), True),
        (siege(verdict_passed=2), False),
        (siege(verdict_passed=-2), False),
        (siege(verdict_passed=0, errors={"503": 1}), False),
        (siege(verdict_passed=0, after=21), False),
    ],
    ids=["as-it-should-be", "one-too-many", "one-too-few", "an-error", "a-descriptor"],
)
def test_a_siege_is_correct_where_limits_errors_and_descriptors_are(found: Siege, correct: bool) -> None:
    """That is what the exit status says; times are for people to judge."""
    assert found.correct is correct


def test_only_turns_that_nobody_disturbed_say_who_is_slower() -> None:
    """A pair is left out where either of its turns was disturbed."""
    found = siege(verdict_passed=0)
    [calm] = found.ours
    busy = dataclasses.replace(calm, others=0.5)
    found = dataclasses.replace(found, ours=(calm, calm, busy), dummy=(calm, busy, calm))
    assert undisturbed(found) == [(calm, calm)]


def test_there_are_eight_hostile_clients_and_their_nonsense_does_not_end() -> None:
    """A generator that ran dry would make a quiet siege."""
    assert len(KINDS) == 8
    client = Client(host="", port=1, path="/x", address="", tokens={"slow": "a.b.c"})
    payloads = nonsense(client)
    sizes = [len(next(payloads)) for _ in range(30)]
    assert max(sizes) > 1_000_000 and min(sizes) > 20
