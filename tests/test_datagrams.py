"""Messages between two daemons: whatever the other end sends, what it sends after that is heard."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import Awaitable, Callable

import pytest

from runagentd import datagrams
from runagentd.log import Form, Log
from runagentd.wire.record import RecordError


class Counting:
    """A socket that counts how often it is read."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.fileno = connection.fileno
        self.close = connection.close
        self.reads = 0

    def recv(self, size: int) -> bytes:
        self.reads += 1
        return self._connection.recv(size)


class Pair:
    """A listener and its other end."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self._said = io.StringIO()
        ours, self.other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.ours = Counting(ours)
        datagrams.listen(
            self.ours,  # type: ignore[arg-type] # it has all of a socket that is used
            parse=_parse,
            received=self.received.append,
            bytes_max=8,
            log=Log(self._said, source="x", form=Form.JSON),
            wrong="no message",
        )

    def lines(self) -> list[tuple[str, int]]:
        """What was complained of, and how many messages each time."""
        return [(line["problem"], line["messages"]) for line in map(json.loads, self._said.getvalue().splitlines())]

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not happened():  # noqa: ASYNC110  (what a socket has brought, which tells nobody)
                await asyncio.sleep(0.001)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.ours)
        self.ours.close()
        self.other.close()


def _parse(data: bytes) -> bytes:
    if not data.startswith(b"m"):
        raise RecordError(f"not {data!r}")
    return data


def run(test: Callable[[Pair], Awaitable[None]]) -> None:
    async def main() -> None:
        pair = Pair()
        try:
            await test(pair)
        finally:
            pair.close()

    asyncio.run(main())


@pytest.mark.parametrize("wrong", [b"", b"x", b"x" * 9])
def test_what_is_no_message_is_told_and_the_next_one_is_heard(wrong: bytes) -> None:
    """A datagram of no bytes looks like the end to read(2), and is none."""

    async def test(pair: Pair) -> None:
        pair.other.send(wrong)
        pair.other.send(b"m1")
        await pair.until(lambda: pair.received == [b"m1"])
        assert pair.lines() == [(f"not {wrong!r}", 1)]

    run(test)


def test_a_flood_of_what_is_no_message_is_a_line_in_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other end may be captured, and the disk is everybody's."""

    async def test(pair: Pair) -> None:
        for number in range(100):
            pair.other.send(b"x")
            if number % 10 == 9:
                await asyncio.sleep(0)
        pair.other.send(b"m1")
        await pair.until(lambda: pair.received == [b"m1"])
        assert pair.lines() == [("not b'x'", 1)]
        monkeypatch.setattr(datagrams, "COMPLAINT_SECONDS", 0.0)
        pair.other.send(b"y")
        pair.other.send(b"m2")
        await pair.until(lambda: pair.received == [b"m1", b"m2"])
        assert pair.lines() == [("not b'x'", 1), ("not b'y'", 100)]

    run(test)


def test_at_its_end_nobody_listens_any_more() -> None:
    async def test(pair: Pair) -> None:
        pair.other.send(b"m1")
        pair.other.close()
        await pair.until(lambda: pair.ours.reads == 2)
        for _ in range(20):
            await asyncio.sleep(0)
        assert (pair.received, pair.lines(), pair.ours.reads) == ([b"m1"], [], 2)

    run(test)
