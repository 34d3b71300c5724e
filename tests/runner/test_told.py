"""What a function learns of its call: `runagent_call`, in every kind of function, one call at a time and several."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from runagentd.wire.channel import Frame, pack
from tests.runner.driver import Answer, Launch, Runner

AGENT = """
import asyncio, time, runagent_call
from runagent_call import deadline, request_id, caller, traceparent, tracestate, remaining
def seen(): return [request_id.get(), caller.get(), traceparent.get(), tracestate.get(), deadline.get(), remaining()]
async def awaited():
    await asyncio.sleep(0)
    return await asyncio.create_task(inherited())
async def inherited(): return seen()
def several():
    yield seen()
    yield seen()
async def several_later():
    yield seen()
    await asyncio.sleep(0)
    yield seen()
async def meet(name, others):
    await asyncio.sleep(0.05)
    return [name, request_id.get()]
def outside(): return AT_IMPORT
AT_IMPORT = [request_id.get(), caller.get(), traceparent.get(), str(deadline.get()), str(remaining())]
"""

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def send(runner: Runner, number: int, tag: str, *args: Any, mode: str = "single", **header: Any) -> int:
    """A CALL frame as the gateway writes it, with whatever `header` says besides."""
    fields = {"tag": tag, "mode": mode, "credits": 100, **header}
    body = json.dumps([args, {}]).encode()
    runner.gateway.channel.sendall(pack(Frame.CALL, number, json.dumps(fields).encode(), body))
    return number


def ask(runner: Runner, tag: str, *, mode: str = "single") -> Answer:
    number = send(
        runner,
        1,
        tag,
        mode=mode,
        deadline_ms=30_000,
        request_id="r-1",
        principal="p-1",
        traceparent=TRACE,
        tracestate="a=1",
    )
    return runner.gateway.finish(number)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_function_of_any_kind_learns_what_its_call_carries(agent: Launch, concurrency: int) -> None:
    """Plain, asynchronous, in a task of its own, and in each step of a stream."""
    tags = ("seen", "awaited", "several", "several_later")
    runner = agent(AGENT, *tags, concurrency=concurrency)
    for tag in tags:
        before = time.monotonic()
        answer = ask(runner, tag, mode="stream" if tag.startswith("several") else "single")
        found = answer.chunks if tag.startswith("several") else [answer.value]
        assert [one[:4] for one in found] == [["r-1", "p-1", TRACE, "a=1"]] * len(found), tag
        for *_, deadline, left in found:
            assert before + 30 <= deadline <= time.monotonic() + 30, tag
            assert 0 < left <= 30, tag


def test_calls_at_the_same_time_see_each_their_own(agent: Launch) -> None:
    """In one event loop, while both are there."""
    runner = agent(AGENT, "meet", concurrency=4)
    for number in (1, 2, 3):
        send(runner, number, "meet", number, [], request_id=f"r-{number}", deadline_ms=9000)
    found = sorted(json.loads(runner.gateway.frame().body) for _ in range(3))
    assert found == [[1, "r-1"], [2, "r-2"], [3, "r-3"]]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_nothing_of_a_call_is_left_for_the_next(agent: Launch, concurrency: int) -> None:
    """One that carries nothing is told nothing, whatever the one before carried; outside of calls there is nothing."""
    runner = agent(AGENT, "seen", "outside", concurrency=concurrency)
    ask(runner, "seen")
    bare = runner.gateway.finish(send(runner, 2, "seen"))
    assert bare.value == ["", "", None, None, None, None]  # JSON has no infinity: null
    assert runner.gateway.finish(send(runner, 3, "outside")).value == ["", "", None, "inf", "inf"]


def test_a_function_that_imports_the_module_itself_is_told_at_once(agent: Launch) -> None:
    """The first call, too, before which nobody had asked."""
    runner = agent(
        """
        def late():
            import runagent_call
            return runagent_call.request_id.get()
        """,
        "late",
    )
    assert [ask(runner, "late").value for _ in range(2)] == ["r-1", "r-1"]


def test_a_deadline_that_has_passed_leaves_nothing(agent: Launch) -> None:
    """And not less than nothing."""
    runner = agent(
        """
        import time, runagent_call
        def late():
            time.sleep(0.02)
            return runagent_call.remaining()
        """,
        "late",
    )
    assert runner.gateway.finish(send(runner, 1, "late", deadline_ms=1)).value == 0.0


def test_the_deadline_is_that_of_asyncios_clock(agent: Launch) -> None:
    """`asyncio.timeout_at` takes it as it is."""
    runner = agent(
        """
        import asyncio, runagent_call
        async def wait():
            try:
                async with asyncio.timeout_at(runagent_call.deadline.get()):
                    await asyncio.sleep(60)
            except TimeoutError:
                return "in time"
        """,
        "wait",
    )
    assert runner.gateway.finish(send(runner, 1, "wait", deadline_ms=40)).value == "in time"


def test_an_agents_own_module_and_library_of_that_name_win(agent: Launch) -> None:
    """Ours is the last that is looked for."""
    main = "import runagent_call\ndef whose(): return runagent_call.WHOSE"
    own = agent({"main.py": main, "runagent_call.py": "WHOSE = 'mine'"}, "whose")
    library = agent(
        {"main.py": main, "lib/runagent_call/__init__.py": "WHOSE = 'a library'"}, "whose", import_paths=("lib",)
    )
    assert [own.call("whose").value, library.call("whose").value] == ["mine", "a library"]


def test_nothing_is_imported_for_an_agent_that_does_not_ask(agent: Launch) -> None:
    """And `import *` gives the six names that are documented."""
    runner = agent(
        """
        import sys
        def before(): return "runagent_call" in sys.modules
        def names():
            import runagent_call
            return runagent_call.__all__
        """,
        "before",
        "names",
    )
    assert runner.call("before").value is False
    assert runner.call("names").value == ["deadline", "request_id", "caller", "traceparent", "tracestate", "remaining"]
