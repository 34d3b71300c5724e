"""Clients of TLS: some that do nothing but handshakes, or one that calls at a steady pace and times each answer.

Runs as: a process of its own, `python -m benchmarks.handshakes`.
Reads from strangers: the answers of the measured server, on 127.0.0.1, whose certificate nobody checks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import ssl
import time
import urllib.parse
from pathlib import Path

import uvloop

from benchmarks.client import answer_bytes, request_bytes
from benchmarks.figures import quantile
from benchmarks.load import BODY, TOKEN

_STEADY_PER_SECOND = 200
_SECONDS = 10.0


def context() -> ssl.SSLContext:
    """A client's, that believes anybody, and resumes no session."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


async def handshakes(address: tuple[str, int], *, clients: int, seconds: float) -> dict[str, object]:
    """As many as so many clients manage, each of which makes one connection after the other."""
    trusting = context()
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def one() -> None:
        while time.perf_counter() < end:
            began = time.perf_counter()
            _, writer = await asyncio.open_connection(*address, ssl=trusting)
            took.append(time.perf_counter() - began)
            writer.transport.abort()

    await asyncio.gather(*(one() for _ in range(clients)))
    return {"handshakes": len(took), "seconds": seconds, "p99_microseconds": round(quantile(took, 0.99) * 1e6)}


def steady(address: tuple[str, int], request: bytes, *, seconds: float) -> dict[str, object]:
    """Calls over one connection at a steady pace, each timed from when it was due."""
    took: list[float] = []
    with socket.create_connection(address, timeout=_SECONDS) as plain, context().wrap_socket(plain) as connection:
        began = time.perf_counter()
        for number in range(round(seconds * _STEADY_PER_SECOND)):
            due = began + number / _STEADY_PER_SECOND
            time.sleep(max(0.0, due - time.perf_counter()))
            connection.sendall(request)
            data = bytearray()
            while (length := answer_bytes(data)) is None or len(data) < length:
                data += connection.recv(65536)
            if not data.startswith(b"HTTP/1.1 200 "):
                raise SystemExit(f"an answer that is none: {bytes(data[:100])!r}")
            took.append(time.perf_counter() - due)
    return {
        "requests": len(took),
        "p50_microseconds": round(quantile(took, 0.5) * 1e6),
        "p99_microseconds": round(quantile(took, 0.99) * 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=0, help="how many do handshakes; 0 is one that calls")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("url")
    arguments = parser.parse_args()
    parts = urllib.parse.urlsplit(arguments.url)
    address = (parts.hostname or "", parts.port or 443)
    if arguments.clients:
        print(json.dumps(uvloop.run(handshakes(address, clients=arguments.clients, seconds=arguments.seconds))))
        return
    request = request_bytes(arguments.url, os.environ[TOKEN], Path(os.environ[BODY]).read_bytes())
    print(json.dumps(steady(address, request, seconds=arguments.seconds)))


if __name__ == "__main__":
    main()
