"""The load generator that waits for nobody: requests at a fixed rate, each timed from the moment at which it was due.

Runs as: a process of its own, `python -m benchmarks.open_loop`.
Reads from strangers: the answers of the measured server, on 127.0.0.1.
In a closed loop a server that stops for a second delays one request on each connection, and nobody asks what the others
would have waited (coordinated omission). Here what is due while all connections wait is sent late, and timed.
One blocking thread on select(2), whose timeout is in microseconds: epoll's, and an event loop's, is in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from benchmarks.client import answer_bytes, request_bytes
from benchmarks.figures import quantile
from benchmarks.load import BODY, TOKEN

GIVE_UP_SECONDS = 10.0
"""After the last moment: what is not answered by then has failed."""
_WAIT_SECONDS = 0.5


class Schedule:
    """When requests are due, in seconds from the start: evenly, whatever happens to those before. Knows no clock."""

    def __init__(self, *, per_second: float, seconds: float) -> None:
        self._interval = 1 / per_second
        self.total = round(per_second * seconds)
        self._taken = 0

    def take(self, now: float) -> float | None:
        """When the next request was due, if it is by now: each moment is given once, also long after it has passed."""
        moment = self._taken * self._interval
        if self._taken == self.total or moment > now:
            return None
        self._taken += 1
        return moment

    def wait(self, now: float) -> float | None:
        """Seconds until the next one is due, 0 where it is; None where there is no other."""
        return None if self._taken == self.total else max(0.0, self._taken * self._interval - now)


def load(
    url: str, request: bytes, *, connections: int, per_second: float, seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, object]:  # fmt: skip
    """Latencies of all that was due, and how many failed: another status than 2xx, a lost connection, no answer."""
    parts = urllib.parse.urlsplit(url)
    address = (parts.hostname or "", parts.port or 80)
    schedule = Schedule(per_second=per_second, seconds=seconds)
    idle = [_connection(address) for _ in range(connections)]
    everybody = list(idle)
    waiting: dict[socket.socket, tuple[float, bytearray]] = {}
    latencies: list[float] = []
    failures = 0
    began = clock()
    try:
        while True:
            while idle and (moment := schedule.take(clock() - began)) is not None:
                connection = idle.pop()
                connection.sendall(request)
                waiting[connection] = (moment, bytearray())
            left = schedule.wait(clock() - began)
            if (left is None and not waiting) or clock() - began > seconds + GIVE_UP_SECONDS:
                break
            pause = min(_WAIT_SECONDS, left) if left is not None and idle else _WAIT_SECONDS
            readable, _, _ = select.select(list(waiting), [], [], pause)
            for connection in readable:
                moment, data = waiting[connection]
                piece = connection.recv(262144)
                data += piece
                length = answer_bytes(data) if piece else None
                if piece and (length is None or len(data) < length):
                    continue
                latencies.append(clock() - began - moment)
                del waiting[connection]
                if not data.startswith(b"HTTP/1.1 2"):
                    failures += 1
                if piece:
                    idle.append(connection)
                else:
                    connection.close()
                    everybody.remove(connection)
                    idle.append(_connection(address))
                    everybody.append(idle[-1])
    finally:
        for connection in everybody:
            connection.close()
    return {
        "requests": schedule.total,
        "failures": failures + schedule.total - len(latencies),
        "p50_microseconds": round(quantile(latencies or [0.0], 0.5) * 1e6),
        "p99_microseconds": round(quantile(latencies or [0.0], 0.99) * 1e6),
        "most_microseconds": round(max(latencies, default=0.0) * 1e6),
    }


def _connection(address: tuple[str, int]) -> socket.socket:
    connection = socket.create_connection(address, timeout=GIVE_UP_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--per-second", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("url")
    arguments = parser.parse_args()
    request = request_bytes(arguments.url, os.environ.get(TOKEN, ""), Path(os.environ[BODY]).read_bytes())
    found = load(
        arguments.url, request, connections=arguments.connections, per_second=arguments.per_second,
        seconds=arguments.seconds,
    )  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
