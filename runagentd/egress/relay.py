"""Lead a builder's connections to the package index: bytes there and back, and not one of them is looked at.

Runs as: the egress process.
Reads from strangers: bytes of builders and of servers, passed on. Where a connection leads is decided by the socket it
came in on, which the supervisor has made for one host of the configuration; nothing that comes over it has a say.
So there is no protocol to get wrong, TLS is between the two ends, and a host that is not configured has no socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections.abc import Callable, Sequence

from runagentd.log import Log
from runagentd.wire import packages, record
from runagentd.wire.packages import Target

CONNECTIONS_MAX = 128
"""Of one builder at a time; uv opens 50."""
BYTES_MAX = 64 * 1024**3
"""Of one builder, both ways: no environment may be larger."""
IDLE_SECONDS = 120.0
CONNECT_SECONDS = 15.0
RELAYS_MAX = 8
_PIECE = 256 * 1024


class Relays:
    """Takes orders on `link`, which is the supervisor's. `allowed` gives the hosts of the configuration."""

    def __init__(self, link: socket.socket, allowed: Callable[[], Sequence[Target]], log: Log) -> None:
        link.setblocking(False)
        self._link = link
        self._allowed = allowed
        self._log = log
        self._running: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Read from now on."""
        asyncio.get_running_loop().add_reader(self._link, self._readable)

    def _readable(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._link, packages.MESSAGE_BYTES_MAX + 1, packages.TARGETS_MAX + 1, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            asyncio.get_running_loop().remove_reader(self._link)
            return
        listeners: list[socket.socket] = []
        try:
            targets = self._checked(data, len(descriptors))
            for descriptor in descriptors[1:]:
                listeners.append(socket.socket(fileno=descriptor))  # OSError for what is no socket
        except (record.RecordError, OSError) as error:
            self._log.error("connections of a builder are led nowhere", problem=str(error))
            for listener in listeners:
                listener.detach()
            for descriptor in descriptors:
                os.close(descriptor)
            return
        task = asyncio.create_task(_Relay(self._log).run(targets, listeners, descriptors[0]))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _checked(self, data: bytes, descriptors: int) -> tuple[Target, ...]:
        """RecordError for an order that the configuration does not cover."""
        targets = packages.parse(data).targets
        foreign = [target.host for target in targets if target not in self._allowed()]
        if foreign:
            raise record.RecordError(f"{foreign[0]!r:.200} is not in the configuration")
        if descriptors != len(targets) + 1:
            raise record.RecordError("not a socket for each host")
        if len(self._running) >= RELAYS_MAX:
            raise record.RecordError("there are too many builders")
        return targets


class _Relay:
    """The connections of one builder."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._left = BYTES_MAX
        self._open: set[asyncio.Task[None]] = set()
        self._unreached: set[Target] = set()
        """of which was told"""

    async def run(self, targets: Sequence[Target], listeners: Sequence[socket.socket], lifeline: int) -> None:
        """Until nobody holds the other end of `lifeline`; its descriptors are closed then."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        loop.add_reader(lifeline, over.set)
        accepting = [
            asyncio.create_task(self._accept(target, listener)) for target, listener in zip(targets, listeners)
        ]
        try:
            await over.wait()
        finally:
            loop.remove_reader(lifeline)
            os.close(lifeline)
            for task in (*accepting, *self._open):
                task.cancel()
            await asyncio.gather(*accepting, *self._open, return_exceptions=True)
            for listener in listeners:
                listener.close()

    async def _accept(self, target: Target, listener: socket.socket) -> None:
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                self._log.error("a connection of a builder cannot be taken", problem=error.strerror)
                await asyncio.sleep(1)
                continue
            if len(self._open) >= CONNECTIONS_MAX:
                connection.close()
                continue
            task = asyncio.create_task(self._serve(target, connection))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _serve(self, target: Target, connection: socket.socket) -> None:
        writers: list[asyncio.StreamWriter] = []
        try:
            near, near_writer = await asyncio.open_connection(sock=connection)
            writers.append(near_writer)
            async with asyncio.timeout(CONNECT_SECONDS):
                far, far_writer = await _connect(target)
            writers.append(far_writer)
        except (OSError, TimeoutError, UnicodeError) as error:
            if target not in self._unreached:
                self._unreached.add(target)
                reason = str(error) or "timed out"
                self._log.warning("a package host cannot be reached", host=target.host, port=target.port, reason=reason)
        else:
            # What goes wrong from here on, each end is told by the end of its connection.
            with contextlib.suppress(OSError, TimeoutError, ExceptionGroup):
                async with asyncio.timeout(IDLE_SECONDS) as idle, asyncio.TaskGroup() as both:
                    both.create_task(self._pass_on(near, far_writer, idle))
                    both.create_task(self._pass_on(far, near_writer, idle))
        finally:
            for writer in writers:
                writer.transport.abort()
            connection.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: asyncio.Timeout) -> None:
        loop = asyncio.get_running_loop()
        while piece := await reader.read(_PIECE):
            self._left -= len(piece)
            if self._left < 0:
                raise OSError("more bytes than any environment may have")
            writer.write(piece)
            await writer.drain()
            idle.reschedule(loop.time() + IDLE_SECONDS)
        with contextlib.suppress(OSError):
            writer.write_eof()


async def _connect(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """OSError where there is no address, or none that may be connected to."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    problem = OSError("it has no address that may be connected to")
    for _, _, _, _, address in found:
        if not _is_allowed(target.host, str(address[0])):
            continue
        try:
            return await asyncio.open_connection(str(address[0]), target.port)
        except OSError as error:
            problem = error
    raise problem


def _is_allowed(host: str, address: str) -> bool:
    """Whoever answers for a name must not lead a builder to services of this machine, or to a cloud's metadata.

    An address that the operator wrote, or "localhost", is what they want.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or found
    own = mapped.is_loopback or mapped.is_link_local or mapped.is_unspecified or mapped.is_multicast
    return not own or host == "localhost" or host == address
