"""Two callers of one agent: what does the other notice when one asks for ten times its share?

Runs as: `make crowd`, root.
Reads from strangers: nothing.
The agent has two places, a call takes 5 ms: 400 calls a second are all there is, and 200 are one caller's share. The
other asks for 40 a second, open loop: its latency counts from when a call was due. First beside a caller that asks for
less than its share, then beside one that keeps 64 calls open at any time and sends again what is refused.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from benchmarks.crowd import client
from benchmarks.processes import AGENT, Daemon, daemon
from runagentd import signing, state

POLICY = "[calls]\nconcurrency = 2\nqueue = 64\n"
BUSY = AGENT.parent / "busy"
PER_SECOND = 40
FLOODERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Fairness:
    """Seconds of the other's calls, and how many of them were refused."""

    quiet: tuple[float, ...]
    flooded: tuple[float, ...]
    refused: int
    flood_answered: int


def measure(*, seconds: float) -> Fairness:
    """Half of the time each."""
    with daemon(spares=1, others=[BUSY], policy=POLICY) as served:
        directory = state.open_existing(served.state_dir)
        key = signing.create_or_open(str(directory.keys))
        tokens = [
            signing.mint(
                key,
                issuer=directory.issuer,
                audience=directory.audience,
                subject=subject,
                agents=["busy"],
                ttl_seconds=600,
            )
            for subject in ("other", "flood")
        ]
        return asyncio.run(_measure(served, seconds / 2, *tokens))


async def _measure(served: Daemon, seconds: float, other: str, flood: str) -> Fairness:
    await client.good(served, "busy", "work", {})
    answered: list[int] = []
    over = asyncio.Event()

    async def polite() -> None:
        while not over.is_set():
            await client.call(served, "busy", "work", {}, token=flood)
            await asyncio.sleep(0.01)

    async def greedy() -> None:
        while not over.is_set():
            status, _ = await client.call(served, "busy", "work", {}, token=flood)
            answered.append(status)
            if status != 200:
                await asyncio.sleep(0.01)

    task = asyncio.create_task(polite())
    quiet, refused = await _open_loop(served, seconds, other)
    over.set()
    await task
    over.clear()
    tasks = [asyncio.create_task(greedy()) for _ in range(FLOODERS)]
    await asyncio.sleep(0.5)
    flooded, more = await _open_loop(served, seconds, other)
    over.set()
    await asyncio.gather(*tasks)
    return Fairness(
        quiet=tuple(quiet), flooded=tuple(flooded), refused=refused + more, flood_answered=answered.count(200)
    )


async def _open_loop(served: Daemon, seconds: float, token: str) -> tuple[list[float], int]:
    took: list[float] = []
    refused: list[float] = []

    async def one(due: float) -> None:
        status, _ = await client.call(served, "busy", "work", {}, token=token)
        (took if status == 200 else refused).append(time.monotonic() - due)

    tasks = []
    began = time.monotonic()
    for number in range(int(seconds * PER_SECOND)):
        due = began + number / PER_SECOND
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    return took, len(refused)
