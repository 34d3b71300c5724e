"""Clients that are slow, silent or gone: each costs a bounded time."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import pytest

from runagentd.gateway import exchanges, server
from runagentd.gateway.doors import runagent, sse
from runagentd.wire.channel import Frame
from tests.fakes_gateway import Gateway

BY_WORKERS_TOO = True

INVOKE = "/v1/agents/echo-1/entrypoints/say:invoke"


def head(gateway: Gateway, *fields: str) -> bytes:
    lines = [f"POST {INVOKE} HTTP/1.1", "Host: x", f"Authorization: Bearer {gateway.token()}", *fields, "", ""]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_head_of_many_large_fields_is_cut_before_it_takes_much_memory(gateway: Gateway, method: str) -> None:
    """Each field is within its bound, and no token was shown: together they would be a MiB a connection."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        sent = 0
        with contextlib.suppress(ConnectionError):
            raw.sendall(f"{method} /v1/agents HTTP/1.1\r\nHost: x\r\n".encode())
            for number in range(60):
                raw.sendall(f"X-{number}: {'a' * 8000}\r\n".encode())
                sent += 8000
                time.sleep(0.005)
            assert raw.recv(1000) == b""  # 480 kB were taken
        assert sent < 400_000


def read_all(raw: socket.socket) -> bytes:
    got = b""
    try:
        while piece := raw.recv(65536):
            got += piece
    except ConnectionResetError:
        pass
    return got


def test_a_client_that_takes_nothing_is_cut_and_its_call_cancelled(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream whose reader sleeps holds its place for half a minute, and not for ever."""
    monkeypatch.setattr(exchanges, "SLOW_READER_SECONDS", 0.1)
    runner = gateway.ready()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(head(gateway, "Accept: text/event-stream", "Content-Length: 2") + b"{}")
        call = runner.expect(Frame.CALL)
        credits = json.loads(call.header)["credits"]
        while True:
            while credits:
                credits -= 1
                runner.chunk(call.call, "x" * 100_000)
            frame = runner.receive()
            if frame.type is Frame.CANCEL:
                break
            credits += json.loads(frame.header)["credits"]
        assert frame.header == b'{"reason":"client"}'


def test_a_large_answer_that_nobody_takes_does_not_stay(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not a stream, too."""
    monkeypatch.setattr(exchanges, "SLOW_READER_SECONDS", 0.1)
    runner = gateway.ready()
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(5)
        raw.connect(("127.0.0.1", gateway.port))
        raw.sendall((head(gateway, "Content-Length: 2") + b"{}") * 13)
        runner.socket.settimeout(0.3)
        answered = 0
        with pytest.raises(TimeoutError):  # the kernel takes some of them, then the gateway sends no more calls
            while answered < 13:
                runner.result(runner.expect(Frame.CALL).call, "x" * 1_000_000)
                answered += 1
        gateway.wait_until(lambda: not gateway.server.connections)


def test_a_body_that_does_not_come_is_408(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing reaches a runner."""
    monkeypatch.setattr(exchanges, "BODY_SECONDS", 0.05)
    monkeypatch.setattr(server, "LINGER_SECONDS", 0.05)
    gateway.ready()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        raw.sendall(head(gateway, "Content-Length: 10") + b"{")
        got = read_all(raw)
    assert got.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"REQUEST_TIMEOUT"' in got


def test_a_head_that_does_not_come_ends_the_connection(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow requests cannot hold connections for ever."""
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        raw.sendall(b"GET /livez HTTP/1.1\r\nHost:")
        assert read_all(raw) == b""


def test_a_body_is_asked_for_only_when_it_is_wanted(gateway: Gateway) -> None:
    """Expect: 100-continue (RFC 9110, section 10.1.1): a caller without a good token sends none."""
    runner = gateway.ready()
    fields = ("Content-Length: 2", "Expect: 100-continue")
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        raw.sendall(head(gateway, *fields))
        assert raw.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(b"{}")
        runner.result(runner.expect(Frame.CALL).call, 1)
        assert raw.recv(4096).startswith(b"HTTP/1.1 200 ")
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        raw.sendall(head(gateway, *fields).replace(b"Bearer ", b"Bearer x"))
        assert raw.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_a_silent_function_gets_heartbeats(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment, so that proxies do not take the stream for dead; errors are events from then on."""
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.03)
    runner = gateway.ready()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        raw.sendall(head(gateway, "Accept: text/event-stream", "Content-Length: 2") + b"{}")
        call = runner.expect(Frame.CALL)
        got = b""
        while b": still running\n\n" not in got:
            got += raw.recv(4096)
        runner.error(call.call, "exception", "late", type="ValueError")
        got += read_all(raw)
    assert got.startswith(b"HTTP/1.1 200 ")
    assert b"event: error\n" in got


def test_a_websocket_without_a_first_message_is_closed(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an error frame."""
    monkeypatch.setattr(runagent, "FIRST_FRAME_SECONDS", 0.05)
    monkeypatch.setattr(exchanges, "CLOSE_SECONDS", 0.05)
    gateway.ready("say_stream")
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        raw.sendall(
            f"GET /api/v1/agents/echo-1/run-stream?token={gateway.token()} HTTP/1.1\r\nHost: x\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        got = read_all(raw)
    assert got.startswith(b"HTTP/1.1 101 ")
    assert b'"code":"REQUEST_TIMEOUT"' in got


def test_pipelined_requests_are_answered_in_their_order(gateway: Gateway) -> None:
    """One connection, three requests at once (RFC 9112, section 9.3.2)."""
    runner = gateway.ready()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        raw.sendall((head(gateway, "Content-Length: 2") + b"{}") * 3)
        got = b""
        for number in range(3):
            runner.result(runner.expect(Frame.CALL).call, f"answer {number}")
        while got.count(b"answer") < 3:
            got += raw.recv(65536)
    assert got.index(b"answer 0") < got.index(b"answer 1") < got.index(b"answer 2")


@pytest.mark.parametrize(
    "smuggle",
    [
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Content-Length: 2\r\nContent-Length: 3",
        "Transfer-Encoding: chunked, identity",
        "Content-Length: +2",
    ],
)
def test_a_body_with_two_lengths_is_refused(gateway: Gateway, smuggle: str) -> None:
    """RFC 9112, section 6.3: what a proxy before us could read otherwise."""
    gateway.ready()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        raw.sendall(head(gateway, smuggle) + b"{}")
        got = read_all(raw)
    assert got[9:12] == b"400"
