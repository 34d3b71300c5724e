"""Answers made in the turn of their requests leave together at its end, each once, and nothing overtakes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

from aiohttp.web_protocol import RequestHandler

from runagentd.gateway.exchange import Exchange, Reply
from runagentd.gateway.guard.front import Front
from runagentd.gateway.outbox import Outbox
from runagentd.gateway.server import Server
from runagentd.wire.settings import Http

PLAIN = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


class Transport:
    """Remembers what was written, together with all others."""

    def __init__(self, name: str, written: list[tuple[str, bytes]]) -> None:
        self._name, self._written = name, written

    def write(self, data: bytes) -> None:
        self._written.append((self._name, data))


def test_answers_leave_in_order_when_the_turn_is_over() -> None:
    soon: list[Callable[[], None]] = []
    written: list[tuple[str, bytes]] = []
    a, b = Transport("a", written), Transport("b", written)
    outbox = Outbox(soon.append)
    turns = outbox.begin(), outbox.begin()
    outbox.put(a, b"1", turns[0])  # type: ignore[arg-type] # write is all that is used
    outbox.put(b, b"2", turns[1])  # type: ignore[arg-type]
    assert (len(soon), written) == (1, [])
    soon.pop()()
    assert written == [("a", b"1"), ("b", b"2")]
    outbox.put(a, b"3", outbox.begin())  # type: ignore[arg-type]
    assert written[2:] == []
    soon.pop()()
    assert written[2:] == [("a", b"3")]


def test_an_answer_that_was_waited_for_leaves_at_once() -> None:
    soon: list[Callable[[], None]] = []
    written: list[tuple[str, bytes]] = []
    outbox = Outbox(soon.append)
    early = outbox.begin()
    soon.pop()()
    outbox.put(Transport("b", written), b"2", outbox.begin())  # type: ignore[arg-type]
    outbox.put(Transport("a", written), b"1", early)  # type: ignore[arg-type]
    assert written == [("a", b"1")]


def test_the_64th_answer_waits_for_nobody() -> None:
    soon: list[Callable[[], None]] = []
    written: list[tuple[str, bytes]] = []
    outbox = Outbox(soon.append)
    for number in range(64):
        assert written == [], number
        outbox.put(Transport("a", written), b"%d" % number, outbox.begin())  # type: ignore[arg-type]
    assert [data for _, data in written] == [b"%d" % number for number in range(64)]


def test_a_flush_writes_each_answer_once() -> None:
    soon: list[Callable[[], None]] = []
    written: list[tuple[str, bytes]] = []
    outbox = Outbox(soon.append)
    outbox.put(Transport("a", written), b"1", outbox.begin())  # type: ignore[arg-type]
    outbox.flush()
    soon.pop()()
    assert written == [("a", b"1")]


class Gone:
    """As uvloop's of a connection that is gone."""

    def write(self, data: bytes) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")


def test_a_client_that_is_gone_costs_no_other_its_answer() -> None:
    soon: list[Callable[[], None]] = []
    written: list[tuple[str, bytes]] = []
    outbox = Outbox(soon.append)
    outbox.put(Gone(), b"1", outbox.begin())  # type: ignore[arg-type]
    outbox.put(Transport("a", written), b"2", outbox.begin())  # type: ignore[arg-type]
    soon.pop()()
    assert written == [("a", b"2")]


async def _answer(exchange: Exchange) -> Reply:
    return Reply(200, exchange.path.encode())


class _Fixture:
    """A connection whose transport says what it was told, in order."""

    def __init__(self, ssl_object: object = None) -> None:
        self.told: list[bytes] = []
        self.server = Server(_answer, front=lambda: Front(Http(), secure=False))
        self.connection: RequestHandler = self.server.protocol(lambda: None)
        self.transport = SimpleNamespace(
            write=lambda data: self.told.append(bytes(data).split(b"\r\n")[0] + b" " + bytes(data)[-2:]),
            writelines=lambda pieces: self.told.append(b"".join(pieces).split(b"\r\n")[0]),
            close=lambda: self.told.append(b"closed"),
            abort=lambda: self.told.append(b"aborted"),
            is_closing=lambda: False,
            get_extra_info=lambda name, default=None: ssl_object if name == "ssl_object" else default,
            get_write_buffer_size=lambda: 0,
            pause_reading=lambda: self.told.append(b"paused"),
            resume_reading=lambda: self.told.append(b"resumed"),
        )
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]


async def _until_made(fixture: _Fixture) -> None:
    """The answer to a request is made, and the turn of that is not over."""
    made = asyncio.Event()
    put = fixture.server.outbox.put

    def and_tell(transport: asyncio.WriteTransport, data: bytes, turn: int) -> None:
        put(transport, data, turn)
        made.set()

    fixture.server.outbox.put = and_tell  # type: ignore[method-assign]
    fixture.server.outbox._soon = lambda end_turn: None
    fixture.connection.data_received(PLAIN)
    await made.wait()


async def _answer_before_the_end() -> list[bytes]:
    fixture = _Fixture()
    await _until_made(fixture)
    await fixture.connection.shutdown(1.0)
    return fixture.told


def test_an_answer_that_was_made_is_sent_before_the_connection_is_closed() -> None:
    told = asyncio.run(_answer_before_the_end())
    assert told[0] == b"HTTP/1.1 200 OK /x"
    assert b"closed" in told[1:]


async def _answer_before_an_abort() -> list[bytes]:
    fixture = _Fixture()
    fixture.connection.data_received(
        PLAIN + b"GET / HTTP/1.1\r\n" + b"".join(b"%c: %s\r\n" % (letter, b"b" * 12_000) for letter in b"abc")
    )
    for _ in range(20):
        await asyncio.sleep(0)
    return fixture.told


def test_an_answer_that_was_made_is_sent_before_what_follows_it_ends_the_connection() -> None:
    """A head of 36 kB that has no end, of which 32 KiB are read."""
    told = asyncio.run(_answer_before_an_abort())
    assert told[:2] == [b"HTTP/1.1 200 OK /x", b"aborted"]


async def _answer_before_the_clients_end() -> list[bytes]:
    fixture = _Fixture()
    await _until_made(fixture)
    assert fixture.told == []
    fixture.connection.eof_received()
    return fixture.told


def test_a_client_that_closes_its_end_after_its_request_has_its_answer() -> None:
    """uvloop closes the connection when this returns, and drops what is written after that."""
    assert asyncio.run(_answer_before_the_clients_end()) == [b"HTTP/1.1 200 OK /x"]


async def _answer_over_tls() -> list[bytes]:
    fixture = _Fixture(SimpleNamespace(getpeercert=lambda binary: None))
    fixture.connection.data_received(PLAIN)
    while not fixture.told:
        await asyncio.sleep(0)
        assert fixture.server.outbox._pieces == []
    return fixture.told


def test_over_tls_an_answer_waits_for_nothing() -> None:
    """There the end of a client closes the connection before we hear of it."""
    assert asyncio.run(_answer_over_tls()) == [b"HTTP/1.1 200 OK /x"]


async def _pipelined(requests: int, more: bytes) -> tuple[int, int, list[bytes]]:
    """How many were answered when reading was paused, and when it went on; and what was told then."""
    fixture = _Fixture()
    fixture.connection.data_received(PLAIN)
    fixture.connection.data_received(PLAIN * requests + more)
    paused = len(fixture.told) - 1
    while b"resumed" not in fixture.told:  # noqa: ASYNC110  (a list, which tells nobody)
        await asyncio.sleep(0)
    return paused, fixture.told.index(b"resumed") - 1, fixture.told


def test_who_sends_ahead_is_read_on_when_most_of_it_is_answered() -> None:
    """2,000 requests of 49 bytes: what has come is held to 64 KiB again, and not to that for each answer."""
    paused, resumed, told = asyncio.run(_pipelined(2000, b""))
    assert (told[0], paused) == (b"paused", 0)
    assert 600 <= resumed <= 800
    assert told.count(b"resumed") == 1


def test_who_sends_ahead_what_aiohttp_answers_is_read_on_for_it() -> None:
    """Nobody else would have it read again."""
    many = b"GET /x HTTP/1.1\r\nHost: x\r\n" + b"".join(b"%c: %s\r\n" % (c, b"b" * 16_000) for c in b"abcde")
    _, resumed, told = asyncio.run(_pipelined(0, many))
    assert (told[0], resumed) == (b"paused", 0 if told[1] == b"resumed" else 1)
