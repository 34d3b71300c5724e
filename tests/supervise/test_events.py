"""What is kept of what happened, how it is asked for, and that whoever asks cannot make it grow."""

from __future__ import annotations

import asyncio

import pytest

from runagentd.supervise import events
from runagentd.supervise.events import Events, TooManyFollowers
from runagentd.wire.admin import EventKind, EventsAsk, EventsTold


def ask(ring: Events, *, life: str | None = None, after: int = 0, agent: str = "", wait_ms: int = 0) -> EventsTold:
    question = EventsAsk(life=ring.life if life is None else life, after=after, agent=agent, wait_ms=wait_ms)
    return asyncio.run(ring.tell(question, agent))


def test_events_are_numbered_from_one_and_told_once() -> None:
    """Whoever says what they have seen last gets what came after it."""
    ring = Events(clock=lambda: 1.5)
    ring.add(EventKind.SERVED, "policy base", agent="a", agent_name="chat")
    ring.add(EventKind.INSTANCE_ENDED, "too much", agent="a", agent_name="chat", instance="i", cause="oom")
    told = ask(ring)
    assert [(event.number, event.unix_ms, event.kind.value) for event in told.events] == [
        (1, 1500, "served"),
        (2, 1500, "instance-ended"),
    ]
    assert (told.looked, told.lost, told.more) == (2, 0, False)
    assert [event.cause for event in ask(ring, after=1).events] == ["oom"]
    assert ask(ring, after=2).events == ()


def test_a_supervisor_that_was_started_again_tells_from_its_begin() -> None:
    """Numbers of another life mean nothing here."""
    ring = Events()
    ring.add(EventKind.STARTED)
    assert [event.number for event in ask(ring, life="another", after=7).events] == [1]


def test_only_so_many_are_kept_and_the_loss_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that ends again and again costs older events and no memory."""
    monkeypatch.setattr(events, "KEPT_MAX", 3)
    ring = Events()
    for _ in range(5):
        ring.add(EventKind.STARTED)
    told = ask(ring, after=1)
    assert [event.number for event in told.events] == [3, 4, 5]
    assert told.lost == 1


def test_an_answer_is_bounded_and_says_that_there_is_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are."""
    monkeypatch.setattr(events, "EVENTS_MAX", 2)
    ring = Events()
    for _ in range(3):
        ring.add(EventKind.STARTED)
    told = ask(ring)
    assert ([event.number for event in told.events], told.looked, told.more) == ([1, 2], 2, True)
    told = ask(ring, after=told.looked)
    assert ([event.number for event in told.events], told.looked, told.more) == ([3], 3, False)


def test_those_of_one_agent() -> None:
    """And what comes next is asked for after those of others."""
    ring = Events()
    ring.add(EventKind.SERVED, agent="a")
    ring.add(EventKind.SERVED, agent="b")
    ring.add(EventKind.TRUST)
    told = ask(ring, agent="a")
    assert ([event.agent for event in told.events], told.looked) == (["a"], 3)


def test_a_detail_is_cut_and_has_a_form_in_utf_8() -> None:
    """An agent's sentence may be long, or broken."""
    ring = Events()
    ring.add(EventKind.NOT_DEPLOYED, "x" * 1000)
    ring.add(EventKind.NOT_DEPLOYED, "half \ud800")
    assert [event.detail for event in ask(ring).events] == ["x" * 299 + "…", "half ?"]


def test_whoever_follows_is_told_at_once() -> None:
    """And not at the end of the time for which they would wait."""

    async def follow() -> EventsTold:
        ring = Events()
        asyncio.get_running_loop().call_later(0.01, ring.add, EventKind.TRUST)
        async with asyncio.timeout(5):
            return await ring.tell(EventsAsk(life=ring.life, after=0, agent="", wait_ms=10_000), "")

    assert [event.kind.value for event in asyncio.run(follow()).events] == ["trust-changed"]


def test_only_so_many_may_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds a connection, and the supervisor has few of those."""
    monkeypatch.setattr(events, "FOLLOWERS_MAX", 1)

    async def two() -> None:
        ring = Events()
        question = EventsAsk(life=ring.life, after=0, agent="", wait_ms=10_000)
        first = asyncio.create_task(ring.tell(question, ""))
        await asyncio.sleep(0)
        with pytest.raises(TooManyFollowers):
            await ring.tell(question, "")
        first.cancel()
        await asyncio.wait({first})
        second = asyncio.create_task(ring.tell(question, ""))
        await asyncio.sleep(0)
        ring.add(EventKind.TRUST)
        assert [event.number for event in (await second).events] == [1]

    asyncio.run(two())
