"""The link to the egress process: key sets come in, requests for them go out.

Runs as: the gateway.
Reads from strangers: an egress process that may be captured; `wire.issuers` checks the form of what it says.
The pair of sockets is the foreman's: while no egress process runs, what is sent waits, or is dropped when there is no
room, and a new one tells all it knows by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from runagentd.log import Log
from runagentd.wire import issuers
from runagentd.wire.record import RecordError

_READ_MAX = 64
"""Messages in one turn of the loop: calls must not wait for keys that somebody sends without end."""


class EgressLink:
    """`received` is called with each key set."""

    def __init__(self, connection: socket.socket, received: Callable[[issuers.KeySet], None], log: Log) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._received = received
        self._log = log

    def start(self) -> None:
        """Listen, and ask for all there is."""
        asyncio.get_running_loop().add_reader(self._socket, self._readable)
        self.send(issuers.Greeting())

    def send(self, message: issuers.FromGateway) -> None:
        """Dropped where there is no room: nobody has read the requests before either."""
        with contextlib.suppress(OSError):
            self._socket.send(issuers.pack(message))

    def _readable(self) -> None:
        for _ in range(_READ_MAX):
            try:
                data = self._socket.recv(issuers.MESSAGE_BYTES_MAX + 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                asyncio.get_running_loop().remove_reader(self._socket)
                return
            try:
                message = issuers.parse_from_egress(data)
            except RecordError as error:
                self._log.error("the egress process sent what is no key set", problem=str(error))
                continue
            self._received(message)
