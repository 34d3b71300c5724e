"""`python -m benchmarks.workers`: one process that reads HTTP beside two or more, in turns, in one run.

Runs as: root.
Reads from strangers: nothing; everything is on 127.0.0.1.
What a call and a handshake cost is processor time of each process, which hardly changes when others are at work on the
machine; calls a second and latencies are ratios of neighbours in time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import load, machine
from benchmarks.processes import BenchmarkError, Daemon, Endpoint, check_echo, daemon, require_root
from tests import certificates

CONNECTIONS = (1, 16, 64)
CLIENTS = 16
"""that do handshakes"""
SPREAD = (16, 64)


@dataclass
class Series:
    """All rounds of one kind, of one daemon."""

    per_second: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    microseconds: dict[str, list[float]] = field(default_factory=dict)
    """processor time for one of them, by process"""

    def add(self, per_second: float, p50: float, p99: float, spent: dict[str, float]) -> None:
        self.per_second.append(per_second)
        self.p50.append(p50)
        self.p99.append(p99)
        for name, microseconds in spent.items():
            self.microseconds.setdefault(name, []).append(microseconds)

    def line(self, case: str, name: str) -> str:
        spent = ", ".join(f"{process} {statistics.median(each):.0f}" for process, each in self.microseconds.items())
        together = statistics.median(map(sum, zip(*self.microseconds.values(), strict=True)))
        return (
            f"| {case} | {name} | {statistics.median(self.per_second):,.0f} | {statistics.median(self.p50):.2f} "
            f"| {statistics.median(self.p99):.2f} | {together:.0f} ({spent}) |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    try:
        require_root()
        print(f"load average before: {machine.load_average()}")
        measure(options.workers, rounds=options.rounds, seconds=options.seconds)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"load average after: {machine.load_average()}")
    return 0


def measure(workers: int, *, rounds: int, seconds: int) -> None:
    """All of it, printed as it comes."""
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runagentd-bench-")))
        certificates.write(place)
        tls = f'[tls]\ncertificate = "{place}/certificate.pem"\nkey = "{place}/key.pem"\n'
        plain = [_served(stack, number, "") for number in (1, workers)]
        for each, _ in plain:
            check_echo(each)
            load.run(each, connections=16, seconds=1)
        secure = [_served(stack, number, tls) for number in (1, workers)]
        print("| case | processes | a second | p50 ms | p99 ms | µs of processor time |\n|---|---|---|---|---|---|")
        for connections in CONNECTIONS:
            _turns(
                f"calls, {connections} connections", plain, rounds, lambda each, n=connections: _calls(each, n, seconds)
            )
        _turns("calls over TLS, 16 connections", secure, rounds, lambda each: _calls(each, 16, seconds))
        _turns(f"handshakes, {CLIENTS} clients", secure, rounds, lambda each: _handshakes(each, seconds))
        _turns("200 calls a second", secure, rounds, lambda each: _steady(each, seconds, beside=False))
        _turns(
            f"the same beside {CLIENTS} clients' handshakes",
            secure,
            rounds,
            lambda each: _steady(each, seconds, beside=True),
        )
        _, served = plain[1]
        for connections in SPREAD:
            shares = [asyncio.run(_spread(served, connections)) for _ in range(rounds)]
            print(f"{connections} connections at once: {'; '.join(' + '.join(map(str, share)) for share in shares)}")


Round = tuple[float, float, float, dict[str, float]]


def _turns(case: str, served: Sequence[tuple[Endpoint, Daemon]], rounds: int, one: Callable[[Endpoint], Round]) -> None:
    """A B A B."""
    found = [Series() for _ in served]
    for _ in range(rounds):
        for series, (endpoint, _) in zip(found, served, strict=True):
            series.add(*one(endpoint))
    for series, (endpoint, _) in zip(found, served, strict=True):
        print(series.line(case, endpoint.name), flush=True)


def _served(stack: contextlib.ExitStack, workers: int, config: str) -> tuple[Endpoint, Daemon]:
    served = stack.enter_context(daemon(spares=1, config=f"[gateway]\nworkers = {workers}\n{config}"))
    endpoint = served.endpoint()
    return Endpoint(
        name=str(workers), url=endpoint.url, token=endpoint.token, processes=endpoint.processes
    ), served  # fmt: skip


def _spent(endpoint: Endpoint, before: dict[str, int], number: int) -> dict[str, float]:
    """Of one of `number`, in microseconds; all workers together."""
    spent: Counter[str] = Counter()
    for name, after in endpoint.cpu_ns().items():
        spent[name.partition(" ")[0]] += after - before[name]
    return {name: each / number / 1e3 for name, each in spent.items()}


def _calls(endpoint: Endpoint, connections: int, seconds: int) -> Round:
    before = endpoint.cpu_ns()
    seen = load.run(endpoint, connections=connections, seconds=seconds)
    return seen.per_second, seen.p50_seconds * 1e3, seen.p99_seconds * 1e3, _spent(endpoint, before, seen.requests)


def _command(*options: str, seconds: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.handshakes", *options, "--seconds", str(seconds)]


def _handshakes(endpoint: Endpoint, seconds: int) -> Round:
    before = endpoint.cpu_ns()
    said = json.loads(
        load.run_generator(endpoint, _command("--clients", str(CLIENTS), seconds=seconds), seconds=seconds)
    )
    spent = _spent(endpoint, before, said["handshakes"])
    p99 = said["p99_microseconds"] / 1e3
    return said["handshakes"] / seconds, float("nan"), p99, spent


def _steady(endpoint: Endpoint, seconds: int, *, beside: bool) -> Round:
    """Processor time is not told apart here: it is that of both."""
    others = None
    if beside:
        others = subprocess.Popen(
            [*_command("--clients", str(CLIENTS), seconds=seconds + 1), endpoint.url], stdout=subprocess.DEVNULL
        )
        time.sleep(0.5)
    try:
        before = endpoint.cpu_ns()
        said = json.loads(load.run_generator(endpoint, _command(seconds=seconds), seconds=seconds))
        spent = _spent(endpoint, before, said["requests"])
    finally:
        if others is not None:
            others.wait()
    return said["requests"] / seconds, said["p50_microseconds"] / 1e3, said["p99_microseconds"] / 1e3, spent


async def _spread(served: Daemon, connections: int) -> list[int]:
    """How many of so many connections that come at once each worker has, the fullest first."""
    workers = [pid for name, pid in served.endpoint().processes if name.startswith("worker")]
    opened = await asyncio.gather(*(asyncio.open_connection(*served.address) for _ in range(connections)))
    for reader, writer in opened:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"}")
    shares = _shares(workers, served.address[1])
    for _, writer in opened:
        writer.close()
    return shares


def _shares(pids: Sequence[int], port: int) -> list[int]:
    """How many connections each has that were accepted on this port, the most first."""
    inodes = _inodes(port)
    links = [[str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()] for pid in pids]
    return sorted((sum(link in inodes for link in each) for each in links), reverse=True)


def _inodes(port: int) -> set[str]:
    """Of established connections that were accepted on this port (proc_net_tcp(5))."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return {f"socket:[{line[9]}]" for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "01"}


if __name__ == "__main__":
    sys.exit(main())
