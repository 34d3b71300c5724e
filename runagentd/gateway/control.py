"""The link to the supervisor: one SOCK_SEQPACKET connection, made again whenever it breaks.

Runs as: the gateway.
Reads from strangers: no. The supervisor holds more power than we do; its messages are parsed strictly all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from typing import Protocol

from runagentd.log import Log
from runagentd.wire import control as wire
from runagentd.wire.control import FromGateway, FromSupervisor
from runagentd.wire.record import RecordError

BACKOFF_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5)
"""Between attempts to connect; the last one for ever. The listening socket outlives the supervisor."""
UNSENT_MAX = 4096
DESCRIPTORS_MAX = 3


class Listener(Protocol):
    """Who acts on what the supervisor says."""

    def connected(self) -> None:
        """A new connection: everything will be announced again."""

    def received(self, message: FromSupervisor, descriptors: list[int]) -> None:
        """One message; the descriptors are the listener's from now on."""

    def disconnected(self) -> None:
        """The supervisor is away."""


class SupervisorLink:
    """Connects through a descriptor of the socket's file, so that no path is needed and none can be swapped."""

    def __init__(self, socket_file: int, listener: Listener, log: Log) -> None:
        self._address = f"/proc/self/fd/{socket_file}"
        self._listener = listener
        self._log = log
        self._socket: socket.socket | None = None
        self._unsent: deque[bytes] = deque()
        self._over: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Keep a connection up, until cancelled."""
        attempt = 0
        while True:
            connection = self._connect()
            if connection is None:
                await asyncio.sleep(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)])
                attempt += 1
                continue
            attempt = 0
            await self._serve(connection)
            self._log.warning("the supervisor is away; calls wait for it")

    def send(self, message: FromGateway) -> None:
        """Send, or keep until the socket takes it; dropped while there is no connection: all is told anew then."""
        if self._socket is None:
            return
        self._unsent.append(wire.pack(message))
        if len(self._unsent) == 1:
            self._flush()
        elif len(self._unsent) > UNSENT_MAX:
            self._end("the supervisor does not read")

    def _connect(self) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            connection.connect(self._address)
        except OSError:
            connection.close()
            return None
        return connection

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._socket = connection
        self._over = loop.create_future()
        self._unsent.clear()
        try:
            self.send(wire.Hello(version=wire.CONTROL_VERSION))
            self._listener.connected()
            loop.add_reader(connection, self._readable)
            await self._over
        finally:
            loop.remove_reader(connection)
            loop.remove_writer(connection)
            self._socket = None
            connection.close()
            self._listener.disconnected()

    def _readable(self) -> None:
        connection = self._socket
        if connection is None:
            return
        try:
            data, descriptors, flags, _ = socket.recv_fds(
                connection, wire.MESSAGE_BYTES_MAX + 1, DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(f"the control socket failed: {error.strerror}")
            return
        if not data:
            close_all(descriptors)
            self._end("")
            return
        try:
            if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
                raise RecordError("a message was cut short")
            message = wire.parse_from_supervisor(data)
        except RecordError as error:
            close_all(descriptors)
            self._end(f"the supervisor sent what is no message: {error}")
            return
        self._listener.received(message, descriptors)

    def _flush(self) -> None:
        connection = self._socket
        if connection is None:
            return
        loop = asyncio.get_running_loop()
        while self._unsent:
            try:
                connection.send(self._unsent[0])
            except (BlockingIOError, InterruptedError):
                loop.add_writer(connection, self._flush)
                return
            except OSError as error:
                self._end(f"the control socket failed: {error.strerror}")
                return
            self._unsent.popleft()
        loop.remove_writer(connection)

    def _end(self, reason: str) -> None:
        if reason:
            self._log.error(reason)
        if self._over is not None and not self._over.done():
            self._over.set_result(None)


def close_all(descriptors: list[int]) -> None:
    """Close descriptors that came and are not wanted."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
