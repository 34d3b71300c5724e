"""Nothing that a flood of refusals leaves behind needs the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
import weakref

import pytest
from aiohttp import web

from runagentd.errors import Refusal
from runagentd.gateway import collector
from runagentd.gateway.server import Connection
from runagentd.wire.channel import Frame
from tests.fakes_gateway import Gateway, answer

BY_WORKERS_TOO = True

INVOKE = "/v1/agents/echo-1/entrypoints/say:invoke"
RUN = "/api/v1/agents/echo-1/run"
TIMES = 20


def refusals() -> int:
    return sum(isinstance(each, Refusal) for each in gc.get_objects())


@pytest.mark.parametrize(
    ("path", "body", "token", "status"),
    [
        (INVOKE, b"{}", "x.y.z", 401),
        (INVOKE, b"[]", "", 422),
        ("/v1/agents/echo-1/entrypoints/nay:invoke", b"{}", "", 404),
        (RUN, b"{}", "", 422),
        (RUN, b'{"entrypoint_tag":"say_stream"}', "", 400),
    ],
)
def test_a_refusal_is_gone_with_its_answer(gateway: Gateway, path: str, body: bytes, token: str, status: int) -> None:
    """Its traceback holds frames whose variables lead back to it; full collections were a third of a second in ten."""
    gateway.ready("say", "say_stream")
    gateway.ask("POST", path, body, token=token or gateway.token())
    gc.collect()
    gc.disable()
    try:
        before = refusals()
        for _ in range(TIMES):
            assert gateway.ask("POST", path, body, token=token or gateway.token()).status == status
        assert refusals() - before < TIMES // 2
    finally:
        gc.enable()


def test_so_is_that_of_a_call_that_failed(gateway: Gateway) -> None:
    """The call keeps the reason for its end, and whoever reads it raises that."""
    runner = gateway.ready()
    gc.collect()
    gc.disable()
    try:
        before = refusals()
        for _ in range(TIMES):
            asked = gateway.send("POST", INVOKE, b"{}")
            runner.error(runner.expect(Frame.CALL).call, "exception", "no", b"", type="ValueError")
            assert answer(asked).status == 502
        assert refusals() - before < TIMES // 2
    finally:
        gc.enable()


def test_full_collections_are_left_to_the_pace() -> None:
    """Young objects are looked at as before."""
    before = gc.get_threshold()
    try:
        collector.take_over()
        assert gc.get_threshold() == (*before[:2], 1_000_000_000)
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@pytest.mark.parametrize(
    ("seconds", "grown", "old", "expected"),
    [
        (1.0, 0, True, False),
        (30.0, 0, True, True),
        (30.0, 0, False, False),
        (1.0, 32 * 1024 * 1024, False, True),
        (1.0, 32 * 1024 * 1024 - 1, True, False),
        (1.0, -(10**9), True, False),
    ],
)
def test_a_full_collection_is_due_by_time_or_by_growth(seconds: float, grown: int, old: bool, expected: bool) -> None:
    """A circle may hold what a stranger has sent: a gateway that grows does not wait for half a minute."""
    assert collector.due(seconds=seconds, grown=grown, old=old) is expected


def test_what_a_circle_holds_is_given_back_when_the_process_has_grown() -> None:
    """By the memory that the kernel says it has."""
    statm = collector.open_statm()

    class Held:
        def __init__(self) -> None:
            self.itself = self
            self.sent = b"x" * (collector.GROWN_BYTES + 1024 * 1024)

    async def run() -> bool:
        pacing = asyncio.create_task(collector.pace(statm))
        await asyncio.sleep(0)
        gone = asyncio.Event()
        weakref.finalize(Held(), gone.set)
        async with asyncio.timeout(10 * collector.LOOK_SECONDS):
            await gone.wait()
        pacing.cancel()
        return gone.is_set()

    gc.disable()
    try:
        assert asyncio.run(run())
    finally:
        gc.enable()
        os.close(statm)


def test_so_is_a_websocket_with_what_came_of_a_message(gateway: Gateway) -> None:
    """Else a client with a token had the gateway hold what it sent, though it was gone: 60 MiB in each second."""
    gateway.ready("say_stream")
    upgrade = (
        f"GET /api/v1/agents/echo-1/run-stream?token={gateway.token()} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()
    part = bytes([0x01, 0x80 | 100, 0, 0, 0, 0]) + b"a" * 100

    def websockets() -> int:
        return sum(isinstance(each, web.WebSocketResponse) for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = websockets()
        for _ in range(TIMES):
            with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as client:
                client.sendall(upgrade)
                assert client.recv(1000).startswith(b"HTTP/1.1 101 ")
                client.sendall(part)
        end = time.monotonic() + 5
        while websockets() - before >= TIMES // 2 and time.monotonic() < end:
            time.sleep(0.05)
        assert websockets() - before < TIMES // 2
    finally:
        gc.enable()


def test_so_is_a_connection_with_all_that_was_known_of_it(gateway: Gateway) -> None:
    """Of whichever kind its requests were, and whoever has read them."""
    plain = b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"

    def connections() -> int:
        return sum(isinstance(each, Connection) for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = connections()
        for sent in (plain, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"):
            for _ in range(TIMES):
                with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as client:
                    client.sendall(sent)
                    assert client.recv(1000).startswith(b"HTTP/1.1 ")
        gateway.wait_until(lambda: connections() - before < TIMES // 2)
    finally:
        gc.enable()
