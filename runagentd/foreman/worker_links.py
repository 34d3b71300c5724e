"""The links between the gateway and its workers: a fresh pair of sockets whenever one of the two starts.

Runs as: the foreman (root).
Reads from strangers: nothing.

None of the three can make a socket once it is confined, and a pair that outlives one of its ends would have half a
message of its in it. So the foreman makes a pair for each time that two of them meet, and sends the ends over links of
their own (SOCK_SEQPACKET), which are fresh for each process, too.
"""

from __future__ import annotations

import contextlib
import socket


class WorkerLinks:
    """Who is to be told of new links now: the gateway, and workers by their numbers."""

    def __init__(self) -> None:
        self._gateway: tuple[socket.socket, socket.socket] | None = None
        self._workers: dict[int, tuple[socket.socket, socket.socket]] = {}

    def renew_gateway(self) -> int:
        """For a gateway that is about to start: its descriptor there, on which it finds a link to each worker."""
        _close(self._gateway)
        self._gateway = _pair()
        for number in self._workers:
            self._introduce(number)
        return self._gateway[1].fileno()

    def renew_worker(self, number: int) -> int:
        """For a worker that is about to start: its descriptor there, on which it finds a link to the gateway."""
        _close(self._workers.get(number))
        self._workers[number] = _pair()
        self._introduce(number)
        return self._workers[number][1].fileno()

    def close(self) -> None:
        """For tests; the end of the process does the same."""
        _close(self._gateway)
        for pair in self._workers.values():
            _close(pair)

    def _introduce(self, number: int) -> None:
        """Make the two known to each other. Either may have ended: then it is not this link that it will get."""
        if self._gateway is None:
            return
        gateway, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with gateway, worker, contextlib.suppress(OSError):
            socket.send_fds(self._gateway[0], [b"worker %d" % number], [gateway.fileno()])
            socket.send_fds(self._workers[number][0], [b"gateway"], [worker.fileno()])


def _pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


def _close(pair: tuple[socket.socket, socket.socket] | None) -> None:
    for end in pair or ():
        end.close()
