"""A worker that was captured: whatever it sends ends its link at most, and nothing that goes on beside it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from runagentd.foreman.settings_link import Recipient, SettingsLink
from runagentd.gateway import line
from runagentd.gateway.relayed import _Body
from runagentd.log import Log
from runagentd.wire import exchanges as wire
from runagentd.wire.channel import Frame
from runagentd.wire.exchanges import Answer, Begin, BodyFault, Kind, Message, Said, Splitter, Verdict
from runagentd.worker import link as worker_link
from tests import certificates, fakes_gateway
from tests.fakes_gateway import TIMEOUT, FakeRunner, Gateway

ID = "0af76519-16cd-43dd-8448-eb211c80319c"
PATH = "/v1/agents/echo-1/entrypoints/say:invoke"


class Captured:
    """Number 9, with a link of its own beside two honest workers."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        introductions = socket.socket(fileno=os.dup(gateway.inside(lambda: gateway.links.renew_worker(9))))
        with introductions:
            _, [descriptor], _, _ = socket.recv_fds(introductions, 16, 1)
        self.socket = socket.socket(fileno=descriptor)
        self.socket.settimeout(TIMEOUT)
        self._splitter = Splitter(wire.FROM_GATEWAY)
        self._messages: list[Message] = []

    def send(self, *messages: bytes) -> None:
        self.socket.sendall(b"".join(messages))

    def receive(self) -> Message:
        while not self._messages:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError("the gateway has closed the link")
            self._messages += self._splitter.feed(data)
        return self._messages.pop(0)

    def is_cut(self) -> bool:
        """Whether the gateway ends the link."""
        try:
            while True:
                self.receive()
        except (EOFError, ConnectionResetError):
            return True
        except TimeoutError:
            return False

    def place(self, number: int = 1, peer: bytes = b"127.0.0.1") -> Message:
        self.send(wire.pack(Kind.PLACE, number, peer))
        return self.receive()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    yield from fakes_gateway.running(workers=2)


@pytest.fixture
def worker(gateway: Gateway) -> Iterator[Captured]:
    captured = Captured(gateway)
    yield captured
    captured.socket.close()


@pytest.fixture
def runner(gateway: Gateway) -> FakeRunner:
    return gateway.ready()


def call(worker: Captured, *, number: int = 1, body: bytes | None = b"{}", accept: str = "*/*") -> bytes:
    fields = {
        "host": "x",
        "authorization": f"Bearer {worker.gateway.token()}",
        "content-type": "application/json",
        "accept": accept,
    }
    return wire.pack_head(1, "POST", PATH, fields) + wire.pack_begin(number, Begin(1, False, 2, ID, body))


WEBSOCKET = "/api/v1/agents/echo-1/run-stream"
PLACE = wire.pack(Kind.PLACE, 1, b"127.0.0.1")
HEAD = wire.pack_head(1, "GET", "/v1/me", {"host": "x"})
BEGIN = wire.pack_begin(1, Begin(1, False, None, ID, None))


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 64,
        b"\xff" * 64,
        wire.pack(Kind.END, 1),
        wire.pack(Kind.PLACE, 0, b"127.0.0.1"),
        wire.pack(Kind.PLACE, 1, b"a b"),
        PLACE + PLACE,
        wire.pack(Kind.PLACE, 2, b"::1") + PLACE,
        wire.pack(Kind.RELEASED, 1),
        PLACE + wire.pack(Kind.RELEASED, 1, b"x"),
        PLACE + wire.pack(Kind.RELEASED, 1) * 2,
        HEAD,
        PLACE + wire.pack(Kind.HEAD, 1, b"GET"),
        wire.pack(Kind.CERTIFICATE, 1, b"x"),
        PLACE + wire.pack(Kind.CERTIFICATE, 1, b"x") * 2,
        PLACE + HEAD + wire.pack(Kind.CERTIFICATE, 1, b"x"),
        BEGIN,
        PLACE + BEGIN,
        PLACE + HEAD + wire.pack_begin(1, Begin(2, False, None, ID, None)),
        PLACE + HEAD + wire.pack_begin(0, Begin(1, False, None, ID, None)),
        PLACE + HEAD + BEGIN + wire.pack_begin(2, Begin(1, False, None, ID, None)),
        PLACE + HEAD + BEGIN + wire.pack(Kind.RELEASED, 1),
        PLACE + HEAD + BEGIN + wire.pack(Kind.GONE, 1) + BEGIN,
        PLACE + HEAD + wire.pack_begin(1, Begin(1, False, None, "\\n" + ID[2:], None)),
        PLACE + HEAD + wire.pack_begin(1, Begin(1, False, None, "", None)),
        PLACE + HEAD + BEGIN + wire.pack_piece(Kind.BODY, 1, b"x", last=True),
        PLACE + HEAD + BEGIN + wire.pack_count(1, 1),
        PLACE + HEAD + BEGIN + wire.pack_said(1, Said(last=True, text=True, closed=False, piece=b"x")),
        PLACE + HEAD + BEGIN + wire.pack(Kind.GONE, 1, b"x"),
        wire.pack(Kind.GONE, 5),
        wire.pack_count(5, 1),
    ],
)
def test_what_breaks_the_protocol_ends_that_link_and_nothing_else(
    gateway: Gateway, worker: Captured, sent: bytes
) -> None:
    """Its places are free again, the log has a reason, and the others' clients are answered."""
    worker.send(sent)
    assert worker.is_cut()
    assert any("a worker broke the protocol" in line and '"worker":9' in line for line in gateway.log_lines)
    gateway.wait_until(lambda: 9 not in gateway.relay.links and gateway.relay.connections == 0)
    assert gateway.inside(lambda: (gateway.relay.connections, sorted(gateway.relay.links))) == (0, [1, 2])
    assert gateway.ask("GET", "/livez").status == 200


def test_a_call_and_its_answer(worker: Captured, runner: FakeRunner) -> None:
    """As an honest worker does it; a second request of the same head says no head."""
    assert worker.place() == Message(Kind.PLACED, 1, bytes([Verdict.YES]))
    for number in (1, 2):
        begin = call(worker) if number == 1 else wire.pack_begin(2, Begin(1, False, 2, ID, b"{}"))
        worker.send(begin)
        runner.result(runner.expect(Frame.CALL).call, "x" * 10)
        message = worker.receive()
        assert (message.kind, message.number) == (Kind.REPLY, number)
        answer = wire.answer(message.body)
        assert isinstance(answer, Answer)
        assert (answer.status, answer.last, answer.piece) == (200, True, b'"xxxxxxxxxx"')


def test_a_body_is_asked_for_and_bounded(gateway: Gateway, worker: Captured, runner: FakeRunner) -> None:
    """As much as the agent takes, and a byte more ends the link."""
    worker.place()
    worker.send(call(worker, body=None))
    asked = worker.receive()
    assert (asked.kind, wire.number_of(asked.body)) == (Kind.READ_BODY, 1024 * 1024)
    worker.send(
        wire.pack_piece(Kind.BODY, 1, b'{"text":', last=False), wire.pack_piece(Kind.BODY, 1, b'"a"}', last=True)
    )
    assert runner.expect(Frame.CALL).body == b'[[],{"text":"a"}]'
    worker.send(wire.pack(Kind.GONE, 1), call(worker, number=2, body=None))
    assert worker.receive().kind is Kind.READ_BODY
    worker.send(*[wire.pack_piece(Kind.BODY, 2, b"x" * 65536, last=False)] * 16)
    worker.send(wire.pack_piece(Kind.BODY, 2, b"x", last=True))
    assert worker.is_cut()


def test_many_small_pieces_are_not_more_to_hold_than_one() -> None:
    """Neither pieces of a byte nor empty ones, of which there may be any number."""

    async def gather() -> tuple[int, bytes]:
        body = _Body(1000)
        more = Message(Kind.BODY, 1, b"\0"), Message(Kind.BODY, 1, b"\0x")
        tracemalloc.start()
        for number in range(100_000):
            body.take(more[number < 1000])
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        body.take(Message(Kind.BODY, 1, b"\1"))
        return held, await body.whole

    held, whole = asyncio.run(gather())
    assert whole == b"x" * 1000
    assert held < 16 * 1024


@pytest.mark.parametrize(
    ("fault", "status"), [(BodyFault.TOO_LARGE, 413), (BodyFault.SLOW, 408), (BodyFault.BROKEN, 500)]
)
def test_a_body_that_does_not_come_is_refused(
    worker: Captured, runner: FakeRunner, fault: BodyFault, status: int
) -> None:
    worker.place()
    worker.send(call(worker, body=None))
    assert worker.receive().kind is Kind.READ_BODY
    worker.send(wire.pack(Kind.BODY_FAILED, 1, bytes([fault])))
    assert wire.answer(worker.receive().body).status == status


def test_a_large_answer_comes_in_pieces(worker: Captured, runner: FakeRunner) -> None:
    worker.place()
    worker.send(call(worker))
    runner.result(runner.expect(Frame.CALL).call, "x" * 150_000)
    answer = wire.answer(worker.receive().body)
    assert (answer.last, len(answer.piece)) == (False, 65536)
    rest = [wire.piece(message.body) for message in (worker.receive(), worker.receive())]
    assert [(len(piece), last) for piece, last in rest] == [(65536, False), (150_002 - 2 * 65536, True)]


def test_a_stream_waits_for_what_has_not_left_the_worker(
    gateway: Gateway, worker: Captured, runner: FakeRunner
) -> None:
    """So many bytes are on their way, and no more until they are said to be sent; more than there were is a lie."""
    worker.place()
    worker.send(call(worker, accept="text/event-stream"))
    number = runner.expect(Frame.CALL).call
    for _ in range(4):
        runner.chunk(number, "x" * 20_000)
    opening = worker.receive()
    assert (opening.kind, wire.opening(opening.body)[0]) == (Kind.OPEN_STREAM, 200)
    pieces = [worker.receive() for _ in range(2)]  # the start, and a chunk: 16 KiB are full
    assert [message.kind for message in pieces] == [Kind.PIECE] * 2
    worker.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        worker.receive()
    worker.socket.settimeout(TIMEOUT)
    worker.send(wire.pack_count(1, 2))
    assert worker.receive().kind is Kind.PIECE
    worker.send(wire.pack_count(1, 100))
    assert worker.is_cut()
    assert any("more was sent than there was" in line for line in gateway.log_lines)
    assert runner.until(Frame.CANCEL).call == number


def test_a_websocket_says_a_message_when_it_is_asked(worker: Captured, gateway: Gateway) -> None:
    runner = gateway.ready("say_stream")
    worker.place()
    fields = {"host": "x", "authorization": f"Bearer {gateway.token()}"}
    worker.send(wire.pack_head(1, "GET", WEBSOCKET, fields), wire.pack_begin(1, Begin(1, True, None, ID, None)))
    opening = worker.receive()
    assert (opening.kind, wire.number_of(opening.body)) == (Kind.OPEN_WEBSOCKET, 1024 * 1024)
    assert worker.receive().kind is Kind.RECEIVE
    worker.send(wire.pack_said(1, Said(last=False, text=True, closed=False, piece=b'{"entrypoint_tag":')))
    worker.send(wire.pack_said(1, Said(last=True, text=True, closed=False, piece=b'"say_stream"}')))
    call = runner.expect(Frame.CALL).call
    text, asked = worker.receive(), worker.receive()
    assert asked.kind is Kind.RECEIVE
    assert wire.piece(text.body)[0].startswith(b'{"type":"status","status":"stream_started"')
    runner.chunk(call, 1)
    said, last = wire.piece(worker.receive().body)
    assert (json.loads(said)["type"], last) == ("data", True)
    worker.send(wire.pack_said(1, Said(last=True, text=False, closed=True, piece=b"")))
    assert runner.until(Frame.CANCEL).call == call


@pytest.mark.parametrize(
    "said",
    [
        [Said(last=True, text=True, closed=False, piece=b"\xff")],
        [Said(last=True, text=True, closed=False, piece=b"{}")] * 2,
        [Said(last=False, text=True, closed=False, piece=b"x" * 65536)] * 17,
    ],
    ids=["not UTF-8", "one too many", "too large"],
)
def test_what_a_websocket_may_not_say_ends_the_link(gateway: Gateway, worker: Captured, said: list[Said]) -> None:
    gateway.ready("say_stream")
    worker.place()
    fields = {"host": "x", "authorization": f"Bearer {gateway.token()}"}
    worker.send(wire.pack_head(1, "GET", WEBSOCKET, fields), wire.pack_begin(1, Begin(1, True, None, ID, None)))
    assert [worker.receive().kind for _ in range(2)] == [Kind.OPEN_WEBSOCKET, Kind.RECEIVE]
    worker.send(*[wire.pack_said(1, one) for one in said])
    assert worker.is_cut()


def test_messages_about_what_has_just_ended_are_passed_over(worker: Captured, runner: FakeRunner) -> None:
    """They were sent before the worker could know."""
    worker.place()
    worker.send(call(worker))
    runner.result(runner.expect(Frame.CALL).call, 1)
    assert worker.receive().kind is Kind.REPLY
    worker.send(wire.pack(Kind.GONE, 1), wire.pack_count(1, 3), wire.pack(Kind.RELEASED, 1))
    assert worker.place(2) == Message(Kind.PLACED, 2, bytes([Verdict.YES]))


def test_a_worker_that_is_lost_is_the_cause_of_what_it_had(
    gateway: Gateway, worker: Captured, runner: FakeRunner
) -> None:
    """The runner is told to stop; the record does not say that the client went away."""
    worker.place()
    worker.send(call(worker))
    number = runner.expect(Frame.CALL).call
    worker.socket.close()
    assert runner.expect(Frame.CANCEL).call == number
    gateway.wait_until(lambda: any('"cause":"worker-lost"' in line for line in gateway.log_lines))
    assert not any('"cause":"client"' in line for line in gateway.log_lines)
    gateway.wait_until(lambda: gateway.relay.connections == 0)


def test_a_worker_that_does_not_read_is_cut(
    gateway: Gateway, worker: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the gateway keeps for it has a bound."""
    monkeypatch.setattr(line, "UNREAD_BYTES_MAX", 512 * 1024)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for number in range(1, 10**6, 1000):
            worker.send(
                *(
                    wire.pack(Kind.PLACE, each, b"127.0.0.1") + wire.pack(Kind.RELEASED, each)
                    for each in range(number, number + 1000)
                )
            )
    assert any("it does not read" in said for said in gateway.log_lines)
    assert gateway.ask("GET", "/livez").status == 200


def test_another_link_takes_the_place_of_the_one_before(gateway: Gateway, worker: Captured) -> None:
    worker.place()
    again = Captured(gateway)
    assert worker.is_cut()
    assert again.place() == Message(Kind.PLACED, 1, bytes([Verdict.YES]))
    again.socket.close()


def test_the_key_goes_to_the_workers_and_not_to_the_gateway(tmp_path: Path) -> None:
    """Whoever captures the gateway has no key to be it elsewhere."""
    certificates.write(tmp_path)
    config = tmp_path / "runagentd.toml"
    for workers, gateway in ((1, {"settings", "certificate", "key"}), (2, {"settings"})):
        config.write_text(f'[gateway]\nworkers = {workers}\n[tls]\ncertificate = "certificate.pem"\nkey = "key.pem"\n')
        link = SettingsLink(config, Log(None, source="x"))
        assert set(link._contents(Recipient.GATEWAY)) == gateway
        assert set(link._contents(Recipient.WORKER)) == {"settings", "certificate", "key"}


# ---- the honest ones, without a gateway


def cut_off(gateway: Gateway) -> None:
    """End every link, as the end of the gateway does."""

    def close() -> None:
        for link in list(gateway.relay.links.values()):
            link.close()

    gateway.inside(close)
    gateway.wait_until(lambda: all(each.link is None for each in gateway.worker_gateways))


def come_back(gateway: Gateway) -> None:
    """As the foreman has the next one meet the workers."""

    def introduce() -> None:
        for number in (1, 2):
            gateway.links._introduce(number)

    gateway.inside(introduce)


def kept(gateway: Gateway) -> http.client.HTTPConnection:
    """A connection that a worker has."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=TIMEOUT)
    assert asked(connection, "/livez") == (200, None, None)
    return connection


def asked(connection: http.client.HTTPConnection, path: str) -> tuple[int, str | None, str | None]:
    """Status, code and Retry-After."""
    connection.request("GET", path)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    code = body.get("code") or (body["error"]["code"] if "error" in body else None)
    return answer.status, code, answer.headers["Retry-After"]


def test_without_a_gateway_requests_are_answered_with_503_and_connections_stay(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the form of each door; who connects waits until it is back, and then everything is answered."""
    monkeypatch.setattr(worker_link, "AWAY_SECONDS", 0.1)
    connection = kept(gateway)
    cut_off(gateway)
    for path in ("/livez", "/v1/me", "/api/v1/health"):
        assert asked(connection, path) == (503, "UNAVAILABLE", "1")
    with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT) as fresh:
        fresh.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        fresh.settimeout(0.2)
        with pytest.raises(TimeoutError):
            fresh.recv(1)
        come_back(gateway)
        fresh.settimeout(TIMEOUT)
        assert fresh.recv(13) == b"HTTP/1.1 200 "
        assert asked(connection, "/livez") == (200, None, None)
        assert gateway.inside(lambda: gateway.relay.connections) == 2
    connection.close()
    gateway.wait_until(lambda: gateway.relay.connections == 0)


def test_a_request_waits_for_the_next_gateway(gateway: Gateway) -> None:
    connection = kept(gateway)
    cut_off(gateway)
    timer = threading.Timer(0.2, come_back, [gateway])
    timer.start()
    assert asked(connection, "/livez") == (200, None, None)
    timer.join()
    connection.close()


def test_a_stream_whose_gateway_ends_is_cut_and_nobody_takes_it_for_complete(gateway: Gateway) -> None:
    runner = gateway.ready()
    asked = gateway.send("POST", PATH, b'{"text":"a"}', Accept="text/event-stream")
    call = runner.expect(Frame.CALL).call
    runner.chunk(call, 1)
    answer = asked.getresponse()
    assert answer.status == 200
    while b"event: chunk" not in answer.readline():
        pass
    cut_off(gateway)
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    assert runner.until(Frame.CANCEL).call == call
    asked.close()


def test_a_worker_takes_one_connection_at_a_time(gateway: Gateway) -> None:
    """Until the gateway has answered for it; what comes meanwhile is left to others, or waits."""
    ours = []
    for number in (1, 2):
        end, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        end.settimeout(TIMEOUT)
        socket.send_fds(gateway.links._workers[number][0], [b"gateway"], [theirs.fileno()])
        theirs.close()
        ours.append(end)
    gateway.wait_until(lambda: gateway.relay.links == {})
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT))
        for end in ours:
            stack.enter_context(end)
            for _ in range(2):
                [place] = Splitter(wire.FROM_WORKER).feed(end.recv(65536))
                assert place.kind is Kind.PLACE
                end.sendall(wire.pack(Kind.PLACED, place.number, bytes([Verdict.YES])))
            [place] = Splitter(wire.FROM_WORKER).feed(end.recv(65536))
            end.settimeout(0.1)
            with pytest.raises(TimeoutError):
                end.recv(1)


def test_a_websocket_whose_gateway_ends_is_told_so(gateway: Gateway) -> None:
    """1012: the service is started again."""
    runner = gateway.ready("say_stream")
    with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT) as client:
        client.sendall(
            f"GET {WEBSOCKET} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.token()}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        text = b'{"entrypoint_tag":"say_stream"}'
        client.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
        call = runner.expect(Frame.CALL).call
        cut_off(gateway)
        received = b""
        while b"\x88" not in received:
            received += client.recv(4096)
        assert received.startswith(b"HTTP/1.1 101 ")
        assert received.partition(b"\x88")[2][1:3] == (1012).to_bytes(2)
        assert runner.until(Frame.CANCEL).call == call


def test_a_connection_that_the_next_gateway_has_no_place_for_is_cut(gateway: Gateway) -> None:
    connections = [kept(gateway) for _ in range(3)]
    cut_off(gateway)
    gateway.inside(lambda: setattr(gateway.relay, "connections_max", 2))
    come_back(gateway)
    gateway.wait_until(lambda: sum(len(each.seats) for each in gateway.worker_gateways) == 2)
    answers = []
    for connection in connections:
        connection.auto_open = 0  # it would connect again
        try:
            answers.append(asked(connection, "/livez")[0])
        except (ConnectionError, http.client.HTTPException):
            answers.append(0)
    assert sorted(answers) == [0, 200, 200]
    for connection in connections:
        connection.close()
