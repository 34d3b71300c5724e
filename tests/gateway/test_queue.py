"""Who waits, and whose turn it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runagentd.gateway.calls import Asked, Call, Mode
from runagentd.gateway.queue import FairQueue, Full
from tests.fakes_gateway import TRACE


def call(caller: str, name: str = "") -> Call:
    return Call(
        Asked(
            request_id=name,
            tag="t",
            mode=Mode.SINGLE,
            arguments=b"[[],{}]",
            deadline=1e9,
            principal=caller,
            caller=caller,
            traceparent=TRACE.traceparent,
        )
    )


def order(queue: FairQueue, seconds: dict[str, float], count: int) -> str:
    """Whose calls are taken, one after the other, each holding the only place as long as its caller's do."""
    taken = ""
    for _ in range(count):
        caller = queue.take().asked.caller
        taken += caller
        queue.charge(caller, seconds[caller])
    return taken


def test_one_caller_is_served_in_the_order_of_arrival() -> None:
    """With nobody else there is nothing to be fair about."""
    queue = FairQueue()
    for name in "abc":
        queue.put(call("x", name), 10)
    assert [queue.take().asked.request_id for _ in range(3)] == ["a", "b", "c"]


def test_a_flood_waits_behind_each_single_call_of_others() -> None:
    """Eight calls of one caller came before; the other's are second, fourth and sixth."""
    queue = FairQueue()
    for _ in range(8):
        queue.put(call("f"), 100)
    for _ in range(3):
        queue.put(call("o"), 100)
    assert order(queue, {"f": 0.01, "o": 0.01}, 11) == "fofofofffff"


def test_turns_can_be_taken_among_some_alone() -> None:
    """A place that only one caller may have does not wait for the turn of others, and who is passed over loses none."""
    queue = FairQueue()
    for caller in "aabbc":
        queue.put(call(caller), 100)
    assert queue.waiting() == {"a": 2, "b": 2, "c": 1}
    assert [queue.take("c").asked.caller, queue.take("bc").asked.caller] == ["c", "b"]
    queue.charge("b", 1.0)
    assert order(queue, {"a": 0.01, "b": 0.01}, 3) == "aab"
    with pytest.raises(KeyError):
        queue.take("abc")


def test_it_is_time_that_is_shared_and_not_calls() -> None:
    """Calls that take ten times as long get a tenth of the turns."""
    queue = FairQueue()
    for _ in range(4):
        queue.put(call("l"), 100)
    for _ in range(40):
        queue.put(call("s"), 100)
    taken = order(queue, {"l": 0.1, "s": 0.01}, 33)
    assert taken.count("l") in (3, 4)
    assert 9 <= len(taken[1:].split("l")[0]) <= 11


def test_whoever_comes_after_a_quiet_time_owes_nothing() -> None:
    """What was used while nobody waited was used at nobody's expense."""
    queue = FairQueue()
    queue.charge("a", 60.0)
    for caller in "ab":
        queue.put(call(caller), 10)
    assert order(queue, {"a": 0.01, "b": 0.01}, 2) == "ab"


def test_in_a_full_queue_the_longest_line_gives_way() -> None:
    """The newest call of the flood leaves for the first one of somebody else."""
    queue = FairQueue()
    flood = [call("f", str(number)) for number in range(4)]
    for each in flood:
        assert queue.put(each, 4) is None
    assert queue.put(call("o"), 4) is flood[3]
    assert queue.put(call("o"), 4) is flood[2]
    with pytest.raises(Full):
        queue.put(call("o"), 4)
    with pytest.raises(Full):
        queue.put(call("f"), 4)
    assert len(queue) == 4


def test_a_queue_without_room_takes_nobody() -> None:
    """calls.queue = 0."""
    with pytest.raises(Full):
        FairQueue().put(call("a"), 0)


def test_a_call_that_could_not_be_started_is_the_next_one() -> None:
    """It was taken in its turn, so it has not lost it."""
    queue = FairQueue()
    queue.put(call("a", "1"), 10)
    queue.put(call("b", "2"), 10)
    first = queue.take()
    queue.put_back(first)
    assert queue.take() is first


def test_how_many_come_before() -> None:
    """A newcomer waits for one call of everybody, not for the whole line of one."""
    queue = FairQueue()
    for _ in range(50):
        queue.put(call("f"), 100)
    queue.put(call("g"), 100)
    assert queue.ahead_of("new") == 2
    assert queue.ahead_of("f") == 51


STEPS = st.tuples(st.sampled_from("abcd"), st.sampled_from(["put", "take", "remove", "charge"]), st.floats(0, 100))


@given(st.lists(STEPS))
def test_nothing_is_lost_and_nothing_is_given_twice(steps: list[tuple[str, str, float]]) -> None:
    """Whatever happens in whatever order: what was put in and not taken out is in it, exactly once."""
    queue, inside = FairQueue(), []
    for caller, step, number in steps:
        match step:
            case "put":
                one = call(caller)
                try:
                    leaving = queue.put(one, 6)
                except Full:
                    continue
                inside.append(one)
                if leaving is not None:
                    inside.remove(leaving)
            case "take" if inside:
                inside.remove(queue.take())
            case "remove" if inside:
                one = inside.pop(int(number) % len(inside))
                queue.remove(one)
                queue.remove(one)
            case "charge":
                queue.charge(caller, number)
        assert len(queue) == len(inside) <= 6
        assert {id(each) for each in queue} == {id(each) for each in inside}
    assert {id(each) for each in queue.clear()} == {id(each) for each in inside}
    assert len(queue) == 0
