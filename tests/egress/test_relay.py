"""Connections of a builder lead where the configuration says, whatever is said over them, and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from runagentd.egress import relay
from runagentd.egress.relay import Relays
from runagentd.log import Form, Log
from runagentd.wire import packages
from runagentd.wire.packages import Target

LOG = Log(sys.stderr, source="test", form=Form.TEXT)


class Supervisor:
    """The other end, which orders relays."""

    def __init__(self, allowed: Sequence[Target]) -> None:
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.theirs = theirs
        self.lifelines: list[int] = []
        Relays(theirs, lambda: allowed, LOG).start()

    def order(self, *targets: Target, listeners: int | None = None) -> list[socket.socket]:
        """Listening sockets that lead to `targets`, or are to."""
        made = [socket.create_server(("127.0.0.1", 0)) for _ in range(len(targets) if listeners is None else listeners)]
        reading, writing = os.pipe()
        self.lifelines.append(writing)
        socket.send_fds(
            self.link, [packages.pack(packages.Relay(targets=targets))], [reading, *(each.fileno() for each in made)]
        )
        os.close(reading)
        return made

    def end(self) -> None:
        """The builder is over."""
        for descriptor in self.lifelines:
            os.close(descriptor)
        self.lifelines = []


@contextlib.asynccontextmanager
async def upstream() -> AsyncIterator[int]:
    """A server that says hello, and then repeats what it hears; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello ")
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@contextlib.asynccontextmanager
async def ordering(*allowed: Target) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(allowed)
    try:
        yield supervisor
    finally:
        supervisor.end()
        await asyncio.sleep(0)
        supervisor.link.close()
        await until(lambda: not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()])
        asyncio.get_running_loop().remove_reader(supervisor.theirs)
        supervisor.theirs.close()


@contextlib.asynccontextmanager
async def relayed() -> AsyncIterator[tuple[Supervisor, Target]]:
    """A supervisor that may have connections led to one server."""
    async with upstream() as port:
        target = Target(host="127.0.0.1", port=port)
        async with ordering(target) as supervisor:
            yield supervisor, target


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not done():  # noqa: ASYNC110  (tasks of the relay's own, which tell nobody when they end)
            await asyncio.sleep(0.005)


async def said(listener: socket.socket, words: bytes) -> bytes:
    """What comes back for `words`, up to the end."""
    return await said_at(listener.getsockname(), words)


async def said_at(address: tuple[str, int], words: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(words)
        writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    except OSError:
        return b""
    finally:
        writer.close()


def test_bytes_go_there_and_back_whatever_they_are() -> None:
    async def main() -> None:
        async with relayed() as (supervisor, target):
            (listener,) = supervisor.order(target)
            with listener:
                words = b"CONNECT 192.0.2.1:22 HTTP/1.1\r\n\r\n" + bytes(range(256)) * 8192
                assert await said(listener, words) == b"hello " + words

    asyncio.run(main())


def test_each_socket_leads_to_its_own_host() -> None:
    async def main() -> None:
        async with upstream() as one, upstream() as other:
            targets = Target(host="127.0.0.1", port=one), Target(host="localhost", port=other)
            async with ordering(*targets) as supervisor:
                for listener in supervisor.order(*targets):
                    with listener:
                        assert await said(listener, b"you") == b"hello you"

    asyncio.run(main())


@pytest.mark.parametrize(
    "wanted",
    [Target(host="127.0.0.1", port=1), Target(host="localhost", port=0), Target(host="169.254.169.254", port=80)],
)
def test_a_host_that_is_not_configured_is_led_nowhere(wanted: Target) -> None:
    """The supervisor is believed in nothing that the configuration does not say."""

    async def main() -> None:
        async with relayed() as (supervisor, allowed):
            listeners = supervisor.order(allowed, wanted)
            await asyncio.sleep(0.05)
            for listener in listeners:
                address = listener.getsockname()
                listener.close()  # nobody else holds it, so nobody answers
                with pytest.raises(ConnectionRefusedError):
                    await said_at(address, b"you")

    asyncio.run(main())


def test_an_order_without_a_socket_for_each_host_is_none() -> None:
    async def main() -> None:
        async with relayed() as (supervisor, target):
            assert supervisor.order(target, listeners=0) == []
            supervisor.link.send(b"nonsense")
            (listener,) = supervisor.order(target)
            with listener:
                assert await said(listener, b"you") == b"hello you"

    asyncio.run(main())


def test_with_the_builder_its_connections_end() -> None:
    async def main() -> None:
        async with relayed() as (supervisor, target):
            (listener,) = supervisor.order(target)
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            assert await reader.readexactly(6) == b"hello "
            listener.close()
            supervisor.end()
            async with asyncio.timeout(10):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
            writer.close()

    asyncio.run(main())


def test_a_silent_connection_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "IDLE_SECONDS", 0.05)

    async def main() -> None:
        async with relayed() as (supervisor, target):
            (listener,) = supervisor.order(target)
            with listener:
                reader, writer = await asyncio.open_connection(*listener.getsockname())
                async with asyncio.timeout(10):
                    with contextlib.suppress(ConnectionError):
                        assert await reader.read() == b"hello "
                writer.close()

    asyncio.run(main())


def test_bytes_are_counted_over_all_connections_of_a_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "BYTES_MAX", 100)

    async def main() -> None:
        async with relayed() as (supervisor, target):
            (listener,) = supervisor.order(target)
            with listener:
                assert await said(listener, b"x" * 30) == b"hello " + b"x" * 30
                assert await said(listener, b"x" * 30) != b"hello " + b"x" * 30
            (listener,) = supervisor.order(target)
            with listener:
                assert await said(listener, b"x" * 30) == b"hello " + b"x" * 30

    asyncio.run(main())


def test_more_connections_than_there_may_be_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "CONNECTIONS_MAX", 1)

    async def main() -> None:
        async with relayed() as (supervisor, target):
            (listener,) = supervisor.order(target)
            with listener:
                reader, writer = await asyncio.open_connection(*listener.getsockname())
                assert await reader.readexactly(6) == b"hello "
                assert await said(listener, b"you") == b""
                writer.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("host", "address", "allowed"),
    [
        ("packages.example.com", "192.0.2.1", True),
        ("packages.example.com", "10.1.2.3", True),
        ("packages.example.com", "2001:db8::1", True),
        ("packages.example.com", "127.0.0.1", False),
        ("packages.example.com", "::1", False),
        ("packages.example.com", "::ffff:127.0.0.1", False),
        ("packages.example.com", "169.254.169.254", False),
        ("packages.example.com", "fe80::1%eth0", False),
        ("packages.example.com", "0.0.0.0", False),
        ("packages.example.com", "224.0.0.1", False),
        ("localhost", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("169.254.1.1", "169.254.1.1", True),
    ],
)
def test_a_name_never_leads_to_services_of_this_machine(host: str, address: str, allowed: bool) -> None:
    """Whoever answers for a name in the DNS is not the operator."""
    assert relay._is_allowed(host, address) is allowed
