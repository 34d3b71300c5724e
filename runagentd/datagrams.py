"""Messages that come over a SOCK_SEQPACKET pair between two daemons, one datagram each: read, checked, handed on.

Runs as: the gateway and the egress process.
Reads from strangers: yes, each side takes the other for captured. What is no message is logged, and the next one read.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from typing import TypeVar

from runagentd.log import Log
from runagentd.wire.record import RecordError

READ_MAX = 64
"""Messages in one turn of the loop: nobody else must wait for somebody who sends without end."""
COMPLAINT_SECONDS = 10.0
"""At least so long is between two lines of the log about what is no message: else the other end could fill the disk."""

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
    complained, wrong_ones = -COMPLAINT_SECONDS, 0

    def complain(problem: str) -> None:
        nonlocal complained, wrong_ones
        wrong_ones += 1
        if loop.time() - complained >= COMPLAINT_SECONDS:
            log.error(wrong, problem=problem, messages=wrong_ones)
            complained, wrong_ones = loop.time(), 0

    def readable() -> None:
        for _ in range(READ_MAX):
            try:
                data = connection.recv(bytes_max + 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = None
            if data is None or (not data and _is_over(connection)):
                loop.remove_reader(connection)
                return
            try:
                message = parse(data)
            except RecordError as error:
                complain(str(error))
                continue
            received(message)

    loop.add_reader(connection, readable)


def _is_over(connection: socket.socket) -> bool:
    """Whether a read of nothing was the end, and not a datagram of no bytes, which looks the same (unix(7))."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))
