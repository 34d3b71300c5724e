"""The others' load: an open loop at a fixed rate over some connections that stay open, while a siege goes on.

Runs as: a process of its own, `python -m benchmarks.siege.steady`, outside the cage of the hostile clients.
Reads from strangers: the answers of the measured server, on 127.0.0.1.
A call's time runs from the moment at which it was due, not from that at which it was sent: a server that stops for a
second delays 200 calls, and all of them count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
import urllib.parse

import uvloop

from benchmarks.client import answer_bytes, request_bytes
from benchmarks.load import TOKEN
from benchmarks.siege.judge import schedule

CONNECTIONS = 8
PER_SECOND = 200
_ANSWER_SECONDS = 10.0


class Caller:
    """One connection."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._request = request_bytes(url, token)
        self.microseconds: list[int] = []
        self.errors: dict[str, int] = {}

    async def run(self, began: float, moments: list[float]) -> None:
        parts = urllib.parse.urlsplit(self._url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        for moment in moments:
            await asyncio.sleep(max(0.0, began + moment - time.perf_counter()))
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    writer.write(self._request)
                    status = await self._answer(reader)
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                self._failed(type(error).__name__)
                writer.close()
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
                continue
            self.microseconds.append(round((time.perf_counter() - began - moment) * 1e6))
            if status != b"200":
                self._failed(status.decode("ascii", "replace"))
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        length = answer_bytes(head)
        if length is None:
            raise ValueError("an answer without a length")
        await reader.readexactly(length - len(head))
        return head.split(b" ", 2)[1]

    def _failed(self, why: str) -> None:
        self.errors[why] = self.errors.get(why, 0) + 1


async def load(url: str, token: str, seconds: float) -> dict[str, object]:
    """All connections; what they have seen."""
    callers = [Caller(url, token) for _ in range(CONNECTIONS)]
    began = time.perf_counter() + 0.2
    async with asyncio.TaskGroup() as group:
        for number, caller in enumerate(callers):
            moments = schedule(number, connections=CONNECTIONS, per_second=PER_SECOND, seconds=seconds)
            group.create_task(caller.run(began, moments))
    errors: dict[str, int] = {}
    for caller in callers:
        for why, count in caller.errors.items():
            errors[why] = errors.get(why, 0) + count
    return {"microseconds": [one for caller in callers for one in caller.microseconds], "errors": errors}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("url")
    arguments = parser.parse_args()
    uvloop.install()
    print(json.dumps(asyncio.run(load(arguments.url, os.environ.get(TOKEN, ""), arguments.seconds))))


if __name__ == "__main__":
    main()
