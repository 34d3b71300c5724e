"""Every request of the corpus, sent to a gateway on a real socket, as the first of its connection and as another."""

from __future__ import annotations

import time
from collections.abc import Iterator

import h11
import pytest

from runagentd import apikeys
from runagentd.wire.trust import ApiKey, ApiKeySecret
from tests import fakes_gateway
from tests.hostile.raw import MANY, PROBE, Client, Front, Recorder
from tests.hostile.requests import (
    CALL,
    CLOSED,
    HIDDEN,
    INVOKE,
    KEPT,
    KEY,
    KEY_ID,
    ROWS,
    SEEN,
    WAITS,
    Row,
    chunked,
    post,
)

INSIDES = ("aiohttp", "llhttp", "traceback", ".py", "expected", "invalid", "duplicate", "b'")


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "workers"])
def front(request: pytest.FixtureRequest) -> Iterator[Front]:
    for gateway in fakes_gateway.running(workers=request.param):
        key = ApiKey(
            id=KEY_ID, subject="alice", tenant=None, scopes=("agents:invoke:*/*",), created=int(time.time()),
            expires=0, addresses=(), secrets=(ApiKeySecret(digest=apikeys.digest(KEY), until=0),),
        )  # fmt: skip
        gateway.store.add_api_key(key, "test")
        gateway.spread()
        yield Front(gateway, Recorder(gateway.ready(limits=MANY)))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name[:60])
@pytest.mark.parametrize("later", [False, True], ids=["first", "later"])
def test_it_gets_the_answer_that_it_has_to_get(front: Front, row: Row, later: bool) -> None:
    """So many answers with these statuses, and the connection kept or closed; the agent sees what was meant for it.

    A first request may be read by `plain`, a later one is aiohttp's business.
    """
    expected = row.later if later and row.later is not None else row.statuses
    calls = [CALL] * (row.calls if expected is row.statuses else 0)
    log_lines = len(front.gateway.log_lines)
    with Client(front.gateway.port) as client:
        if later:
            client.send(PROBE)
            assert client.answer() is not None
        client.send(row.data)
        answers = [client.answer() for _ in expected]
        if row.end == KEPT:
            client.send(PROBE)
            answer = client.answer()
            assert answer is not None
            assert answer.body == b'{"status":"ok"}'
        elif row.end == WAITS:
            client.half_close()
        if row.end in (CLOSED, WAITS):
            assert client.answer() is None
    assert [answer and answer.status for answer in answers] == expected
    for answer in answers:
        assert answer is not None
        assert [word for word in INSIDES if word in answer.body.decode().lower()] == []
        assert answer.fields["cache-control"] == "no-store"
        assert (answer.fields.get("connection") == "close") is (row.end == CLOSED and answer is answers[-1])
    assert front.recorder.taken() == calls
    assert [line for line in front.gateway.log_lines[log_lines:] if '"level":"error"' in line] == []


def test_a_stream_that_was_asked_for_in_chunks_is_the_last_of_its_connection(front: Front) -> None:
    """Like any other answer to such a request."""
    with Client(front.gateway.port) as client:
        client.send(chunked(b"Transfer-Encoding: chunked\r\nAccept: text/event-stream") + HIDDEN)
        received = client.all()
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b'event: done\ndata: {"chunks":1}\n\n\r\n0\r\n\r\n')
    assert front.recorder.taken() == [CALL]


def test_the_gateway_is_none_the_worse_for_it(front: Front) -> None:
    """After all of the above: a good call is answered."""
    with Client(front.gateway.port) as client:
        client.send(post())
        answer = client.answer()
    assert (answer and answer.status, answer and answer.body) == (200, b"1")
    assert front.recorder.taken() == [CALL]


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.statuses != [400] and not row.differs], ids=lambda row: row.name[:60]
)
def test_what_is_answered_a_strict_reader_reads_in_the_same_way(row: Row) -> None:
    """h11 finds as many requests in it as we answer, and the same calls of the agent."""
    found = strictly_read(row.data)
    good = [status for status in row.statuses if status != 400]
    assert len(found) >= len(good)
    if row.end != CLOSED:
        assert len(found) == len(row.statuses)
    if 401 not in row.statuses and 415 not in row.statuses:
        assert [target for _, target, body in found if body == SEEN] == [INVOKE] * row.calls


def strictly_read(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """(method, target, body) of every whole request that h11 finds."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    found: list[tuple[bytes, bytes, bytes]] = []
    head, body = (b"", b""), b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return found
        match event:
            case h11.Request():
                head, body = (event.method, event.target), b""
            case h11.Data():
                body += event.data
            case h11.EndOfMessage():
                found.append((*head, body))
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return found
                connection.start_next_cycle()
            case _:
                return found
