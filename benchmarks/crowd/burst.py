"""A hundred first calls at once to an agent that sleeps.

Runs as: `make crowd`, root.
Reads from strangers: nothing.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from benchmarks.crowd import client
from benchmarks.processes import BenchmarkError, Daemon, daemon

POLICY = '[calls]\nqueue = 200\n[scaling]\ninstances_min = 0\ninstances_max = 4\nidle = "1s"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """Seconds from sending all of them to each answer, over all rounds."""

    answered: int
    asked: int
    seconds: tuple[float, ...]


def measure(*, calls: int, rounds: int) -> Bursts:
    """Each round begins when no instance is left."""
    with daemon(spares=1, policy=POLICY) as served:
        return asyncio.run(_measure(served, calls, rounds))


async def _measure(served: Daemon, calls: int, rounds: int) -> Bursts:
    seconds: list[float] = []
    for _ in range(rounds):
        await _asleep(served)
        connections = [await asyncio.open_connection(*served.address) for _ in range(calls)]
        wire = client.request(served, served.agent, "echo", {"text": "first"})
        began = time.monotonic()
        for _, writer in connections:
            writer.write(wire)

        async def one(reader: asyncio.StreamReader, began: float = began) -> None:
            status, _ = await client.answer(reader)
            if status == 200:
                seconds.append(time.monotonic() - began)

        await asyncio.gather(*(one(reader) for reader, _ in connections))
        for _, writer in connections:
            writer.close()
    return Bursts(answered=len(seconds), asked=calls * rounds, seconds=tuple(seconds))


async def _asleep(served: Daemon) -> None:
    for _ in range(1000):
        if all(row.state == "asleep" for row in served.listing().instances) and served.listing().spares:
            return
        await asyncio.sleep(0.02)
    raise BenchmarkError("the agent does not go to sleep")
