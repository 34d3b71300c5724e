"""Agents that break what the runner stands on: a call still has one closing frame, or the process ends and says why."""

from __future__ import annotations

import pytest

from runagentd.wire.channel import Frame
from tests.runner.driver import Launch

ODD = """
import asyncio, builtins, os, sys
class Evil:
    def __getattribute__(self, name): raise RuntimeError("no " + name)
class EvilKind(type):
    def __getattribute__(kind, name): raise RuntimeError("no " + name)
class OfEvilKind(metaclass=EvilKind): pass
class EvilError(Exception):
    __suppress_context__ = property(lambda self: 1 / 0)
    def __str__(self): return 3
class EvilDict(dict):
    def items(self): raise RuntimeError("no items")
class EvilInt(int):
    def __int__(self): raise ValueError("no int")
class Awaitable:
    def __await__(self): return self
    def __iter__(self): return self
    def __next__(self): return self
def evil(): return Evil()
def evil_kind(): return OfEvilKind()
def evil_error(): raise EvilError
def evil_dict(): return EvilDict(a=1)
def evil_int(): return EvilInt(5)
def bad_awaitable(): return Awaitable()
def deep():
    outer = inner = []
    for _ in range(50_000): inner.append([]); inner = inner[0]
    return outer
def long_name(): raise type("X" * 100_000, (Exception,), {})("y")
def groups():
    error = ValueError("a")
    for _ in range(5000): error = ExceptionGroup("g", [error])
    raise error
async def cancels_itself():
    asyncio.current_task().cancel()
    await asyncio.sleep(1)
async def closes_loop(): asyncio.get_running_loop().close()
async def stops_loop():
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.01)
    return "went on"
def no_streams(): sys.stdout, sys.stderr = None, 5
def no_recursion_limit(): sys.setrecursionlimit(10**6)
def fine(): return 1
def breaks_builtins(): builtins.len = None
"""
ENDS_WITH_ERROR = {
    "evil": "exception",
    "evil_kind": "exception",
    "evil_error": "exception",
    "evil_dict": "exception",
    "evil_int": "unserialisable",
    "bad_awaitable": "exception",
    "deep": "unserialisable",
    "long_name": "exception",
    "groups": "exception",
    "cancels_itself": "exception",
    "closes_loop": "exception",
}


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 3])
def test_odd_objects_and_errors_end_their_own_call_only(agent: Launch, concurrency: int) -> None:
    """One instance lives through all of them."""
    others = ("stops_loop", "no_streams", "no_recursion_limit", "fine")
    runner = agent(ODD, *ENDS_WITH_ERROR, *others, concurrency=concurrency)
    for tag, kind in ENDS_WITH_ERROR.items():
        assert runner.call(tag).header["kind"] == kind, tag
    assert runner.call("stops_loop").value == "went on"
    assert runner.call("no_streams").value is None
    assert runner.call("no_recursion_limit").value is None
    assert runner.call("deep").header["kind"] == "unserialisable"
    assert runner.call("fine").value == 1
    assert runner.gateway.silent(0.02)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_agent_that_breaks_the_interpreter_ends_and_does_not_hang(agent: Launch, concurrency: int) -> None:
    """Without len() nothing works; the end of the process is what the supervisor can act on."""
    runner = agent(ODD, "breaks_builtins", concurrency=concurrency)
    runner.gateway.send_call("breaks_builtins", [], {})
    assert runner.has_ended(5)


@pytest.mark.slow
def test_a_recursion_at_its_limit_loses_no_frame(agent: Launch) -> None:
    """A frame that arrives when the stack is full is read later: the calls behind it are answered in order."""
    runner = agent(
        """
        import time
        def deep(seconds: float, level: int = 0):
            try:
                return deep(seconds, level + 1)
            except RecursionError:
                time.sleep(seconds)
                return "deep"
        """,
        "deep",
    )
    numbers = [runner.gateway.send_call("deep", [0.05], {}) for _ in range(5)]
    frames = [runner.gateway.frame() for _ in numbers]
    assert [(frame.type, frame.call, frame.body) for frame in frames] == [
        (Frame.RESULT, number, b'"deep"') for number in numbers
    ]
