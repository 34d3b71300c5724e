"""Plain requests: which bytes are one, and that a connection goes over to aiohttp with the first that is none."""

from __future__ import annotations

import asyncio
import json
import re
import select
import socket
import time
from pathlib import Path

import pytest
from aiohttp import hdrs
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpRequestParser
from hypothesis import given
from hypothesis import strategies as st

from runagentd.gateway import plain, server
from runagentd.gateway.configuration import Configuration
from runagentd.wire.channel import Frame
from runagentd.wire.settings import Http, Settings
from tests.fakes_gateway import Gateway

CALL = b"POST /v1/agents/a/entrypoints/t:invoke HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
INVOKE = b"POST /v1/agents/echo-1/entrypoints/say:invoke HTTP/1.1\r\nHost: x\r\n"


def test_a_post_with_its_whole_body_is_plain() -> None:
    """Names are folded to lower case, values lose the space around them, and what follows is left."""
    head = b"POST /v1/x?token=a%20b HTTP/1.1\r\nHost: h:1\r\ncontent-LENGTH:2\r\nX-Note: \t a b\t \r\nEmpty:\r\n\r\n"
    found = plain.parse(head + b"{}POST")
    assert found == plain.Plain(
        head=plain.Head(
            text=head,
            target="/v1/x?token=a%20b",
            fields={"host": "h:1", "content-length": "2", "x-note": "a b", "empty": ""},
            body_bytes=2,
        ),
        body=b"{}",
        size=91,
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"P",
        CALL,
        CALL + b"\r\n{",
        CALL.replace(b"POST", b"PUT") + b"\r\n{}",
        CALL.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n{}",
        CALL.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n") + b"\r\n{}",
        CALL.replace(b"/v1", b"http://x/v1") + b"\r\n{}",
        CALL.replace(b"/v1", b"/v1#x") + b"\r\n{}",
        CALL.replace(b"/v1", b"/\xc3\xbc") + b"\r\n{}",
        CALL.replace(b"Host: x\r\n", b"") + b"\r\n{}",
        CALL.replace(b"Content-Length: 2\r\n", b"") + b"\r\n{}",
        CALL.replace(b"Content-Length: 2", b"Content-Length: +2") + b"\r\n{}",
        CALL.replace(b"Content-Length: 2", b"Content-Length: 2,2") + b"\r\n{}",
        CALL.replace(b"Content-Length: 2", b"Content-Length : 2") + b"\r\n{}",
        CALL.replace(b"Content-Length: 2", b"Content-Length: 0x2") + b"\r\n{}",
        CALL + b"Content-Length: 2\r\n\r\n{}",
        CALL + b"CONTENT-length: 3\r\n\r\n{}",
        CALL + b"Transfer-Encoding: chunked\r\n\r\n{}",
        CALL + b"Transfer-Encoding:\r\n\r\n{}",
        CALL + b"Upgrade: websocket\r\n\r\n{}",
        CALL + b"Expect: 100-continue\r\n\r\n{}",
        CALL + b"Connection: close\r\n\r\n{}",
        CALL + b"Connection: keep-alive, Upgrade\r\n\r\n{}",
        CALL + b"Accept: text/event-stream\r\n\r\n{}",
        CALL + b"Accept: Text/Event-Stream\r\n\r\n{}",
        CALL + b"Host: y\r\n\r\n{}",
        CALL + b"X-A: b\r\n folded\r\n\r\n{}",
        CALL + b"X-A: b\x00c\r\n\r\n{}",
        CALL + b"X-A: b\rc\r\n\r\n{}",
        CALL + b"X-A: \xe9\r\n\r\n{}",
        CALL + b"X A: b\r\n\r\n{}",
        CALL + b": b\r\n\r\n{}",
        CALL + b"".join(b"X-%d: 1\r\n" % number for number in range(31)) + b"\r\n{}",
        CALL + b"X-A: " + b"b" * 16384 + b"\r\n\r\n{}",
    ],
)
def test_what_could_be_read_in_two_ways_or_needs_more_than_an_answer_is_not_plain(data: bytes) -> None:
    """Also what is incomplete: waiting, and the bounds on it, are aiohttp's business."""
    assert plain.parse(data) is None


VALUES = st.sampled_from(["", "2", "keep-alive", "close", "chunked", "x", " ", "\t", "a b", "é", "\x7f", "a,b"])
NAMES = st.sampled_from(
    ["Host", "Content-Length", "Connection", "Transfer-Encoding", "X", "x", "Expect", "X Y", "Accept"]
)
PIECES = st.lists(st.tuples(NAMES, st.sampled_from([":", ": ", " :", ""]), VALUES), max_size=5)


@given(
    method=st.sampled_from(["POST", "post", "GET", " POST"]),
    target=st.sampled_from(["/", "/a?b", "*", "//x", "/%", "/a b", "/a#b", "http://x/", "/\x7f"]),
    version=st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/1.10", "HTTP/2"]),
    pieces=PIECES,
    end=st.sampled_from(["\r\n", "\n", "\r"]),
    body=st.sampled_from([b"{}", b"", b"{", b"{}POST / HTTP/1.1\r\n"]),
    kept=st.booleans(),
)
def test_whatever_is_plain_aiohttp_reads_in_the_same_way(
    method: str, target: str, version: str, pieces: list[tuple[str, str, str]], end: str, body: bytes, kept: bool
) -> None:
    """No request means one thing here and another there: target, fields, body, and where the next one begins."""
    fixed = [("Host", ": ", "x"), ("Content-Length", ": ", "2")] if kept else []
    lines = [f"{method} {target} {version}", *("".join(piece) for piece in [*fixed, *pieces]), "", ""]
    data = end.join(lines).encode("utf-8") + body
    found = plain.parse(data)
    if found is None:
        return
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16, max_line_size=16384, max_field_size=16384)
        messages, upgraded, _ = parser.feed_data(data[: found.size])
    finally:
        loop.close()
    assert not upgraded
    [(message, payload)] = messages
    assert (message.method, message.path, message.version) == (hdrs.METH_POST, found.head.target, (1, 1))
    assert {name.lower(): value for name, value in message.headers.items()} == found.head.fields
    assert message.should_close is False
    assert payload.is_eof()
    assert payload.read_nowait() == found.body


def test_a_head_that_is_known_says_what_it_said() -> None:
    """With another body; any other head, however much alike, is read as if none was known."""
    first = plain.parse(CALL + b"A: 1\r\n\r\n{}")
    assert first is not None
    known = first.head
    again = plain.parse(CALL + b"A: 1\r\n\r\n[]POST", known)
    assert again is not None
    assert (again.head is known, again.body, again.size) == (True, b"[]", first.size)
    assert plain.parse(CALL + b"A: 1\r\n\r\n[", known) is None
    for data in (CALL + b"A: 2\r\n\r\n{}", CALL + b"A: 1\r\nB: 2\r\n\r\n{}", CALL + b"\r\n{}", CALL + b"A: 1\r\nB: 2"):
        assert plain.parse(data, known) == plain.parse(data)


def test_doors_ask_for_fields_in_lower_case() -> None:
    """As `Exchange.header` wants it: another name would find nothing in a plain request."""
    sources = Path(plain.__file__).parent.rglob("*.py")
    asked = {name for source in sources for name in re.findall(r'\bheader\("([^"]+)"\)', source.read_text("utf-8"))}
    assert {"authorization", "traceparent", "if-none-match"} <= asked
    assert {name for name in asked if name != name.lower()} == set()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_plain_request_or_none(data: bytes) -> None:
    """Never an exception."""
    assert plain.parse(data) is None
    assert plain.parse(CALL + data) is None or data.startswith(b"\r\n") or b"\r\n\r\n" in data


def call(gateway: Gateway, more: bytes = b"") -> bytes:
    return INVOKE + f"Authorization: Bearer {gateway.token()}\r\n".encode() + more + b"Content-Length: 2\r\n\r\n{}"


def test_a_connection_may_send_plain_requests_and_then_others(gateway: Gateway) -> None:
    """Sent at once, they are answered in their order, by whoever answers them."""
    runner = gateway.ready()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as raw:
        livez = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
        raw.sendall(call(gateway) + call(gateway, b"X-A: 1\r\n") + livez + call(gateway, b"Connection: close\r\n"))
        for value in (1, 2, 3):
            runner.result(runner.expect(Frame.CALL).call, value)
        received = b""
        while piece := raw.recv(65536):
            received += piece
    bodies = [answer.partition(b"\r\n\r\n")[2] for answer in received.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [b"1", b"2", b'{"status":"ok"}', b"3"]


def test_what_is_known_of_a_connections_head_does_not_outlive_what_it_depends_on(gateway: Gateway) -> None:
    """The same bytes again, after a proxy has become one to be believed, and after the token was revoked."""
    runner = gateway.ready()
    token = gateway.token()
    said = (
        INVOKE
        + f"Authorization: Bearer {token}\r\nX-Forwarded-For: 203.0.113.9\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    )

    def answer() -> bytes:
        raw.sendall(said)
        if not answers:
            return raw.recv(65536)
        runner.result(runner.expect(Frame.CALL).call, answers.pop())
        return raw.recv(65536).partition(b"\r\n\r\n")[2]

    answers = [3, 2, 1]
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as raw:
        assert (answer(), answer()) == (b"1", b"2")
        changed = Configuration(Settings(http=Http(trusted_proxies=("127.0.0.0/8",))), {})
        gateway.inside(lambda: gateway.application.configure(changed))
        assert answer() == b"3"
        gateway.store.revoke_subject("tester", before=int(time.time()) + 1)
        gateway.spread()
        assert answer().startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    calls = [json.loads(line) for line in gateway.log_lines if '"event":"call"' in line]
    peers = [call["peer"] for call in calls]
    assert peers == ["127.0.0.1", "127.0.0.1", "203.0.113.9", "203.0.113.9"]


def test_a_request_that_comes_in_pieces_is_answered_too(gateway: Gateway) -> None:
    """After a plain one, on the same connection, one byte at a time."""
    runner = gateway.ready()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.sendall(call(gateway))
        runner.result(runner.expect(Frame.CALL).call, "first")
        assert raw.recv(65536).endswith(b'\r\n\r\n"first"')
        for byte in call(gateway):
            raw.sendall(bytes([byte]))
        runner.result(runner.expect(Frame.CALL).call, "second")
        assert raw.recv(65536).endswith(b'\r\n\r\n"second"')


def test_a_client_that_goes_away_during_a_plain_request_cancels_its_call(gateway: Gateway) -> None:
    """The runner is told, and the record says why."""
    runner = gateway.ready()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as raw:
        raw.sendall(call(gateway))
        number = runner.expect(Frame.CALL).call
    cancel = runner.expect(Frame.CANCEL)
    assert (cancel.call, cancel.header) == (number, b'{"reason":"client"}')


@pytest.mark.slow
def test_a_connection_that_is_used_is_not_idle(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """However old it is: neither a call that takes longer is cut off, nor is the connection closed after one."""
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.2)
    runner = gateway.ready()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as raw:
        for word in ("one", "two"):
            raw.sendall(call(gateway))
            number = runner.expect(Frame.CALL).call
            assert select.select([raw], [], [], 0.5)[0] == [], "it was closed"
            runner.result(number, word)
            assert raw.recv(65536).endswith(b'"' + word.encode() + b'"')


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", INVOKE], ids=["nothing", "half a head"])
def test_a_client_that_never_sends_a_whole_head_is_let_go(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """Each connection costs a descriptor: without a bound, silence is the cheapest attack there is."""
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as raw:
        raw.sendall(sent)
        assert raw.recv(65536) == b""
