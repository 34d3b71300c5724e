"""A thousand instances of the chat example at once: what they weigh, what the last one costs, and whether all answer.

Runs as: `make crowd`, root.
Reads from strangers: nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from dataclasses import dataclass

from benchmarks.crowd import client
from benchmarks.memory import pss
from benchmarks.processes import ROOT, BenchmarkError, Daemon, daemon
from runagentd.foreman import admin_client
from runagentd.wire import admin

CHAT = ROOT / "examples" / "chat"
POLICY = '[calls]\nqueue = 2000\n[scaling]\ninstances_min = 1\ninstances_max = 1000\nidle = "1h"\nfreeze = "1h"\n'
EDGE = 20
"""How many of the first and of the last spawns their medians are of."""
ALONE_SECONDS = 0.3
"""In which one spawn and the next spare are made, without a question in between: to list a thousand instances keeps the
supervisor busy for 140 ms, and a spawn would be timed that waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thousand:
    """Times in seconds, sizes in bytes."""

    instances: int
    up_seconds: float
    first_spawns: float
    last_spawns: float
    """from the begin of a spawn to being ready: medians of the first and the last"""
    pss_each: float
    """reaper and runner together, their share of what is shared included (proc_pid_smaps(5))"""
    supervisor: int
    gateway: int
    answered: int
    """calls that were open at the same time, one for each instance, and were answered"""
    answer_seconds: float


def measure(*, instances: int) -> Thousand:
    """From one instance to all of them, and a call to each."""
    with daemon(spares=4, others=[CHAT], policy=POLICY) as served:
        return asyncio.run(_measure(served, instances))


async def _measure(served: Daemon, instances: int) -> Thousand:
    began = time.monotonic()
    # The first and the last one at a time: what is started together waits for each other.
    for number in range(2, EDGE + 2):
        await _up(served, number, quiet=ALONE_SECONDS)
    await _up(served, instances - EDGE)
    for number in range(instances - EDGE + 1, instances + 1):
        await _up(served, number, quiet=ALONE_SECONDS)
    up = time.monotonic() - began
    rows = sorted(_ready(served), key=lambda row: row.spawn_started_ns)
    spawns = [(row.ready_ns - row.spawn_started_ns) / 1e9 for row in rows]
    held = sum(pss(pid) for row in rows for pid in (row.pid, row.reaper_pid))
    listing = served.listing()
    supervisor = next(row.pid for row in listing.daemons if row.name == "supervisor")
    gateway = dict(served.endpoint().processes)["gateway"]
    asked = time.monotonic()
    answers = await asyncio.gather(*(_one(served, number) for number in range(instances)))
    return Thousand(
        instances=len(rows),
        up_seconds=up,
        first_spawns=statistics.median(spawns[1 : EDGE + 1]),
        last_spawns=statistics.median(spawns[-EDGE:]),
        pss_each=held / len(rows),
        supervisor=pss(supervisor),
        gateway=pss(gateway),
        answered=sum(answers),
        answer_seconds=time.monotonic() - asked,
    )


async def _up(served: Daemon, instances: int, *, quiet: float = 0.0) -> None:
    """Have that many, and wait until they are ready and the next spare is there; for `quiet` seconds do not look."""
    admin_client.ask(served.state_dir / "admin.sock", admin.Warm(agent=_agent(served), instances=instances))
    await asyncio.sleep(quiet)
    end = time.monotonic() + 600
    while len(_ready(served)) < instances or not served.listing().spares:
        if time.monotonic() > end:
            raise BenchmarkError(f"{len(_ready(served))} instances of {instances} are ready after ten minutes")
        await asyncio.sleep(0.02 if instances < 100 else 0.2)
    await asyncio.sleep(0.1)


def _ready(served: Daemon) -> list[admin.InstanceRow]:
    return [row for row in served.listing().instances if row.agent_name == "chat" and row.state == "ready"]


def _agent(served: Daemon) -> str:
    return next(row.agent for row in served.listing().instances if row.agent_name == "chat")


async def _one(served: Daemon, number: int) -> bool:
    with contextlib.suppress(OSError):
        status, _ = await client.call(served, "chat", "chat", {"message": f"hello {number}"})
        return status == 200
    return False
