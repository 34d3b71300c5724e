"""The link to the supervisor: one SOCK_SEQPACKET connection at a time, which the supervisor makes.

Runs as: the gateway.
Reads from strangers: no. The supervisor holds more power than we do; its messages are parsed strictly all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from typing import Protocol

from runagentd.log import Log
from runagentd.wire import control as wire
from runagentd.wire.control import FromGateway, FromSupervisor
from runagentd.wire.record import RecordError

NEWCOMERS_MAX = 64
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
    """Listens, for this process may connect to nothing. One supervisor at a time: a new one takes the place of the old.

    `socket_` was bound by the foreman, and outlives us: what connects while no gateway runs waits there for the next.
    """

    def __init__(self, socket_: socket.socket, listener: Listener, log: Log) -> None:
        socket_.setblocking(False)
        self._listening = socket_
        self._listener = listener
        self._log = log
        self._socket: socket.socket | None = None
        self._newcomer: asyncio.Queue[socket.socket] = asyncio.Queue(NEWCOMERS_MAX)
        self._unsent: deque[bytes] = deque()
        self._over: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Serve whoever connects, until cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._listening, self._accept)
        try:
            while True:
                await self._serve(await self._newcomer.get())
                self._log.warning("the supervisor is away; calls wait for it")
        finally:
            loop.remove_reader(self._listening)
            self._listening.close()
            while not self._newcomer.empty():
                self._newcomer.get_nowait().close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except OSError:
            return
        # Root's directory has the socket in it, so nobody else can be here. If that should ever not hold: fail closed.
        if _peer_uid(connection) != 0 or self._newcomer.full():
            self._log.error("a stranger, or too many, on the supervisor's socket", uid=_peer_uid(connection))
            connection.close()
            return
        connection.setblocking(False)
        self._newcomer.put_nowait(connection)
        if self._socket is not None:
            self._end("")

    def send(self, message: FromGateway) -> None:
        """Send, or keep until the socket takes it; dropped while there is no connection: all is told anew then."""
        if self._socket is None:
            return
        self._unsent.append(wire.pack(message))
        if len(self._unsent) == 1:
            self._flush()
        elif len(self._unsent) > UNSENT_MAX:
            self._end("the supervisor does not read")

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


def _peer_uid(connection: socket.socket) -> int:
    """Who has connected, as the kernel says (unix(7), SO_PEERCRED)."""
    uid: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    return uid


def close_all(descriptors: list[int]) -> None:
    """Close descriptors that came and are not wanted."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
