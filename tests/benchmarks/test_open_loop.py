"""Open loop: what was due is timed from when it was due, and parsing of streams and refusals beside it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from benchmarks import answers, open_loop, peers, streams
from benchmarks.answers import Due
from benchmarks.open_loop import Schedule
from benchmarks.processes import BenchmarkError


def test_requests_are_due_evenly_whatever_happens() -> None:
    """Ten a second: one now, and the next in 0.1 s."""
    schedule = Schedule(per_second=10, seconds=1)
    assert schedule.total == 10
    assert (schedule.take(0.0), schedule.take(0.0)) == (0.0, None)
    assert schedule.wait(0.04) == pytest.approx(0.06)
    assert schedule.take(0.11) == pytest.approx(0.1)


def test_after_a_stall_everything_that_was_due_is_still_due() -> None:
    """No moment is left out (coordinated omission), and each keeps its own time."""
    schedule = Schedule(per_second=10, seconds=1)
    taken = []
    while (moment := schedule.take(0.55)) is not None:
        taken.append(moment)
    assert taken == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert schedule.wait(0.55) == pytest.approx(0.05)


def test_a_schedule_ends() -> None:
    """After its last moment nothing is due, however late it is."""
    schedule = Schedule(per_second=2, seconds=1)
    assert [schedule.take(9.0) for _ in range(3)] == [0.0, 0.5, None]
    assert schedule.wait(9.0) is None


class Server(asyncio.Protocol):
    """Answers each request; every fourth of all with an error."""

    answered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"}")):
            type(self).answered += 1
            status = b"503 no" if type(self).answered % 4 == 0 else b"200 OK"
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nok")


@pytest.fixture
def port() -> Iterator[int]:
    """A server in a thread of its own."""
    Server.answered = 0
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(Server, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield server.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    server.close()
    loop.run_until_complete(asyncio.sleep(0.001))
    loop.close()


def test_everything_that_was_due_is_sent_and_every_failure_counted(port: int) -> None:
    """With two connections, 40 requests in 0.04 s, of which every fourth is refused."""
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    found = open_loop.load(f"http://127.0.0.1:{port}/", request, connections=2, per_second=1000, seconds=0.04)
    assert (found["requests"], found["failures"]) == (40, 10)
    assert isinstance(found["p50_microseconds"], int) and found["p50_microseconds"] > 0


def test_a_latency_counts_from_when_the_request_was_due(port: int) -> None:
    """By a clock on which the whole of the time has passed before anything was sent, every answer is late."""
    times = iter([0.0])
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    found = open_loop.load(
        f"http://127.0.0.1:{port}/", request, connections=1, per_second=3, seconds=1, clock=lambda: next(times, 5.0)
    )  # fmt: skip
    # Due at 0, 1/3 and 2/3 s; all answered at 5 s.
    assert (found["requests"], found["failures"]) == (3, 0)
    assert (found["p50_microseconds"], found["most_microseconds"]) == (4_666_667, 5_000_000)


def test_open_loop_rows_are_beside_each_server_that_was_there() -> None:
    """Medians of the rounds' quantiles; one that did not start is named."""
    found = {
        (rate, name): [Due(p50=p50, p99=p50 * 4, most=p50 * 9) for _ in range(2)]
        for rate in (200, 1000, 2000)
        for name, p50 in (("runagentd", 2.0), ("aiohttp, bare", 1.0))
    }
    measured = answers.measured_open(found, {peers.FASTAPI: "not installed: no wheel"})
    rows = {(row.name, row.peer_name): row for row in measured.rows}
    assert len(rows) == 12
    late = rows["1,000 calls/s, p99 from when due", "aiohttp, bare"]
    assert (late.ours, late.peer, late.ratio) == (8.0, 4.0, 2.0)
    assert rows["200 calls/s, p50 from when due", peers.FASTAPI].note == "FastAPI on uvicorn: not installed: no wheel"


def test_a_spoiled_token_is_as_long_and_another_one() -> None:
    """Only its signature differs."""
    assert answers.spoiled("a.b.cccccccccccc") == "a.b.ccccAAAAAAAA"
    assert answers.spoiled("a.b.ccccAAAAAAAA") == "a.b.ccccBBBBBBBB"


def test_a_client_frame_is_masked_and_says_its_length() -> None:
    """RFC 6455, section 5.2: seven bits, or 126 and sixteen."""
    assert streams.frame(b"hi") == b"\x81\x82\0\0\0\0hi"
    assert streams.frame(b"x" * 200) == b"\x81\xfe\x00\xc8\0\0\0\0" + b"x" * 200


@pytest.mark.parametrize(
    "tail",
    [
        b"id: 1\nevent: chunk\ndata: 4321234567890\n\nid: 2\nevent: done\n",
        rb'{"type":"status","id":"12345678901234"}{"type":"data","content":"{\"payload\": \"4321234567890\"}"}',
        rb'{"content":"{\"type\":\"integer\",\"payload\":\"4321234567890\"}"}',
    ],
)
def test_the_stamp_of_a_chunk_is_found_in_both_protocols(tail: bytes) -> None:
    """And no id is taken for it."""
    assert streams._stamp(tail) == 4321234567890


def test_a_stream_without_a_stamp_ends_the_measurement() -> None:
    """Rather than a latency that was made up."""
    with pytest.raises(BenchmarkError, match="without the stamp"):
        streams._stamp(b"data: 12\n\n")
