"""`python -m benchmarks.siege`: eight hostile clients for a minute. Are limits exact, is memory flat, who is slower?

Runs as: `make siege`, root.
Reads from strangers: nothing; everything is on 127.0.0.0/8.
The same attack and the same load go to the gateway and to a bare aiohttp handler, in turns.
The exit status says whether limits were exact, nothing failed and nothing was left open: times are for people to judge.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks import load, machine
from benchmarks.memory import pss
from benchmarks.processes import ROOT, BenchmarkError, Daemon, Endpoint, bare_aiohttp, check_echo, daemon, require_root
from benchmarks.siege import report
from benchmarks.siege.cage import Cage, cage
from benchmarks.siege.judge import RULES
from benchmarks.siege.report import Calm, Siege, Turn, Wrk
from runagentd import signing, state

TURN_SECONDS = 10
"""About: the shorter, the more alike is the weather of neighbours; the slow ones need some seconds to be many."""
CALM_SECONDS = 10
WRK_SECONDS = 5
WRK_CONNECTIONS = 4
SETTLE_SECONDS = 20.0
SUBJECTS = ("steady", "slow", "principal", "tag")
CONFIG = f"""
[limits]
loopback = true
[limits.address]
rate = "{RULES["address"].per_second}/s"
burst = {RULES["address"].burst}
[limits.principal]
rate = "1000/s"
concurrency = 512
[limits.principal.for."principal"]
rate = "{RULES["principal"].per_second}/s"
burst = {RULES["principal"].burst}
[limits.tag.for."echo/clock"]
rate = "{RULES["tag"].per_second}/s"
burst = {RULES["tag"].burst}
concurrency = 32
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.siege", description="Attack this checkout on this machine.")
    parser.add_argument("--seconds", type=int, default=60, help="of attack on each of the two (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", default=ROOT / "benchmarks/results/siege.json")
    arguments = parser.parse_args()
    if not 10 <= arguments.seconds <= 600:
        parser.error("--seconds is a number from 10 to 600")
    try:
        require_root()
        here = machine.look()
        found = _siege(arguments.seconds)
        wrk = _wrk() if load.generator() == "wrk" else ()
    except BenchmarkError as error:
        print(f"benchmarks.siege: {error}", file=sys.stderr)
        return 1
    for line in report.lines(here, found, wrk):
        print(line.rstrip())
    arguments.json.parent.mkdir(exist_ok=True)
    arguments.json.write_text(json.dumps(report.as_json(here, found, wrk), indent=1) + "\n", encoding="utf-8")
    return 0 if found.correct else 1


def _siege(seconds: int) -> Siege:
    number_of_turns = max(2, seconds // TURN_SECONDS)
    turn = seconds / number_of_turns
    with cage() as held, daemon(spares=1, config=CONFIG) as served, bare_aiohttp() as dummy:
        served.settle(spares=1)
        tokens = _tokens(served)
        ours = _endpoint(served, tokens["steady"])
        for endpoint in (ours, dummy):
            check_echo(endpoint)
        gateway = dict(ours.processes)["gateway"]
        _steady(ours, 2)
        descriptors = _descriptors(gateway)
        calm = {"ours": _steady(ours, CALM_SECONDS), "dummy": _steady(dummy, CALM_SECONDS)}
        turns: dict[str, list[Turn]] = {"ours": [], "dummy": []}
        for number in range(number_of_turns):
            for name, endpoint in (("ours", ours), ("dummy", dummy)):
                _say(f"{endpoint.name}, turn {number + 1} of {number_of_turns}: {turn:.0f} s of attack")
                turns[name].append(_turn(held, endpoint, tokens, turn))
        after = _wait_for_descriptors(gateway, descriptors)
    return Siege(
        calm=calm["ours"], calm_dummy=calm["dummy"], ours=tuple(turns["ours"]), dummy=tuple(turns["dummy"]),
        descriptors_before=descriptors, descriptors_after=after,
    )  # fmt: skip


def _turn(held: Cage, endpoint: Endpoint, tokens: Mapping[str, str], seconds: float) -> Turn:
    """One attack, with the steady load in the middle of it."""
    [*_, (_, pid)] = [row for row in endpoint.processes if row[0] in ("gateway", "server")]
    began, machine_before, own_before, before = time.monotonic(), _machine_seconds(), _own_seconds(), endpoint.cpu_ns()
    with held.attack(endpoint.url, tokens, seconds=seconds) as attack, _memory_of(pid) as samples:
        time.sleep(1.0)  # until the slow ones have their connections
        calm = _steady(endpoint, seconds - 2.0)
        reports = attack.reports(seconds)
    after = endpoint.cpu_ns()
    took = time.monotonic() - began
    busy = {name: (after[name] - before[name]) / 1e9 / took for name in before}
    ours = (_own_seconds() - own_before) / took + sum(busy.values())
    others = (_machine_seconds() - machine_before) / took - ours
    return Turn(steady=calm, reports=reports, memory=tuple(samples), busy=busy, others=max(0.0, others))


def _steady(endpoint: Endpoint, seconds: float) -> Calm:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.siege.steady", "--seconds", str(seconds), endpoint.url],
        cwd=ROOT, env={**os.environ, load.TOKEN: endpoint.token}, capture_output=True, text=True,
        timeout=seconds + 60, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise BenchmarkError(f"the steady load on {endpoint.name} failed: {done.stderr[-1000:]}")
    found = json.loads(done.stdout)
    return Calm(microseconds=tuple(found["microseconds"]), errors=found["errors"])


def _wrk() -> tuple[Wrk, ...]:
    """As many calls as a few connections can make one after the other, alone and beside slow-loris."""
    rows = []
    with cage() as held, daemon(spares=1) as served, bare_aiohttp() as dummy:
        served.settle(spares=1)
        tokens = _tokens(served)
        for endpoint in (_endpoint(served, tokens["steady"]), dummy):
            _say(f"wrk on {endpoint.name}, alone and beside slow-loris")
            load.run(endpoint, connections=WRK_CONNECTIONS, seconds=1)
            alone = load.run(endpoint, connections=WRK_CONNECTIONS, seconds=WRK_SECONDS)
            with held.attack(
                endpoint.url, tokens, seconds=WRK_SECONDS + 2, kinds=("slow heads", "slow bodies")
            ) as attack:
                time.sleep(1.0)
                beside = load.run(endpoint, connections=WRK_CONNECTIONS, seconds=WRK_SECONDS)
                attack.reports(WRK_SECONDS + 2)
            rows.append(Wrk(name=endpoint.name, alone=alone, beside=beside))
    return tuple(rows)


def _endpoint(served: Daemon, token: str) -> Endpoint:
    found = served.endpoint()
    return Endpoint(name=found.name, url=found.url, token=token, processes=found.processes)


def _tokens(served: Daemon) -> dict[str, str]:
    directory = state.open_existing(served.state_dir)
    key = signing.create_or_open(str(directory.keys))
    return {
        subject: signing.mint(
            key, issuer=directory.issuer, audience=directory.audience, subject=subject, agents=None, ttl_seconds=3600
        )
        for subject in SUBJECTS
    }


@contextlib.contextmanager
def _memory_of(pid: int) -> Iterator[list[tuple[float, int]]]:
    """(seconds since the start of the block, PSS in bytes), once a second."""
    samples: list[tuple[float, int]] = []
    stop = threading.Event()
    began = time.monotonic()

    def sample() -> None:
        while True:
            samples.append((time.monotonic() - began, pss(pid)))
            if stop.wait(1.0):
                return

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def _machine_seconds() -> float:
    """Processor time of everybody since the start of the machine (proc_stat(5)): all columns but idle and iowait."""
    columns = [int(column) for column in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return (sum(columns) - columns[3] - columns[4]) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """Of this process and of those children that have ended: the hostile clients and the steady load."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _wait_for_descriptors(pid: int, at_most: int) -> int:
    """How many are open when no more than before are, or when that has not come true for long enough."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (count := _descriptors(pid)) > at_most and time.monotonic() < deadline:
        time.sleep(0.1)
    return count


def _say(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
