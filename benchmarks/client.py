"""The load generator for machines without wrk: as many connections as asked for, each in a closed loop.

Runs as: a process of its own, `python -m benchmarks.client`.
Reads from strangers: the answers of the measured server: their head up to Content-Length, then that many bytes.
It costs several times the processor time of wrk, which a machine with few processors takes from the server; figures
of the two are not comparable, ratios within a run are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import time
import urllib.parse
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.figures import quantile
from benchmarks.load import BODY, TOKEN
from benchmarks.processes import HELLO

_LENGTH = re.compile(rb"\r\ncontent-length:[ ]*([0-9]+)", re.IGNORECASE)
_END_OF_HEAD = b"\r\n\r\n"


def request_bytes(url: str, token: str, body: bytes = HELLO) -> bytes:
    """The one request, as bytes."""
    parts = urllib.parse.urlsplit(url)
    head = [
        f"POST {parts.path} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    if token:
        head.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*head, "", ""]).encode("ascii") + body


def answer_bytes(data: bytes | bytearray) -> int | None:
    """How long the answer at the start of `data` is; None while its head is incomplete; ValueError without a length."""
    end = data.find(_END_OF_HEAD)
    if end < 0:
        return None
    length = _LENGTH.search(data, 0, end)
    if length is None:
        raise ValueError("an answer without Content-Length")
    return end + len(_END_OF_HEAD) + int(length[1])


class Connection(asyncio.Protocol):
    """One connection in a closed loop, until `stop`."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._buffer = bytearray()
        self._sent = 0.0
        self._stopping = False
        self._transport: asyncio.Transport | None = None
        self.seconds: list[float] = []
        self.refused = 0
        self.failures = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        if self._transport is not None and not self._stopping:
            self._sent = time.perf_counter()
            self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        length = answer_bytes(self._buffer)
        if length is None or len(self._buffer) < length:
            return
        if not self._stopping:
            self.seconds.append(time.perf_counter() - self._sent)
            self.refused += self._buffer[9:10] >= b"4"
        del self._buffer[:length]
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.failures += not self._stopping

    def stop(self) -> None:
        """Count no more, and close."""
        self._stopping = True
        if self._transport is not None:
            self._transport.abort()


async def load(
    url: str, token: str, *, connections: int, seconds: float, body: bytes = HELLO
) -> dict[str, int]:  # fmt: skip
    """What load.lua says, too."""
    parts = urllib.parse.urlsplit(url)
    request = request_bytes(url, token, body)
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    clients: list[Connection] = []
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: Connection(request), parts.hostname or "", parts.port or 80)
        clients.append(client)
    await asyncio.sleep(seconds)
    ended = time.perf_counter()
    for client in clients:
        client.stop()
    latencies = [value for client in clients for value in client.seconds] or [0.0]
    return {
        "requests": sum(len(client.seconds) for client in clients),
        "microseconds": round((ended - began) * 1e6),
        "p50_microseconds": round(quantile(latencies, 0.5) * 1e6),
        "p99_microseconds": round(quantile(latencies, 0.99) * 1e6),
        "refused": sum(client.refused for client in clients),
        "failures": sum(client.failures for client in clients),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("url")
    arguments = parser.parse_args()
    uvloop.install()
    token, body = os.environ.get(TOKEN, ""), Path(os.environ[BODY]).read_bytes()
    found = asyncio.run(
        load(arguments.url, token, connections=arguments.connections, seconds=arguments.seconds, body=body)
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
