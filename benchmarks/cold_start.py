"""Cold start: from nothing, through the complete sandbox and the import of the agent, to the first answer over HTTP.

Runs as: `make bench`, root.
Reads from strangers: nothing; the agent and the daemon are ours.

What is measured. Nobody has called the agent for a second, so nothing of it runs (`scaling.instances_min = 0`); a
client sends a request over a connection that is open. The clock starts where the supervisor begins the spawn
(`InstanceRow.spawn_started_ns`) and stops when the client has the whole answer; what it waits from its request on is a
row of its own. All are CLOCK_MONOTONIC, which all processes of a host share, sandboxes too.

Of ours there are three. *At its gate*: the instance was made in advance, for this agent, and was looked at; its runner
waits, and nothing of the agent's has run. *From a spare*: a jail was made in advance, for any agent. *On demand*: there
was nothing but the zygote.

The comparisons are programs from posix_spawn(3) to waitpid(2): `bwrap … /usr/bin/true`, a sandbox of fewer protections,
no cgroup, no filter, no interpreter, no answer, and its end instead of its first answer; the same program by sandlock;
runc with an interpreter that imports what our agent imports; a C program that makes the namespaces and nothing else.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peers
from benchmarks.processes import ROOT, BenchmarkError, Daemon, daemon
from benchmarks.rows import Measured, Row, Series, beside, without
from runagentd.plan.build import spare_steps
from runagentd.supervise.hostfacts import gather
from runagentd.wire import admin

PART = "cold"
TARGETS: Mapping[str, Mapping[str, str]] = {
    "at its gate": {peers.BWRAP: "<= 0.5", peers.RUNC: "<= 0.1"},
    "from a spare": {peers.BWRAP: "<= 0.5", peers.RUNC: "<= 0.1"},
    "on demand": {peers.BWRAP: "<= 1.0"},
}
_SLEEPS = '[scaling]\ninstances_min = 0\nidle = "1s"\n'
_PAUSE_SECONDS = 0.05
"""Before each run: what the one before left to do is done, and the machine is at rest, as before a first call."""
_WARM_UP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """One cold start; times in nanoseconds since the spawn began."""

    asked: int
    """how long before that the client had begun to send its request"""
    from_spare: bool
    imported: int
    """the agent's module was executed"""
    called: int
    """its function ran"""
    answered: int
    """the client had the answer"""
    steps: tuple[admin.StepTime, ...]
    """those of the launch that were carried out after the spawn began: a spare had carried out its own before"""


Spawn = Callable[[], int]
"""Makes one sandbox that runs its program and ends: nanoseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """All runs, in the order in which they took turns."""

    at_gate: tuple[ColdStart, ...]
    from_spare: tuple[ColdStart, ...]
    on_demand: tuple[ColdStart, ...]
    peers: Mapping[str, tuple[int, ...]]
    """nanoseconds of each, by name"""
    missing: Mapping[str, str]

    @property
    def kinds(self) -> tuple[tuple[str, tuple[ColdStart, ...]], ...]:
        """Ours, by name."""
        return (("at its gate", self.at_gate), ("from a spare", self.from_spare), ("on demand", self.on_demand))


def measure(*, runs: int, progress: Callable[[str], None]) -> Runs:
    """All of them in turns, `runs` times."""
    at_gate: list[ColdStart] = []
    from_spare: list[ColdStart] = []
    on_demand: list[ColdStart] = []
    in_advance = len(spare_steps(gather(), in_advance=True))
    with contextlib.ExitStack() as stack:
        spawns, missing = _peers(stack)
        found: dict[str, list[int]] = {name: [] for name in spawns}
        with_standby = stack.enter_context(daemon(spares=1, standbys=1, policy=_SLEEPS))
        with_spare = stack.enter_context(daemon(spares=1, policy=_SLEEPS))
        on_its_own = stack.enter_context(daemon(spares=0, policy=_SLEEPS))
        for number in range(-_WARM_UP, runs):
            taken = {name: _spawned(spawn) for name, spawn in spawns.items()}
            gate = _cold_start(with_standby, spares=1, standbys=1)
            one = _cold_start(with_spare, spares=1, done_in_advance=in_advance)
            other = _cold_start(on_its_own, spares=0, done_in_advance=0)
            if number >= 0:
                at_gate.append(gate)
                for name, value in taken.items():
                    found[name].append(value)
                from_spare.append(one)
                on_demand.append(other)
                progress(f"cold start, run {number + 1} of {runs}")
    return Runs(
        at_gate=tuple(at_gate), from_spare=tuple(from_spare), on_demand=tuple(on_demand),
        peers={name: tuple(values) for name, values in found.items()}, missing=missing,
    )  # fmt: skip


def measured(runs: Runs) -> Measured:
    """Their rows: each way to start beside each peer."""
    rows: list[Row] = []
    series: Series = {}
    for kind, starts in runs.kinds:
        ours = series[f"runagentd, {kind}, ms"] = [start.answered / 1e6 for start in starts]
        name, targets = f"cold start, {kind}", TARGETS[kind]
        waited = [(start.asked + start.answered) / 1e6 for start in starts]
        if peers.BWRAP in runs.peers:
            theirs = [value / 1e6 for value in runs.peers[peers.BWRAP]]
            rows.append(beside(PART, f"{name}, from the request on", "ms", waited, theirs, peers.BWRAP))
        for peer in (peers.BWRAP, peers.RUNC, peers.SANDLOCK, peers.FLOOR):
            aim = targets.get(peer)
            if peer in runs.peers:
                theirs = [value / 1e6 for value in runs.peers[peer]]
                rows.append(beside(PART, name, "ms", ours, theirs, peer, target=aim))
            else:
                rows.append(without(PART, name, "ms", ours, peer, runs.missing.get(peer, "not measured"), target=aim))
    series |= {f"{name}, ms": [value / 1e6 for value in values] for name, values in runs.peers.items()}
    return Measured(rows=rows, series=series, missing=runs.missing)


# ---- the peers


def _peers(stack: contextlib.ExitStack) -> tuple[dict[str, Spawn], dict[str, str]]:
    """Those that work on this machine, each tried once; and why the others do not."""
    place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runagentd-bench-")))
    ways: dict[str, Callable[[], Spawn]] = {
        peers.BWRAP: _bubblewrap,
        peers.RUNC: lambda: _runc(place, stack),
        peers.SANDLOCK: lambda: sandlock(stack),
        peers.FLOOR: lambda: _program([str(peers.floor(place))]),
    }
    spawns: dict[str, Spawn] = {}
    missing: dict[str, str] = {}
    for name, way in ways.items():
        try:
            spawn = way()
            spawn()
        except (BenchmarkError, OSError, subprocess.CalledProcessError) as error:
            missing[name] = peers.last_line(str(error))
        else:
            spawns[name] = spawn
    return spawns, missing


def _spawned(spawn: Spawn) -> int:
    time.sleep(_PAUSE_SECONDS)
    return spawn()


def _bubblewrap() -> Spawn:
    if shutil.which("bwrap") is None:
        raise BenchmarkError("not installed; apt-get install bubblewrap")
    return _program(list(peers.BWRAP_COMMAND))


def _runc(place: Path, stack: contextlib.ExitStack) -> Spawn:
    command = peers.runc_bundle(place)
    numbers: Iterator[int] = itertools.count()
    log = stack.enter_context((place / "runc.log").open("w+b"))
    return _program(command, identity=lambda: f"bench-{os.getpid()}-{next(numbers)}", log=log.fileno())


def _program(command: list[str], *, identity: Callable[[], str] = str, log: int | None = None) -> Spawn:
    path = shutil.which(command[0]) or command[0]

    def spawn() -> int:
        words = [word.replace("{id}", identity()) for word in command]
        outputs = [] if log is None else [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        began = time.monotonic_ns()
        pid = os.posix_spawn(path, words, os.environ, file_actions=outputs)
        _, status = os.waitpid(pid, 0)
        ended = time.monotonic_ns()
        if status:
            said = os.pread(log, 4000, max(0, os.fstat(log).st_size - 4000)).decode(errors="replace") if log else ""
            raise BenchmarkError(f"{command[0]} ended with status {status}; {peers.last_line(said)}")
        return ended - began

    return spawn


def sandlock(stack: contextlib.ExitStack, *options: str) -> Spawn:
    """Its library in a process that lives on: what it costs to start Python is not sandlock's.

    With "--fork" it is the time of one clone of a process that is sandboxed already.
    """
    process = stack.enter_context(
        subprocess.Popen(
            [str(peers.python("sandlock")), "-m", "benchmarks.servers.sandlock_true", *options], cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
    )  # fmt: skip

    def spawn() -> int:
        if process.stdin is None or process.stdout is None:
            raise BenchmarkError("sandlock's process has no pipes")
        process.stdin.write("\n")
        process.stdin.flush()
        said = process.stdout.readline().strip()
        if not said.isdigit():
            raise BenchmarkError(said or "its process has ended")
        return int(said)

    return spawn


# ---- ours


def _cold_start(target: Daemon, *, spares: int, standbys: int = 0, done_in_advance: int | None = None) -> ColdStart:
    target.asleep(spares=spares, standbys=standbys)
    time.sleep(_PAUSE_SECONDS)
    connection = http.client.HTTPConnection(*target.address, timeout=30)
    connection.connect()
    try:
        asked = time.monotonic_ns()
        body, answered = _first_answer(connection, target)
    finally:
        connection.close()
    row = target.settle(spares=0)
    if (row.from_spare, row.stood_by) != (bool(spares), bool(standbys)):
        made = "at its gate" if row.stood_by else "from a spare" if row.from_spare else "on demand"
        raise BenchmarkError(f"an instance was made {made}, unexpectedly")
    imported, called = json.loads(body)
    began = row.spawn_started_ns
    if not asked < began < imported <= called < answered:
        raise BenchmarkError("an answer did not come from the instance that was just started")
    return ColdStart(
        asked=began - asked,
        from_spare=row.from_spare,
        imported=imported - began,
        called=called - began,
        answered=answered - began,
        steps=() if done_in_advance is None else row.steps[done_in_advance:],
    )


def _first_answer(connection: http.client.HTTPConnection, target: Daemon) -> tuple[bytes, int]:
    """The answer, and when it was there."""
    headers = {"Authorization": f"Bearer {target.token}", "Content-Type": "application/json"}
    connection.request("POST", target.path("clock"), b"{}", headers)
    answer = connection.getresponse()
    body = answer.read()
    answered = time.monotonic_ns()
    if answer.status != 200:
        raise BenchmarkError(f"the first call was answered with {answer.status} {body[:300]!r}")
    return body, answered


def launch_steps(start: ColdStart) -> dict[str, int]:
    """Nanoseconds per kind of step."""
    found: dict[str, int] = {}
    for step in start.steps:
        found[step.step] = found.get(step.step, 0) + step.microseconds * 1000
    return found
