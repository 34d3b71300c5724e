"""The supervisor's end of the gateway socket: one gateway at a time, names only.

Runs as: the supervisor.
Reads from strangers: yes. The gateway may be captured: a datagram that is not exactly one message of wire.control
ends the link, and the messages can name instances but never define anything.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from runagentd import kernel
from runagentd.log import Log
from runagentd.wire import control
from runagentd.wire.record import RecordError

_WAITING_MAX = 4096


class GatewayLink:
    """One connection of one gateway. `on_message` and `on_end` are called in the loop; `on_end` once."""

    def __init__(
        self,
        connection: socket.socket,
        *,
        on_message: Callable[[GatewayLink, control.FromGateway], None],
        on_end: Callable[[GatewayLink], None],
        log: Log,
    ) -> None:
        self._log = log
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, kernel.SO_SNDBUFFORCE, 4 * control.MESSAGE_BYTES_MAX)
        self._socket = connection
        self._on_message = on_message
        self._on_end = on_end
        self._waiting: deque[tuple[bytes, list[int]]] = deque()
        self._closed = False
        asyncio.get_running_loop().add_reader(connection, self._receive)

    def send(self, message: control.FromSupervisor, descriptors: Sequence[int] = ()) -> None:
        """Queue a message; duplicates of `descriptors` travel with it, the originals stay the caller's."""
        if self._closed:
            return
        if len(self._waiting) >= _WAITING_MAX:
            self._log.error("the gateway does not read: closing its connection")
            self.close()
            return
        self._waiting.append((control.pack(message), [os.dup(descriptor) for descriptor in descriptors]))
        self._flush()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        loop.remove_writer(self._socket)
        self._socket.close()
        for _, descriptors in self._waiting:
            _close_all(descriptors)
        self._waiting.clear()
        self._on_end(self)

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            data, descriptors = self._waiting[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
            try:
                self._socket.sendmsg([data], rights)
            except BlockingIOError:
                loop.add_writer(self._socket, self._flush)
                return
            except OSError:
                self.close()
                return
            _close_all(descriptors)
            self._waiting.popleft()
        loop.remove_writer(self._socket)

    def _receive(self) -> None:
        try:
            # recv(2), not recvmsg(2): descriptors that a captured gateway sends along are dropped by the kernel.
            data = self._socket.recv(control.MESSAGE_BYTES_MAX + 1)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        try:
            message = control.parse_from_gateway(data)
        except RecordError as error:
            self._log.error("the gateway broke the protocol: closing its connection", reason=error)
            self.close()
            return
        self._on_message(self, message)


def connect(path: Path) -> socket.socket | None:
    """A connection to the socket on which the gateway listens; None where that is not possible now.

    The path lies in a directory that only root can enter, and the foreman bound it: who listens need not be asked.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return None
    return connection


def peer_uid(connection: socket.socket) -> int:
    """Who is at the other end, as the kernel says (unix(7), SO_PEERCRED)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
