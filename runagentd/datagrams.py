"""Messages that come over a SOCK_SEQPACKET pair between two daemons, one datagram each: read, checked, handed on.

Runs as: the gateway and the egress process.
Reads from strangers: yes, each side takes the other for captured. What is no message is logged, and the next one read.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TypeVar

from runagentd.log import Log
from runagentd.wire.record import RecordError

READ_MAX = 64
"""Messages in one turn of the loop: nobody else must wait for somebody who sends without end."""

M = TypeVar("M")


def listen(
    connection: socket.socket,
    *,
    parse: Callable[[bytes], M],
    received: Callable[[M], None],
    bytes_max: int,
    log: Log,
    wrong: str,
) -> None:
    """Call `received` with each message from now on, until the other end is gone. The connection must not block.

    `parse` raises RecordError for what is none, of which `wrong` is said in the log.
    """
    loop = asyncio.get_running_loop()

    def readable() -> None:
        for _ in range(READ_MAX):
            try:
                data = connection.recv(bytes_max + 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                loop.remove_reader(connection)
                return
            try:
                message = parse(data)
            except RecordError as error:
                log.error(wrong, problem=str(error))
                continue
            received(message)

    loop.add_reader(connection, readable)
