"""Clients that send something now and then, for ever: each part of a request has one deadline, however it comes."""

from __future__ import annotations

import time

import pytest

from runagentd.gateway import exchanges, server
from tests.fakes_gateway import Gateway
from tests.hostile.raw import PROBE, Client
from tests.hostile.requests import INVOKE

PAUSE = 0.02
SECONDS = 0.3
PATIENCE = 5.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", SECONDS)
    monkeypatch.setattr(server, "LINGER_SECONDS", SECONDS)
    monkeypatch.setattr(exchanges, "BODY_SECONDS", SECONDS)


def dribbled(client: Client, piece: bytes) -> float:
    """Send a piece now and then until the other side has had enough; how long that took."""
    began = time.monotonic()
    client.socket.settimeout(PAUSE)
    while time.monotonic() - began < PATIENCE:
        try:
            client.socket.sendall(piece)
            data = client.socket.recv(65536)
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            break
        client.received += data
        if not data:
            break
    return time.monotonic() - began


def head(gateway: Gateway, *fields: str, line: str = "") -> bytes:
    lines = [line or f"POST {INVOKE.decode()} HTTP/1.1", "Host: x", f"Authorization: Bearer {gateway.token()}"]
    return "\r\n".join([*lines, *fields, "", ""]).encode()


@pytest.mark.slow
@pytest.mark.parametrize("before", [b"", PROBE], ids=["first", "later"])
@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b"\r\n"),
        (b"GET /", b"a"),
        (b"POST / HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n"),
        (b"GET / HTTP/1.1\r\nX: ", b"b"),
    ],
    ids=["empty lines", "a target", "fields", "a value"],
)
def test_a_head_has_one_deadline(gateway: Gateway, before: bytes, start: bytes, piece: bytes) -> None:
    """That of an idle connection: what comes of a head does not begin it anew."""
    with Client(gateway.port) as client:
        if before:
            client.send(before)
            assert client.answer() is not None
        client.send(start)
        assert dribbled(client, piece) < PATIENCE
        answer = client.answer()
    assert answer is None or answer.status == 400  # more fields than there may be come sooner


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "start", "piece"),
    [
        ("Content-Length: 1000000", b"", b" "),
        ("Transfer-Encoding: chunked", b"", b"1\r\n \r\n"),
        ("Transfer-Encoding: chunked", b"1;", b"a"),
        ("Transfer-Encoding: chunked", b"2\r\n{}\r\n0\r\nX-A: ", b"b"),
        ("Transfer-Encoding: chunked", b"", b"0"),
    ],
    ids=["a length", "chunks", "an extension", "a trailer", "a size"],
)
def test_a_body_has_one_deadline(gateway: Gateway, field: str, start: bytes, piece: bytes) -> None:
    """408, and the end of the connection; no runner hears of it."""
    runner = gateway.ready()
    with Client(gateway.port) as client:
        client.send(head(gateway, field) + start)
        assert dribbled(client, piece) < PATIENCE
        answer = client.answer()
        assert answer is not None
        assert answer.status == 408
        assert client.answer() is None
    runner.socket.settimeout(0.05)
    with pytest.raises(TimeoutError):
        runner.receive()


@pytest.mark.slow
@pytest.mark.parametrize("line", ["GET /livez HTTP/1.1", "POST /nothing HTTP/1.1", "DELETE /v1/agents HTTP/1.1"])
def test_a_body_that_nobody_reads_is_waited_for_only_so_long(gateway: Gateway, line: str) -> None:
    """The answer is there at once; the rest of the request is thrown away, for a while."""
    with Client(gateway.port) as client:
        client.send(head(gateway, "Content-Length: 1000000", line=line))
        answer = client.answer()
        assert answer is not None
        assert answer.status in (200, 404, 405)
        assert dribbled(client, b" ") < PATIENCE
