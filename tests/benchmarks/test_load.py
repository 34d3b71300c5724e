"""What a load generator said, and the generator of our own."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from benchmarks import client, load
from benchmarks.processes import BenchmarkError

SAID = (
    "Running 4s test @ http://127.0.0.1:1/echo\n  1 threads and 16 connections\n\n"
    '{"requests":4000,"microseconds":2000000,"p50_microseconds":110,"p99_microseconds":950,"refused":0,"failures":0}\n'
)


def test_the_last_line_of_a_generator_is_its_figures() -> None:
    """What wrk prints for people before it is passed over."""
    found = load.parse(SAID, "x")
    assert found == load.Load(requests=4000, seconds=2.0, p50_seconds=0.00011, p99_seconds=0.00095)
    assert found.per_second == 2000.0


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("", "the load generator's last line cannot be read: ''"),
        ("unable to connect", "the load generator's last line cannot be read: 'unable to connect'"),
        (SAID.replace('"failures":0', '"failures":7'), "echo: 7 of 4000 requests failed under load"),
        (SAID.replace('"requests":4000', '"requests":0'), "echo: not one request was answered under load"),
    ],
)
def test_a_round_in_which_anything_failed_is_no_figure(said: str, message: str) -> None:
    """A refusal is answered faster than a call."""
    with pytest.raises(BenchmarkError) as caught:
        load.parse(said, "echo")
    assert str(caught.value) == message


def test_where_refusals_are_measured_every_answer_has_to_be_one() -> None:
    """A server that lets a call through is not measured as one that refuses it; and the other way round."""
    refusals = SAID.replace('"refused":0', '"refused":4000')
    assert load.parse(refusals, "x", refused=True).requests == 4000
    with pytest.raises(BenchmarkError, match="x: 4000 of 4000 requests failed under load"):
        load.parse(refusals, "x")
    with pytest.raises(BenchmarkError, match="x: 1 of 4000 requests failed under load"):
        load.parse(SAID.replace('"refused":0', '"refused":3999'), "x", refused=True)


def test_the_request_carries_the_token_only_where_there_is_one() -> None:
    """As load.lua does it."""
    assert client.request_bytes("http://127.0.0.1:80/echo", "") == (
        b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1:80\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n"
        b'{"text":"hello"}'
    )
    assert b"\r\nAuthorization: Bearer abc\r\n\r\n" in client.request_bytes("http://127.0.0.1:80/echo", "abc")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", None),
        (b'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n""', 40),
        (b'HTTP/1.1 200 OK\r\nContent-Length:2\r\nX: y\r\n\r\n""HTTP', 45),
    ],
)
def test_an_answer_is_as_long_as_its_head_says(data: bytes, expected: int | None) -> None:
    """Or not known yet."""
    assert client.answer_bytes(data) == expected


def test_an_answer_without_a_length_ends_the_measurement() -> None:
    """Where it ends could only be guessed."""
    with pytest.raises(ValueError, match="without Content-Length"):
        client.answer_bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


class Server(asyncio.Protocol):
    """Answers each third request of a connection with an error."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.answered = 0
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for _ in range(data.count(b"}")):
            self.answered += 1
            status = b"500 no" if self.answered % 3 == 0 else b"200 OK"
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nok")


def test_our_own_generator_counts_answers_and_refusals() -> None:
    """On two connections, each in a closed loop."""

    async def measured() -> dict[str, int]:
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            found = await client.load(f"http://127.0.0.1:{port}/echo", "", connections=2, seconds=0.05)
            await asyncio.sleep(0.01)  # until both ends have let go of their connections
        return found

    found = asyncio.run(measured())
    assert found["requests"] > 10
    assert abs(found["refused"] - found["requests"] / 3) <= 2
    assert found["failures"] == 0
    assert found["microseconds"] >= 50_000
    assert 0 < found["p50_microseconds"] <= found["p99_microseconds"]
