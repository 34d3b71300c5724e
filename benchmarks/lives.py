"""What happens to instances: a process for each call, how much they weigh, bursts, clients that go away, kill -9.

Runs as: `make bench`, root.
Reads from strangers: nothing.
`benchmarks.crowd` measures some of it with more clients and instances; here it is what fits into one run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import cold_start, load, peers
from benchmarks.crowd import burst as bursts
from benchmarks.crowd import cancel as cancels
from benchmarks.crowd import thousand
from benchmarks.figures import quantile
from benchmarks.processes import BenchmarkError, Daemon, check_echo, daemon
from benchmarks.rows import Measured, Row, alone, beside, without
from tests.system import traces

ISOLATED, MEMORY, BURST, CANCEL, KILLS = "isolated", "memory", "burst", "cancel", "kills"
ISOLATED_TARGET, PSS_TARGET, LAST_SPAWN_TARGET, BURST_TARGET = "<= 2", "<= 5", "<= 1.2", "<= 500"
SEEN_TARGET, FREE_TARGET = "<= 50", "<= 250"
KILL_SETTLE_SECONDS = 2.0
_BACK_SECONDS = 30.0


def isolated(*, rounds: int, seconds: int, progress: Callable[[str], None]) -> Measured:
    """The same calls, one at a time, under `base` and with a fork for each; the difference of each round's medians."""
    alike: list[float] = []
    forked: list[float] = []
    clones: list[float] = []
    why = ""
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(daemon(spares=1))
        other = stack.enter_context(daemon(spares=1, policy='[calls]\nisolation = "call"\n'))
        endpoints = (one.endpoint(), other.endpoint())
        try:
            clone: Callable[[], int] | None = cold_start.sandlock(stack, "--fork")
        except BenchmarkError as error:
            clone, why = None, peers.last_line(str(error))
        for endpoint in endpoints:
            check_echo(endpoint)
            load.run(endpoint, connections=1, seconds=1)
        for number in range(rounds):
            for endpoint, values in zip(endpoints, (alike, forked)):
                progress(f"a process for each call, round {number + 1} of {rounds}")
                values.append(load.run(endpoint, connections=1, seconds=seconds).p50_seconds * 1e3)
            try:
                if clone is not None:
                    clones.append(clone() / 1e6)
            except BenchmarkError as error:
                clone, why, clones = None, peers.last_line(str(error)), []
    return measured_isolated(alike, forked, clones, why)


def measured_isolated(alike: list[float], forked: list[float], clones: list[float], why: str) -> Measured:
    """What a fork for each call adds, beside a clone of a process that sandlock has sandboxed."""
    added = [one - other for one, other in zip(forked, alike)]
    name, unequal = "added to a call, beside a clone that is not called", "a clone by sandlock, which does nothing"
    beside_sandlock = (
        beside(ISOLATED, name, "ms", added, clones, unequal)
        if clones
        else without(ISOLATED, name, "ms", added, unequal, why)
    )
    rows = [
        alone(ISOLATED, "added to a call by its own process, p50", "ms", added, target=ISOLATED_TARGET),
        beside(ISOLATED, "a call in a process of its own, p50", "ms", forked, alike, "runagentd, policy base"),
        beside_sandlock,
    ]
    return Measured(
        rows=rows, series={"base, p50 ms": alike, "isolation = call, p50 ms": forked, "sandlock, clone ms": clones}
    )


def memory(*, instances: int, progress: Callable[[str], None]) -> Measured:
    """So many instances of the chat example."""
    progress(f"{instances} instances")
    many = thousand.measure(instances=instances)
    if many.answered != instances:
        raise BenchmarkError(f"{many.answered} of {instances} calls were answered")
    first, last = many.first_spawns * 1e3, many.last_spawns * 1e3
    name = f"a spawn: the last of {instances} beside the first"
    rows = [
        alone(MEMORY, "idle instance with its reaper, PSS (then 3)", "MB", [many.pss_each / 2**20], target=PSS_TARGET),
        beside(MEMORY, name, "ms", [last], [first], "the first", target=LAST_SPAWN_TARGET),
        alone(MEMORY, f"supervisor with {instances} instances, PSS", "MB", [many.supervisor / 2**20]),
        alone(MEMORY, f"gateway with {instances} instances, PSS", "MB", [many.gateway / 2**20]),
    ]
    return Measured(rows=rows, series={})


def burst(*, bursts_wanted: int, progress: Callable[[str], None]) -> Measured:
    """A hundred first calls at once, several times."""
    progress("a burst of first calls")
    found = bursts.measure(calls=100, rounds=bursts_wanted)
    milliseconds = [value * 1e3 for value in found.seconds]
    answered = 100 * found.answered / found.asked
    rows = [
        alone(BURST, "100 first calls at once: answered", "%", [answered], target=">= 100"),
        alone(BURST, "100 first calls at once: p50", "ms", milliseconds),
        alone(BURST, "100 first calls at once: p99", "ms", [quantile(milliseconds, 0.99)], target=BURST_TARGET),
    ]
    return Measured(rows=rows, series={"answer, ms": milliseconds})


def cancel(*, clients: int, progress: Callable[[str], None]) -> Measured:
    """Clients that go away at random moments."""
    progress(f"{clients} clients that go away")
    found = cancels.measure(clients=clients)
    seen, free = ([value * 1e3 for value in values] for values in (found.seen, found.free))
    late = [quantile(seen, 1.0)] if found.replaced == 0 else [quantile(seen, 0.99)]
    rows = [
        alone(CANCEL, f"{clients} clients that go away: calls leaked", "calls", [float(found.leaked)], target="<= 0"),
        alone(CANCEL, "the function sees it, p50", "ms", seen),
        alone(CANCEL, "the function sees it, at most", "ms", late, target=SEEN_TARGET),
        alone(CANCEL, "its place is free, at most", "ms", [quantile(free, 1.0)], target=FREE_TARGET,
              note=f"{found.replaced} instances were replaced because a call did not stop"),
    ]  # fmt: skip
    return Measured(rows=rows, series={"seen, ms": seen, "free, ms": free})


# ---- kill -9


@dataclass(frozen=True, slots=True)
class Footprint:
    """How many of each a daemon has on its host."""

    processes: int
    cgroups: int
    mounts: int

    def over(self, other: Footprint) -> int:
        """How many more of anything than `other`."""
        return sum(
            max(0, mine - theirs)
            for mine, theirs in (
                (self.processes, other.processes), (self.cgroups, other.cgroups), (self.mounts, other.mounts),
            )
        )  # fmt: skip


def kills(*, times: int, progress: Callable[[str], None]) -> Measured:
    """kill -9 of each kind of process under load; what is there two seconds after all is back, and was not before."""
    orphans: list[float] = []
    back: list[float] = []
    with daemon(spares=1) as served, _load(served):
        _whole(served)
        rest = _at_rest(served)
        for number in range(times):
            for kind in ("supervisor", "zygote", "gateway", "runner", "reaper"):
                progress(f"kill -9, {number + 1} of {times}: {kind}")
                began = time.monotonic()
                os.kill(_pid(served, kind), signal.SIGKILL)
                _whole(served, after=began)
                back.append((time.monotonic() - began) * 1e3)
                orphans.append(float(_left_over(served, rest)))
    name = f"left {KILL_SETTLE_SECONDS:.0f} s after kill -9 under load: orphans, cgroups, mounts"
    rows: list[Row] = [
        alone(KILLS, name, "things", [sum(orphans)], target="<= 0"),
        alone(KILLS, "until calls are answered and all is there again, p50", "ms", back),
    ]
    return Measured(rows=rows, series={"back, ms": back})


def _pid(served: Daemon, kind: str) -> int:
    listing = served.listing()
    if kind in ("runner", "reaper"):
        row = listing.instances[0]
        return row.pid if kind == "runner" else row.reaper_pid
    if kind == "gateway":
        return dict(served.endpoint().processes)["gateway"]
    return next(row.pid for row in listing.daemons if row.name == kind)


def _footprint(served: Daemon) -> Footprint:
    identity = traces.identity(served.state_dir)
    return Footprint(
        processes=len(traces.family(served.foreman, identity)),
        cgroups=len(traces.cgroups(identity)),
        mounts=len(traces.mounts(str(served.state_dir), identity)),
    )


def _at_rest(served: Daemon) -> Footprint:
    """The most of each over some time: cgroups and spares are made in advance, one after the other."""
    deadline = time.monotonic() + KILL_SETTLE_SECONDS
    seen = [_footprint(served)]
    while time.monotonic() < deadline:
        time.sleep(0.1)
        seen.append(_footprint(served))
    return Footprint(
        max(one.processes for one in seen), max(one.cgroups for one in seen), max(one.mounts for one in seen)
    )  # fmt: skip


def _left_over(served: Daemon, rest: Footprint) -> int:
    """The least that was there over two seconds: what comes and goes is at work and not left."""
    identity = traces.identity(served.state_dir)
    deadline = time.monotonic() + KILL_SETTLE_SECONDS
    while True:
        strangers = traces.family(served.foreman, identity) - traces.below(served.foreman)
        over = _footprint(served).over(rest) + len([one for one in strangers if one.is_there()])
        if not over or time.monotonic() > deadline:
            return over
        time.sleep(0.1)


def _whole(served: Daemon, *, after: float = 0.0) -> None:
    """Until the agent answers and its spare is there, after something was killed."""
    deadline = time.monotonic() + _BACK_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, BenchmarkError, StopIteration, EOFError, ValueError):
            served.settle(spares=1)
            check_echo(served.endpoint())
            if not after or time.monotonic() - after > 0.05:
                return
        time.sleep(0.01)
    raise BenchmarkError(f"the daemon is not whole again {_BACK_SECONDS:.0f} s after a kill -9")


@contextlib.contextmanager
def _load(served: Daemon) -> Iterator[None]:
    """Four callers that go on whatever happens."""
    over = threading.Event()
    endpoint = served.endpoint()

    def call() -> None:
        while not over.wait(0.005):
            with contextlib.suppress(OSError, BenchmarkError, ValueError):
                check_echo(endpoint)

    threads = [threading.Thread(target=call, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
