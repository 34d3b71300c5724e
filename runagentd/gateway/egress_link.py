"""The link to the egress process: key sets come in, requests for them go out.

Runs as: the gateway.
Reads from strangers: an egress process that may be captured; `wire.issuers` checks the form of what it says.
The pair of sockets is the foreman's: while no egress process runs, what is sent waits, or is dropped when there is no
room, and a new one tells all it knows by itself.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from runagentd import datagrams
from runagentd.log import Log
from runagentd.wire import issuers


class EgressLink:
    """`received` is called with each key set."""

    def __init__(self, connection: socket.socket, received: Callable[[issuers.KeySet], None], log: Log) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._received = received
        self._log = log

    def start(self) -> None:
        """Listen, and ask for all there is."""
        datagrams.listen(
            self._socket,
            parse=issuers.parse_from_egress,
            received=self._received,
            bytes_max=issuers.MESSAGE_BYTES_MAX,
            log=self._log,
            wrong="the egress process sent what is no key set",
        )
        self.send(issuers.Greeting())

    def send(self, message: issuers.FromGateway) -> None:
        """Dropped where there is no room: nobody has read the requests before either."""
        with contextlib.suppress(OSError):
            self._socket.send(issuers.pack(message))
