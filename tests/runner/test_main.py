"""The life of a runner: greeting, channels that come and go, processes that the agent forks."""

from __future__ import annotations

import socket

import pytest

from runagentd.wire.channel import Frame, pack
from tests.runner.driver import Launch

SLOW = """
import time
log = []
def slow():
    try:
        for _ in range(6000): time.sleep(0.01)
    finally:
        log.append("stopped")
async def slow_async():
    import asyncio
    try:
        await asyncio.sleep(60)
    finally:
        log.append("stopped")
def items():
    try:
        yield 1
        yield 2
    finally:
        log.append("stopped")
def seen(): return log
"""


def test_hello_is_first_then_the_description_then_ready(agent: Launch) -> None:
    """HELLO carries the protocol's version; the ready byte comes once everything is fine."""
    runner = agent("def run(): return 1", "run")
    assert (runner.hello.type, runner.hello.header) == (Frame.HELLO, b'{"version":1}')
    assert runner.description["entrypoints"][0]["tag"] == "run"
    assert runner.is_ready()


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("tag", ["slow", "slow_async", "items"])
def test_the_end_of_a_channel_cancels_its_calls_and_the_next_one_is_served(
    agent: Launch, tag: str, concurrency: int
) -> None:
    """A gateway that died: its call is stopped, the new gateway is greeted with HELLO and DESCRIBE and served."""
    runner = agent(SLOW, "slow", "slow_async", "items", "seen", concurrency=concurrency)
    call = runner.gateway.send_call(tag, [], {}, mode="stream", credits=1)
    if tag == "items":
        assert runner.gateway.frame().call == call
    else:
        assert runner.gateway.silent(0.1)
    runner.gateway.close()
    gateway = runner.supply_channel()
    assert gateway.frame().type is Frame.HELLO
    assert gateway.frame() == runner.report
    assert gateway.call("seen").value == ["stopped"]


def test_a_gateway_that_dies_several_times_while_nobody_looks(agent: Launch) -> None:
    """Channels that were already closed when their turn came are passed over."""
    runner = agent("def run(): return 1", "run")
    runner.gateway.close()
    for _ in range(3):
        runner.supply_channel().close()
    gateway = runner.supply_channel()
    gateway.frame()
    gateway.frame()
    assert gateway.call("run").value == 1


def test_a_failed_agent_tells_the_next_gateway_too(agent: Launch) -> None:
    """FAILED is repeated on each channel until the supervisor ends the instance."""
    runner = agent("1 / 0", "run")
    runner.gateway.close()
    gateway = runner.supply_channel()
    assert gateway.frame().type is Frame.HELLO
    assert gateway.frame() == runner.report


@pytest.mark.slow
def test_the_supervisors_end_does_not_disturb_a_call(agent: Launch) -> None:
    """The lifeline ends the instance, not the supply of channels."""
    runner = agent("def run(): return 1", "run")
    runner.end_supply()
    assert runner.call("run").value == 1
    runner.gateway.close()
    assert not runner.has_ended(0.1)


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        pack(Frame.CALL, 1, b"{", b"[[],{}]"),
        pack(Frame.CALL, 1, b'{"tag":1}', b"[[],{}]"),
        pack(Frame.CALL, 1, b"[" * 10_000, b"[[],{}]"),
        pack(Frame.RESULT, 1, b"{}", b"1"),
    ],
    ids=["http", "no-json", "no-tag", "deep", "wrong-way"],
)
def test_bytes_that_are_no_frames_end_the_channel_and_not_the_runner(
    agent: Launch, concurrency: int, data: bytes
) -> None:
    """The next channel is served."""
    runner = agent("def run(): return 1", "run", concurrency=concurrency)
    runner.gateway.channel.sendall(data)
    with pytest.raises((EOFError, ConnectionResetError)):
        runner.gateway.frame()
    gateway = runner.supply_channel()
    gateway.frame()
    gateway.frame()
    assert gateway.call("run").value == 1


def test_an_unknown_tag_and_unknown_credits_are_answered_or_ignored(agent: Launch) -> None:
    """A late CREDIT or CANCEL for a closed call is no error."""
    runner = agent("def run(): return 1", "run")
    assert runner.call("nope").header == {"kind": "unknown_tag", "message": "there is no entrypoint 'nope'"}
    runner.gateway.credit(1, 5)
    runner.gateway.cancel(1)
    assert runner.call("run").value == 1


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.slow
def test_a_forked_child_neither_answers_nor_holds_the_channel(agent: Launch, concurrency: int) -> None:
    """A child that returns from the function ends; one that stays does not keep the channel open."""
    runner = agent(
        """
        import os, time
        def fork():
            return os.fork() > 0
        def leave_child():
            if os.fork() == 0:
                time.sleep(60)
            return os.getpid()
        """,
        "fork",
        "leave_child",
        concurrency=concurrency,
    )
    assert runner.call("fork").value is True
    assert runner.gateway.silent(0.1)
    pid = runner.call("leave_child").value
    assert pid == runner.pid
    runner.gateway.channel.shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError):
        runner.gateway.frame()


@pytest.mark.slow
def test_a_timer_that_the_agent_left_behind_ends_the_instance_and_not_the_channel(agent: Launch) -> None:
    """Its handler raises outside of every call, even a TimeoutError, which the socket could have raised too."""
    runner = agent(
        """
        import signal
        def left(number, frame): raise TimeoutError("nobody waits")
        def run():
            signal.signal(signal.SIGALRM, left)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
        """,
        "run",
    )
    assert runner.call("run").value is None
    assert runner.has_ended(5)
    assert "TimeoutError: nobody waits" in runner.output("stderr")


def test_a_frame_may_come_in_pieces(agent: Launch) -> None:
    """The channel is a stream of bytes."""
    runner = agent("def run(x): return x", "run")
    data = pack(Frame.CALL, 9, b'{"tag":"run","mode":"single","unknown":[1]}', b'[["abc"],{}]')
    for byte in data:
        runner.gateway.channel.sendall(bytes([byte]))
    assert runner.gateway.finish(9).value == "abc"


@pytest.mark.slow
def test_a_large_argument_and_a_large_result_pass(agent: Launch) -> None:
    """Several MiB each way."""
    runner = agent("def run(x): return x", "run", result_bytes=8 << 20)
    assert runner.call("run", "x" * 6_000_000).value == "x" * 6_000_000
