"""Clients that connect, send and go away at random moments: when does the function see it, and when is its place free?

Runs as: `make crowd`, root.
Reads from strangers: nothing.
One place, one instance. A client sends a call and leaves after 0 to 20 ms, in one of four kinds of function; another
client's call has been waiting behind it. Both processes read CLOCK_MONOTONIC, which sandboxes share with the host.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from dataclasses import dataclass

from benchmarks.crowd import client
from benchmarks.processes import AGENT, Daemon, daemon

PATIENT = AGENT.parent / "patient"
KINDS = ("nap", "spin", "anap", "count_stream")
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no seconds: close(2) sends a reset instead of an end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancels:
    """Seconds from the client's close; `leaked` began and never ended, and `unstarted` were cancelled before."""

    seen: tuple[float, ...]
    free: tuple[float, ...]
    leaked: int
    unstarted: int
    replaced: int
    """instances that did not stop in their grace"""


def measure(*, clients: int, seed: int = 1) -> Cancels:
    """As many clients, one after the other."""
    with daemon(spares=1, others=[PATIENT]) as served:
        return asyncio.run(_measure(served, clients, random.Random(seed)))


async def _measure(served: Daemon, clients: int, chance: random.Random) -> Cancels:
    await client.good(served, "patient", "clock", {})
    left: dict[str, int] = {}
    free: list[float] = []
    for number in range(clients):
        name, kind = f"c{number}", chance.choice(KINDS)
        reader, writer = await asyncio.open_connection(*served.address)
        wire = client.request(served, "patient", kind, {"name": name}, stream=kind == "count_stream")
        # Also in the middle of the request: its rest never comes.
        whole = chance.random() > 0.1
        writer.write(wire if whole else wire[: chance.randrange(len(wire))])
        await asyncio.sleep(chance.random() * 0.02)
        behind = asyncio.create_task(client.good(served, "patient", "clock", {}))
        await asyncio.sleep(0.005)
        if chance.random() < 0.5:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        left[name] = time.monotonic_ns()
        writer.transport.abort()
        began = await behind
        if whole:
            free.append(max(0, began - left[name]) / 1e9)
        del reader
    await asyncio.sleep(0.5)
    remembered = await client.good(served, "patient", "remembered", {})
    seen = [(ended - left[name]) / 1e9 for name, (_, ended) in remembered.items() if ended]
    row = next(row for row in served.listing().instances if row.agent_name == "patient")
    return Cancels(
        seen=tuple(max(0.0, each) for each in seen),
        free=tuple(free),
        leaked=sum(not ended for _, ended in remembered.values()),
        unstarted=clients - len(remembered),
        replaced=row.restarts,
    )
