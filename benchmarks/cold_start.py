"""Cold start: from nothing, through the complete sandbox and the import of the agent, to the first answer over HTTP.

Runs as: `make bench`, root.
Reads from strangers: nothing; the agent and the daemon are ours.

What is measured. The agent's instance is killed (`Restart` on the admin socket), and while the supervisor clears it
away a client's request is already waiting at the gateway. The clock starts where the supervisor begins the new spawn
(`InstanceRow.spawn_started_ns`) and stops when the client has the whole answer. Both ends are CLOCK_MONOTONIC, which
all processes of a host share, sandboxes too. Clearing away the old instance is not part of a start; a client whose
request arrives later than the start only makes the figure worse, never better.

The comparison is `bwrap … /usr/bin/true` from posix_spawn(3) to waitpid(2): a sandbox of fewer protections, no cgroup,
no filter, no interpreter, no answer, and its end instead of its first answer.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.processes import BenchmarkError, Daemon, daemon
from runagentd.plan.build import spare_steps
from runagentd.supervise.hostfacts import gather
from runagentd.wire import admin

BWRAP = (
    "bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--die-with-parent",
    "--", "/usr/bin/true",
)  # fmt: skip
_PAUSE_SECONDS = 0.05
"""Before each run: what the one before left to do is done, and the machine is at rest, as before a first call."""
_WARM_UP = 3
_TRIES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """One cold start; times in nanoseconds since the spawn began."""

    from_spare: bool
    imported: int
    """the agent's module was executed"""
    called: int
    """its function ran"""
    answered: int
    """the client had the answer"""
    steps: tuple[admin.StepTime, ...]
    """those of the launch that were carried out after the spawn began: a spare had carried out its own before"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """All runs, in the order in which they took turns."""

    bubblewrap_ns: tuple[int, ...]
    from_spare: tuple[ColdStart, ...]
    on_demand: tuple[ColdStart, ...]


def measure(*, runs: int, progress: Callable[[str], None]) -> Runs:
    """All three in turns, `runs` times."""
    if shutil.which("bwrap") is None:
        raise BenchmarkError("bubblewrap is missing; install it: apt-get install bubblewrap")
    bubblewrap: list[int] = []
    from_spare: list[ColdStart] = []
    on_demand: list[ColdStart] = []
    in_advance = len(spare_steps(gather(), in_advance=True))
    with daemon(spares=1) as with_spare, daemon(spares=0) as without:
        for number in range(-_WARM_UP, runs):
            one = _bubblewrap()
            two = _cold_start(with_spare, spares=1, done_in_advance=in_advance)
            three = _cold_start(without, spares=0, done_in_advance=0)
            if number >= 0:
                bubblewrap.append(one)
                from_spare.append(two)
                on_demand.append(three)
                progress(f"cold start, run {number + 1} of {runs}")
    return Runs(bubblewrap_ns=tuple(bubblewrap), from_spare=tuple(from_spare), on_demand=tuple(on_demand))


def _bubblewrap() -> int:
    time.sleep(_PAUSE_SECONDS)
    path = shutil.which(BWRAP[0]) or BWRAP[0]
    began = time.monotonic_ns()
    pid = os.posix_spawn(path, BWRAP, os.environ)
    _, status = os.waitpid(pid, 0)
    ended = time.monotonic_ns()
    if status:
        raise BenchmarkError(f"bubblewrap does not work on this machine: {' '.join(BWRAP)} ended with {status}")
    return ended - began


def _cold_start(target: Daemon, *, spares: int, done_in_advance: int) -> ColdStart:
    before = target.settle(spares=spares)
    time.sleep(_PAUSE_SECONDS)
    connection = http.client.HTTPConnection(*target.address, timeout=30)
    connection.connect()
    try:
        target.restart()
        body, answered = _first_answer(connection, target)
    finally:
        connection.close()
    row = target.settle(spares=0, other_than=before.instance)
    if row.from_spare is not bool(spares):
        raise BenchmarkError(f"an instance was made {'from a spare' if row.from_spare else 'on demand'}, unexpectedly")
    imported, called = json.loads(body)
    began = row.spawn_started_ns
    if not began < imported <= called < answered:
        raise BenchmarkError("an answer did not come from the instance that was just started")
    return ColdStart(
        from_spare=row.from_spare,
        imported=imported - began,
        called=called - began,
        answered=answered - began,
        steps=row.steps[done_in_advance:],
    )


def _first_answer(connection: http.client.HTTPConnection, target: Daemon) -> tuple[bytes, int]:
    """The answer, and when it was there. A request that still reached the dying instance is sent again."""
    headers = {"Authorization": f"Bearer {target.token}", "Content-Type": "application/json"}
    for _ in range(_TRIES):
        connection.request("POST", target.path("clock"), b"{}", headers)
        answer = connection.getresponse()
        body = answer.read()
        answered = time.monotonic_ns()
        if answer.status == 200:
            return body, answered
        if answer.status not in (502, 503):
            break
    raise BenchmarkError(f"no answer after a restart, but {answer.status} {body[:300]!r}")


def launch_steps(start: ColdStart) -> dict[str, int]:
    """Nanoseconds per kind of step."""
    found: dict[str, int] = {}
    for step in start.steps:
        found[step.step] = found.get(step.step, 0) + step.microseconds * 1000
    return found
