"""Streams: RunAgent's WebSocket and server-sent events; credits, slow readers, clients that go away."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from runagentd.gateway.doors import envelope
from runagentd.wire.channel import Frame
from runagentd.wire.control import Cause
from tests.fakes_gateway import FakeRunner, Gateway, answer

BY_WORKERS_TOO = True

INVOKE = "/v1/agents/echo-1/entrypoints/say:invoke"


@contextlib.contextmanager
def stream(gateway: Gateway, agent: str = "echo-1", *, query: bool = False) -> Iterator[ClientConnection]:
    token = gateway.token()
    url = f"ws://127.0.0.1:{gateway.port}/api/v1/agents/{agent}/run-stream" + (f"?token={token}" if query else "")
    headers = None if query else {"Authorization": f"Bearer {token}"}
    with connect(url, additional_headers=headers, compression=None, open_timeout=5, close_timeout=1) as ws:
        yield ws


def ask(ws: ClientConnection, tag: str = "say_stream", **more: object) -> None:
    ws.send(json.dumps({"entrypoint_tag": tag, "input_args": [], "input_kwargs": {}, **more}))


def frame(ws: ClientConnection) -> dict[str, Any]:
    """The next message. Any: JSON."""
    found: dict[str, Any] = json.loads(ws.recv(timeout=5))
    return found


# ---- RunAgent's WebSocket


@pytest.mark.parametrize("query", [False, True])
def test_a_stream_begins_with_started_and_ends_with_completed(gateway: Gateway, query: bool) -> None:
    """With the token in a field, or in the query as most clients send it."""
    runner = gateway.ready("say_stream")
    with stream(gateway, query=query) as ws:
        ask(ws, input_kwargs={"n": 2})
        call = runner.expect(Frame.CALL)
        assert call.body == b'[[],{"n": 2}]'
        assert json.loads(call.header)["mode"] == "stream"
        runner.chunk(call.call, "one")
        runner.chunk(call.call, {"two": 2})
        runner.end(call.call, 2)
        started = frame(ws)
        invocation = started.pop("invocation_id")
        assert started == {"type": "status", "status": "stream_started"}
        assert frame(ws) == {"type": "data", "content": '{"type": "string", "payload": "\\"one\\""}'}
        assert frame(ws) == {"type": "data", "content": '{"type": "object", "payload": "{\\"two\\": 2}"}'}
        completed = frame(ws)
        assert completed.pop("execution_time") >= 0
        assert completed == {
            "type": "status",
            "status": "stream_completed",
            "total_chunks": 2,
            "invocation_id": invocation,
        }


def test_after_completed_the_closing_is_left_to_the_client(gateway: Gateway) -> None:
    """JS and Go take a close before they have read `stream_completed` for an error."""
    runner = gateway.ready("say_stream")
    with stream(gateway) as ws:
        ask(ws)
        runner.end(runner.expect(Frame.CALL).call, 0)
        assert [frame(ws)["status"], frame(ws)["status"]] == ["stream_started", "stream_completed"]
        with pytest.raises(TimeoutError):
            ws.recv(timeout=0.05)
        ws.close()
        assert ws.close_code == 1000


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("nonsense", "the request is not JSON"),
        (b"{}", "the first message is not text"),
        ('{"entrypoint_tag":"nay_stream"}', "entrypoint 'nay_stream' not found in agent 'echo'"),
        ('{"entrypoint_tag":"nay"}', "entrypoint 'nay' not found in agent 'echo'"),
        ('{"entrypoint_tag":"say"}', "entrypoint `say` is no stream: its tag does not end in `_stream`"),
    ],
)
def test_a_first_message_that_is_wrong_is_an_error_frame_and_a_close(
    gateway: Gateway, first: str | bytes, message: str
) -> None:
    """1003, as upstream."""
    gateway.ready("say", "say_stream")
    with stream(gateway) as ws:
        ws.send(first)
        got = frame(ws)
        assert list(got) == ["type", "error", "detail", "code", "message", "suggestion"]
        assert got["type"] == "error"
        assert got["error"] == got["detail"] == got["message"] == message
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=5)
        assert ws.close_code == 1003


def test_a_client_that_closes_in_the_midst_of_a_stream_is_no_fault_of_ours(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """It cancels its call, and the log has no warning about it."""
    runner = gateway.ready("say_stream")
    with stream(gateway) as ws:
        ask(ws)
        call = runner.expect(Frame.CALL).call
        runner.chunk(call, 1)
        frame(ws)
        frame(ws)
    runner.until(Frame.CANCEL)
    runner.error(call, "cancelled", "the call was cancelled")
    assert gateway.ask("GET", "/livez", token=None).status == 200
    assert [record for record in caplog.records if record.getMessage() == "a door failed"] == []


def test_a_fault_of_ours_after_the_handshake_ends_the_connection_without_a_word_of_http(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A response in the midst of a WebSocket would be read as frames."""

    def broken(*arguments: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(envelope, "started", broken)
    gateway.ready("say_stream")
    with stream(gateway) as ws:
        ask(ws)
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv(timeout=10)
    assert closed.value.rcvd is None
    assert [record.getMessage() for record in caplog.records if record.name == "aiohttp.server"] == ["a door failed"]


def test_an_error_after_chunks_is_an_error_frame(gateway: Gateway) -> None:
    """And the stream is not called complete."""
    runner = gateway.ready("say_stream")
    with stream(gateway) as ws:
        ask(ws)
        call = runner.expect(Frame.CALL)
        runner.chunk(call.call, 1)
        runner.error(call.call, "exception", "no more", type="RuntimeError")
        frame(ws)
        frame(ws)
        got = frame(ws)
        assert (got["code"], got["error"]) == ("FUNCTION_ERROR", "RuntimeError: no more")


@pytest.mark.parametrize(
    ("agent", "token", "status"), [("echo-1", "x.y.z", 401), ("echo-1", None, 401), ("nobody", "", 404)]
)
def test_who_may_not_call_is_refused_before_the_handshake(
    gateway: Gateway, agent: str, token: str | None, status: int
) -> None:
    """As an HTTP status, which is what clients understand."""
    gateway.ready("say_stream")
    headers = {} if token is None else {"Authorization": f"Bearer {token or gateway.token()}"}
    url = f"ws://127.0.0.1:{gateway.port}/api/v1/agents/{agent}/run-stream"
    with pytest.raises(InvalidStatus) as refused:
        connect(url, additional_headers=headers, open_timeout=5).__enter__()
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body or b"")["success"] is False


@pytest.mark.parametrize("politely", [True, False])
def test_a_websocket_client_that_goes_away_cancels_its_call(gateway: Gateway, politely: bool) -> None:
    """With a closing handshake, or with a reset."""
    runner = gateway.ready("say_stream")
    with stream(gateway) as ws:
        ask(ws)
        call = runner.expect(Frame.CALL)
        frame(ws)
        if politely:
            ws.close()
        else:
            ws.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            ws.socket.close()
        cancel = runner.expect(Frame.CANCEL)
        assert (cancel.call, cancel.header) == (call.call, b'{"reason":"client"}')
    runner.error(call.call, "cancelled", "stopped")
    gateway.wait_until(lambda: len(gateway.records()) == 1)
    assert gateway.records()[0]["outcome"] == "CANCELLED"


def test_messages_during_a_stream_mean_nothing(gateway: Gateway) -> None:
    """They are read and dropped."""
    runner = gateway.ready("say_stream")
    with stream(gateway) as ws:
        ask(ws)
        call = runner.expect(Frame.CALL)
        for _ in range(3):
            ws.send("hello?")
        runner.end(call.call, 0)
        assert [frame(ws)["status"], frame(ws)["status"]] == ["stream_started", "stream_completed"]


def test_a_first_message_that_is_too_large_is_1009(gateway: Gateway) -> None:
    """RFC 6455, section 7.4.1; it is not held in memory. The reason says what was wrong, and so does the record."""
    gateway.ready("say_stream")
    with stream(gateway) as ws:
        ws.send("x" * (1024 * 1024 + 1))
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=5)
        assert ws.close_code == 1009
        assert ws.close_reason == "the request is larger than the 1048576 bytes that the agent takes"
    gateway.wait_until(lambda: len(gateway.records()) == 1)
    assert gateway.records()[0]["outcome"] == "PAYLOAD_TOO_LARGE"


# ---- server-sent events


def events(body: bytes) -> list[tuple[str, str, str]]:
    """(id, event, data) of every event of a text/event-stream."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if fields:
            found.append((fields["id"], fields["event"], fields["data"]))
    return found


def test_a_stream_of_events_has_start_chunks_and_done(gateway: Gateway) -> None:
    """The data of a chunk is the value's JSON text."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}", Accept="text/event-stream")
    call = runner.expect(Frame.CALL)
    assert json.loads(call.header)["mode"] == "stream"
    runner.chunk(call.call, {"a": 1})
    runner.chunk(call.call, "two")
    runner.end(call.call, 2)
    got = answer(asked)
    assert got.status == 200
    assert got.headers["content-type"] == "text/event-stream"
    assert got.headers["x-accel-buffering"] == "no"
    assert got.headers["cache-control"] == "no-store"
    request_id = got.headers["x-request-id"]
    assert events(got.body) == [
        ("0", "start", f'{{"request_id":"{request_id}"}}'),
        ("1", "chunk", '{"a": 1}'),
        ("2", "chunk", '"two"'),
        ("3", "done", '{"chunks":2}'),
    ]


def test_a_plain_function_gives_a_stream_of_one_chunk(gateway: Gateway) -> None:
    """RESULT is taken where a stream was asked for, too."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}", Accept="application/json;q=0.1, text/event-stream;q=1")
    runner.result(runner.expect(Frame.CALL).call, 7)
    assert [event[1:] for event in events(answer(asked).body)][1:] == [("chunk", "7"), ("done", '{"chunks":1}')]


def test_what_fails_before_the_first_chunk_is_an_answer_with_its_own_status(gateway: Gateway) -> None:
    """A wrong argument is 422, whether or not a stream was asked for."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}", Accept="text/event-stream")
    runner.error(runner.expect(Frame.CALL).call, "argument", "no", pointer="/input_kwargs/text")
    got = answer(asked)
    assert (got.status, got.headers["content-type"]) == (422, "application/problem+json")


def test_what_fails_later_is_an_error_event_and_a_body_that_is_cut_short(gateway: Gateway) -> None:
    """So that no proxy takes it for success: the last chunk of the encoding never comes."""
    runner = gateway.ready()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as raw:
        raw.sendall(
            f"POST {INVOKE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.token()}\r\n"
            "Accept: text/event-stream\r\nContent-Length: 2\r\n\r\n{}".encode()
        )
        call = runner.expect(Frame.CALL)
        runner.chunk(call.call, 1)
        runner.error(call.call, "exception", "broke", type="OSError")
        got = b""
        while piece := raw.recv(65536):
            got += piece
    assert b"event: error\n" in got
    assert b'"code":"FUNCTION_ERROR"' in got
    assert not got.endswith(b"0\r\n\r\n")


def test_an_events_client_that_goes_away_cancels_its_call(gateway: Gateway) -> None:
    """Even while the function is silent."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}", Accept="text/event-stream")
    call = runner.expect(Frame.CALL)
    runner.chunk(call.call, 1)
    asked.sock.recv(10)
    asked.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    asked.sock.close()
    assert runner.until(Frame.CANCEL).call == call.call


# ---- credits


class Generator:
    """A runner's generator: one chunk per credit, for ever; counts."""

    def __init__(self, runner: FakeRunner, size: int) -> None:
        self.runner = runner
        self.produced = 0
        self.cancelled = threading.Event()
        call = runner.expect(Frame.CALL)
        self._call = call.call
        self._credits = json.loads(call.header)["credits"]
        self._body = json.dumps("x" * size).encode()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                while self._credits:
                    self._credits -= 1
                    self.produced += 1
                    self.runner.send(Frame.CHUNK, self._call, {"type": "string"}, self._body)
                got = self.runner.receive()
                if got.type is Frame.CANCEL:
                    self.cancelled.set()
                    self.runner.error(self._call, "cancelled", "stopped")
                    return
                self._credits += json.loads(got.header)["credits"]
        except (OSError, EOFError):
            return


@pytest.mark.parametrize("door", ["websocket", "events"])
def test_a_reader_that_stops_stops_the_generator_within_the_window(gateway: Gateway, door: str) -> None:
    """Beyond what the two ends' socket buffers hold, the function runs at most 16 chunks ahead of its reader."""
    runner = gateway.ready("say_stream", "say")
    size = 64 * 1024
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(5)
        raw.connect(("127.0.0.1", gateway.port))
        if door == "events":
            raw.sendall(
                f"POST {INVOKE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.token()}\r\n"
                "Accept: text/event-stream\r\nContent-Length: 2\r\n\r\n{}".encode()
            )
        else:
            raw.sendall(
                f"GET /api/v1/agents/echo-1/run-stream?token={gateway.token()} HTTP/1.1\r\nHost: x\r\n"
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
            )
            body = b'{"entrypoint_tag":"say_stream"}'
            raw.sendall(bytes([0x81, 0x80 | len(body), 0, 0, 0, 0]) + body)
        generator = Generator(runner, size)
        taken = 0
        while taken < 10 * size:
            taken += len(raw.recv(65536))
        before = -1
        while before != generator.produced:  # until it stands still
            before = generator.produced
            time.sleep(0.1)
        assert 10 <= generator.produced <= 10 + 16 + 12, "ten read, sixteen credits, the rest in socket buffers"
        while taken < 40 * size:
            taken += len(raw.recv(65536))
        assert generator.produced >= 40, "and it goes on when the reader does"
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert generator.cancelled.wait(5)


def test_many_chunks_go_through_in_order(gateway: Gateway) -> None:
    """Five thousand, each once."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}", Accept="text/event-stream")
    call = runner.expect(Frame.CALL)

    def produce() -> None:
        credits = json.loads(call.header)["credits"]
        for number in range(5000):
            while credits == 0:
                credits += json.loads(runner.expect(Frame.CREDIT).header)["credits"]
            credits -= 1
            runner.chunk(call.call, number)
        runner.end(call.call, 5000)

    threading.Thread(target=produce, daemon=True).start()
    got = [event[2] for event in events(answer(asked).body) if event[1] == "chunk"]
    assert got == [str(number) for number in range(5000)]


def test_an_instance_that_dies_during_a_stream_ends_it_with_its_cause(gateway: Gateway) -> None:
    """After the chunks that it had sent."""
    runner = gateway.ready("say_stream")
    with stream(gateway) as ws:
        ask(ws)
        call = runner.expect(Frame.CALL)
        runner.chunk(call.call, "last words")
        runner.close()
        gateway.supervisor.gone(Cause.OUT_OF_MEMORY, "memory.max is 64 MiB")
        frame(ws)
        assert frame(ws)["type"] == "data"
        got = frame(ws)
        assert (got["code"], got["error"]) == ("OUT_OF_MEMORY", "memory.max is 64 MiB")
