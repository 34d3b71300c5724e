"""What every call can rely on, whether calls run one at a time on the main thread or several on threads."""

from __future__ import annotations

import time

import pytest

from runagentd.wire.channel import Frame
from tests.runner.driver import Launch

pytestmark = pytest.mark.parametrize("concurrency", [1, 4])

KINDS = """
import asyncio, time
from collections.abc import Iterator
def plain(x): return x
async def coroutine(x): await asyncio.sleep(0); return x
def awaitable(x): return coroutine(x)
async def twice(x): return coroutine(x)
def future(x): return asyncio.gather(coroutine(x)) if False else coroutine(x)
def generator(n):
    for i in range(n): yield i
async def asyncgen(n):
    for i in range(n):
        await asyncio.sleep(0)
        yield i
def returns_generator(n): return generator(n)
def returns_asyncgen(n): return asyncgen(n)
async def awaits_generator(n): return generator(n)
async def awaits_asyncgen(n): return asyncgen(n)
def iterator(n): return map(str, range(n))
class Stream:
    def __init__(self, n): self.left = n
    def __aiter__(self): return self
    async def __anext__(self):
        if not self.left: raise StopAsyncIteration
        self.left -= 1
        return self.left
def stream_object(n): return Stream(n)
class Agent:
    async def run(self, x): return x
    def run_stream(self, n): yield from range(n)
agent = Agent()
"""


def test_functions_of_every_kind_give_their_result(agent: Launch, concurrency: int) -> None:
    """Plain, asynchronous, bound, and functions that return an awaitable of an awaitable."""
    runner = agent(
        KINDS, "plain", "coroutine", "awaitable", "twice", "future", "run=main.py:agent.run", concurrency=concurrency
    )
    for tag in ("plain", "coroutine", "awaitable", "twice", "future", "run"):
        answer = runner.call(tag, {"a": 1})
        assert (answer.value, answer.header) == ({"a": 1}, {"type": "object"}), tag


def test_streams_of_every_kind_give_their_chunks(agent: Launch, concurrency: int) -> None:
    """Generators, asynchronous generators, iterators, and functions that return or await one."""
    tags = (
        "generator", "asyncgen", "returns_generator", "returns_asyncgen", "awaits_generator", "awaits_asyncgen",
        "run_stream=main.py:agent.run_stream",
    )  # fmt: skip
    runner = agent(KINDS, *tags, "iterator", "stream_object", concurrency=concurrency)
    for tag in (tag.partition("=")[0] for tag in tags):
        answer = runner.stream(tag, 3)
        assert answer.chunks == [0, 1, 2], tag
        assert (answer.closing.type, answer.header) == (Frame.END, {"chunks": 3}), tag
        assert runner.stream(tag, 0).header == {"chunks": 0}, tag
    assert runner.stream("iterator", 2).chunks == ["0", "1"]
    assert runner.stream("stream_object", 2).chunks == [1, 0]


def test_a_stream_where_one_result_was_asked_for_is_refused_and_closed(agent: Launch, concurrency: int) -> None:
    """Never the text "<generator object …>"."""
    runner = agent(KINDS, "generator", "asyncgen", "awaits_generator", "iterator", concurrency=concurrency)
    for tag in ("generator", "asyncgen", "awaits_generator", "iterator"):
        header = runner.call(tag, 3).header
        assert header["kind"] == "streams", tag
        assert header["message"].endswith("and one result was asked for"), tag


def test_a_plain_value_where_a_stream_was_asked_for_is_one_chunk(agent: Launch, concurrency: int) -> None:
    """A list is one value, not a stream of its items."""
    runner = agent(KINDS, "plain", "coroutine", concurrency=concurrency)
    for tag in ("plain", "coroutine"):
        answer = runner.stream(tag, [1, 2])
        assert (answer.chunks, answer.header) == ([[1, 2]], {"chunks": 1}), tag


@pytest.mark.slow
def test_a_generator_runs_only_as_far_as_its_credits(agent: Launch, concurrency: int) -> None:
    """Its own counter stands still when the reader does."""
    runner = agent(
        """
        made = []
        def sync():
            for i in range(100):
                made.append(i)
                yield i
        async def later():
            for i in range(100):
                made.append(i)
                yield i
        def count(): return len(made)
        def forget(): made.clear()
        """,
        "sync", "later", "count", "forget",
        concurrency=concurrency,
    )  # fmt: skip
    for tag in ("sync", "later"):
        call = runner.gateway.send_call(tag, [], {}, mode="stream", credits=2)
        assert [runner.gateway.frame().body for _ in range(2)] == [b"0", b"1"]
        assert runner.gateway.silent(0.05)
        runner.gateway.credit(call, 1)
        assert runner.gateway.frame().body == b"2"
        assert runner.gateway.silent(0.05)
        if concurrency > 1:
            other = runner.gateway.send_call("count", [], {})
            assert runner.gateway.finish(other).value == 3
        runner.gateway.credit(call, 1000)
        assert runner.gateway.finish(call).header == {"chunks": 100}
        runner.call("forget")


CANCEL = """
import asyncio, time, threading
log = []
def sleeper():
    try:
        for _ in range(1000): time.sleep(0.01)
    except asyncio.CancelledError: log.append("CancelledError"); raise
    finally: log.append("finally")
def busy():
    try:
        n = 0
        while True: n += 1
    finally: log.append("finally")
async def waiter():
    try: await asyncio.sleep(60)
    except asyncio.CancelledError: log.append("CancelledError"); raise
    finally: log.append("finally")
def items():
    try:
        while True: yield 1
    except GeneratorExit: log.append("GeneratorExit"); raise
    finally: log.append("finally")
def slow_items():
    try:
        while True:
            for _ in range(1000): time.sleep(0.01)
            yield 1
    except GeneratorExit: log.append("GeneratorExit"); raise
    finally: log.append("finally")
async def later_items():
    try:
        while True: yield 1
    except GeneratorExit: log.append("GeneratorExit"); raise
    finally: log.append("finally")
async def slow_later_items():
    try:
        while True:
            await asyncio.sleep(60)
            yield 1
    except asyncio.CancelledError: log.append("CancelledError"); raise
    finally: log.append("finally")
def seen():
    told = list(log)
    log.clear()
    return told
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tag", "told"),
    [
        ("sleeper", ["CancelledError", "finally"]),
        ("busy", ["finally"]),
        ("waiter", ["CancelledError", "finally"]),
        ("items", ["GeneratorExit", "finally"]),
        ("slow_items", ["GeneratorExit", "finally"]),
        ("later_items", ["GeneratorExit", "finally"]),
        ("slow_later_items", ["CancelledError", "finally"]),
    ],
)
def test_a_cancel_reaches_the_function(agent: Launch, concurrency: int, tag: str, told: list[str]) -> None:
    """Running or waiting, plain or asynchronous; then exactly one closing frame, and the slot is free."""
    runner = agent(CANCEL, tag, "seen", concurrency=concurrency)
    call = runner.gateway.send_call(tag, [], {}, mode="stream", credits=1)
    if tag in ("items", "later_items"):
        assert runner.gateway.frame().type is Frame.CHUNK
    assert runner.gateway.silent(0.1)
    runner.gateway.cancel(call)
    assert runner.gateway.finish(call, 5).header == {"kind": "cancelled", "message": "the call was cancelled"}
    assert runner.call("seen").value == told
    assert runner.gateway.silent(0.05)


@pytest.mark.slow
def test_a_function_that_swallows_a_cancel_keeps_its_slot_until_it_stops(agent: Launch, concurrency: int) -> None:
    """No second closing frame, and what it returned after all is not sent."""
    runner = agent(
        """
        import time
        def stubborn():
            end = time.monotonic() + 0.4
            while time.monotonic() < end:
                try: time.sleep(0.01)
                except BaseException: pass
            return "too late"
        """,
        "stubborn",
        concurrency=concurrency,
    )
    calls = [runner.gateway.send_call("stubborn", [], {}) for _ in range(concurrency)]
    assert runner.gateway.silent(0.1)
    for call in calls:
        runner.gateway.cancel(call)
    queued = runner.gateway.send_call("stubborn", [], {})
    assert runner.gateway.silent(0.1)
    closed = [runner.gateway.frame() for _ in range(concurrency)]
    assert sorted(frame.call for frame in closed) == calls
    assert all(b'"cancelled"' in frame.header for frame in closed)
    assert runner.gateway.finish(queued).value == "too late"


@pytest.mark.slow
def test_a_queued_call_runs_in_order_and_its_cancel_closes_it_at_once(agent: Launch, concurrency: int) -> None:
    """The gateway may send calls ahead; no more than `concurrency` ever run."""
    runner = agent(
        """
        import time, threading
        running, most, lock = 0, 0, threading.Lock()
        def work(seconds: float):
            global running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(seconds)
            with lock: running -= 1
            return most
        """,
        "work",
        concurrency=concurrency,
    )
    calls = [runner.gateway.send_call("work", [0.3], {}) for _ in range(concurrency)]
    first, second = (runner.gateway.send_call("work", [0.01], {}) for _ in range(2))
    started = time.monotonic()
    runner.gateway.cancel(first)
    assert runner.gateway.finish(first).header["kind"] == "cancelled"
    assert time.monotonic() - started < 0.2
    closed = {frame.call: frame.body for frame in (runner.gateway.frame() for _ in range(concurrency + 1))}
    assert set(closed) == {*calls, second}
    assert closed[second] == str(concurrency).encode()


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["run", "later", "items", "later_items", "sleeps"])
def test_a_race_of_cancels_against_ends_leaves_the_runner_in_order(agent: Launch, concurrency: int, tag: str) -> None:
    """Each call has one closing frame, its own or "cancelled", however the two cross; and every slot comes back."""
    runner = agent(
        """
        import asyncio, time
        def run(n: int): return sum(range(n))
        def sleeps(n: int): time.sleep(n / 1e7)
        async def later(n: int):
            for _ in range(n // 100): await asyncio.sleep(0)
            return n
        def items(n: int):
            for i in range(n // 100): yield i
        async def later_items(n: int):
            for i in range(n // 100):
                await asyncio.sleep(0)
                yield i
        """,
        tag,
        concurrency=concurrency,
    )
    mode = "stream" if "items" in tag else "single"
    outcomes = set()
    for number in range(300):
        call = runner.gateway.send_call(tag, [number % 7 * 300], {}, mode=mode, credits=number % 3 * 4)
        for _ in range(number % 5 * 80):
            pass
        if number % 4 == 0:
            runner.gateway.credit(call, 10)
        runner.gateway.cancel(call)
        outcomes.add(runner.gateway.finish(call).closing.type)
    assert Frame.ERROR in outcomes
    answers = [runner.gateway.send_call(tag, [100], {}, mode=mode) for _ in range(concurrency)]
    closed = [runner.gateway.frame() for _ in answers for _ in range(2 if mode == "stream" else 1)]
    assert {frame.call for frame in closed} == set(answers)
    assert Frame.ERROR not in {frame.type for frame in closed}
    assert runner.gateway.silent(0.02)


def test_exceptions_are_told_by_type_and_message(agent: Launch, concurrency: int) -> None:
    """Of the agent's frames, none of the runner's; SystemExit and KeyboardInterrupt are exceptions like others."""
    runner = agent(
        """
        import sys
        class Custom(Exception):
            class Inner(Exception): pass
        class Unprintable(Exception):
            def __str__(self): raise ValueError("no")
        def raising(which: str):
            match which:
                case "key": {}["x"]
                case "custom": raise Custom.Inner("mine")
                case "unprintable": raise Unprintable
                case "exit": sys.exit("bye")
                case "interrupt": raise KeyboardInterrupt
                case "deep": return raising(which)
                case "memory": raise MemoryError
                case "group": raise ExceptionGroup("both", [ValueError("a"), KeyError("b")])
                case "long": raise ValueError("é" * 100_000)
                case "stop": raise StopIteration(1)
                case "cause":
                    try: {}["x"]
                    except KeyError as error: raise ValueError("second") from error
        async def later(which: str): return raising(which)
        def items(which: str):
            yield 1
            raising(which)
        """,
        "raising", "later", "items",
        concurrency=concurrency,
    )  # fmt: skip
    expected = {
        "key": ("KeyError", "'x'"),
        "custom": ("main.Custom.Inner", "mine"),
        "unprintable": ("main.Unprintable", "<a main.Unprintable that cannot be shown>"),
        "exit": ("SystemExit", "bye"),
        "interrupt": ("KeyboardInterrupt", ""),
        "memory": ("MemoryError", ""),
        "group": ("ExceptionGroup", "both (2 sub-exceptions): ValueError: a; KeyError: 'b'"),
    }
    for which, (type_name, message) in expected.items():
        for tag in ("raising", "later"):
            assert runner.call(tag, which).header == {"kind": "exception", "message": message, "type": type_name}
        answer = runner.stream("items", which)
        assert (answer.chunks, answer.header["type"]) == ([1], type_name)
    assert runner.call("raising", "deep").header["type"] == "RecursionError"
    assert len(runner.call("raising", "long").closing.header) < 9000
    assert runner.call("raising", "stop").header["type"] == "StopIteration"
    trace = runner.call("raising", "cause").closing.body.decode()
    assert trace.count("Traceback (most recent call last):") == 2
    assert "The above exception was the direct cause of the following exception:" in trace
    assert "runagentd" not in trace


def test_tracebacks_stay_inside_where_the_policy_says_so(agent: Launch, concurrency: int) -> None:
    """limits.traceback = False: type and message only."""
    runner = agent("def run(): 1 / 0", "run", concurrency=concurrency, traceback=False)
    answer = runner.call("run")
    assert answer.header == {"kind": "exception", "message": "division by zero", "type": "ZeroDivisionError"}
    assert answer.closing.body == b""


def test_a_result_that_is_too_large_or_has_no_form_is_refused(agent: Launch, concurrency: int) -> None:
    """For a whole result and for a chunk of a stream."""
    runner = agent(
        """
        def large(): return "x" * 1000
        def items():
            yield 1
            yield "x" * 1000
        def odd(): return {"rows": [1, object()]}
        """,
        "large", "items", "odd",
        concurrency=concurrency, result_bytes=1000,
    )  # fmt: skip
    too_large = {"kind": "too_large", "message": "the result has 1002 bytes; the policy allows 1000"}
    assert runner.call("large").header == too_large
    answer = runner.stream("items")
    assert (answer.chunks, answer.header) == ([1], too_large)
    assert runner.call("odd").header == {
        "kind": "unserialisable",
        "message": "the result has no JSON form: /rows/1: an object of type object is not a value",
    }


def test_extractors_give_an_object_with_their_keys(agent: Launch, concurrency: int) -> None:
    """Of the result and of each chunk; null where nothing matches."""
    runner = agent(
        """
        class Output:
            def model_dump(self): return {"messages": [{"text": "a"}, {"text": "b"}]}
        def run(): return Output()
        def items():
            yield {"messages": [{"text": "c"}]}
            yield {}
        """,
        "run", "items",
        extractor={"last": "$.messages[-1].text", "none": "$.x"}, concurrency=concurrency,
    )  # fmt: skip
    assert runner.call("run").value == {"last": "b", "none": None}
    assert runner.stream("items").chunks == [{"last": "c", "none": None}, {"last": None, "none": None}]


def test_context_variables_are_fresh_for_each_call(agent: Launch, concurrency: int) -> None:
    """What one call sets, the next does not see; within one call, a generator keeps its own."""
    runner = agent(
        """
        import contextvars
        who = contextvars.ContextVar("who", default="nobody")
        def plain():
            before = who.get()
            who.set("plain")
            return before
        async def later():
            before = who.get()
            who.set("later")
            return before
        def items():
            yield who.get()
            who.set("items")
            yield who.get()
        """,
        "plain", "later", "items",
        concurrency=concurrency,
    )  # fmt: skip
    for _ in range(2):
        assert runner.call("plain").value == "nobody"
        assert runner.call("later").value == "nobody"
        assert runner.stream("items").chunks == ["nobody", "items"]


def test_arguments_that_are_no_json_or_no_arguments_are_refused(agent: Launch, concurrency: int) -> None:
    """The gateway has checked the form; the runner does not rely on it."""
    import json

    from runagentd.wire.channel import pack

    runner = agent("def run(x=1): return x", "run", concurrency=concurrency)
    for body in (
        b"",
        b"[",
        b"[[],{},1]",
        b"[{},[]]",
        b"[[NaN],{}]",
        b"\xff",
        b"[" * 100_000,
        b"[[" + b"9" * 5000 + b"],{}]",
    ):
        runner.gateway.channel.sendall(pack(Frame.CALL, 7, json.dumps({"tag": "run"}).encode(), body))
        assert runner.gateway.finish(7).header["kind"] == "argument", body[:20]
    assert runner.call("run").value == 1


def test_an_agents_tasks_that_raise_do_not_take_its_loop_with_them(agent: Launch, concurrency: int) -> None:
    """SystemExit in a task that the agent started stops asyncio's loop; ours is started again."""
    runner = agent(
        """
        import asyncio, sys
        async def bad(): sys.exit(1)
        async def run():
            task = asyncio.create_task(bad())
            await asyncio.sleep(0.05)
            return "survived"
        """,
        "run",
        concurrency=concurrency,
    )
    assert runner.call("run").value == "survived"
    assert runner.call("run").value == "survived"


@pytest.mark.slow
def test_a_task_that_outlives_its_call_goes_on(agent: Launch, concurrency: int) -> None:
    """A background task of the agent's makes progress while no call is open, and a call is served meanwhile."""
    runner = agent(
        """
        import asyncio
        ticks = 0
        async def tick():
            global ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.005)
        async def start():
            global task
            task = asyncio.create_task(tick())
        def count(): return ticks
        """,
        "start",
        "count",
        concurrency=concurrency,
    )
    runner.call("start")
    time.sleep(0.1)
    assert runner.call("count").value > 3
