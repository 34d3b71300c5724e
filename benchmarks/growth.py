"""`python -m benchmarks.growth`: what a call costs, and what is held, with 1, 10, 100 (1,000) of everything.

Runs as: root.
Reads from strangers: nothing; everything is on 127.0.0.1.
One caller calls in a closed loop over one connection, while there are so many instances, agents, open streams or
callers. A table for people: what should stay flat (latency) beside what must grow (memory).
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine, report, streams, table
from benchmarks.figures import quantile
from benchmarks.memory import pss
from benchmarks.processes import AGENT, ROOT, BenchmarkError, Daemon, daemon, require_root
from runagentd import signing, state
from runagentd.wire import admin

STEPS = (1, 10, 100, 1000)
RESULT = ROOT / "benchmarks" / "results" / "growth.json"
_UP_SECONDS = 600.0
_HOLD_SECONDS = 600
_PER_INSTANCE = 128
"""streams that one instance holds open (calls.concurrency is 256 at most)"""
_HEAD = ("of", "number", "p50 ms", "p99 ms", "gateway MB", "supervisor MB", "instances MB", "up s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One line: how it was with so many. Sizes are bytes, PSS."""

    of: str
    number: int
    p50_ms: float
    p99_ms: float
    gateway: int
    supervisor: int
    instances: int
    """all of them together, reapers and runners"""
    up_seconds: float
    """until all were there"""

    def cells(self) -> tuple[str, ...]:
        """In the order of the head."""
        sizes = (table.number(size / 2**20) for size in (self.gateway, self.supervisor, self.instances))
        return (
            self.of, f"{self.number:,}", table.number(self.p50_ms), table.number(self.p99_ms), *sizes,
            table.number(self.up_seconds),
        )  # fmt: skip


def instances(number: int, seconds: float) -> Point:
    """Of the agent that is called."""
    policy = f"[scaling]\ninstances_min = {number}\ninstances_max = {number}\n"
    with daemon(spares=1, policy=policy) as served:
        took = _wait(served, number)
        return _point("instances", number, served, _calls(served, [served.token], seconds), took)


def agents(number: int, seconds: float) -> Point:
    """Agents of one instance each, of which one is called."""
    with tempfile.TemporaryDirectory(prefix="runagentd-bench-") as place:
        others = [_copy(Path(place), index) for index in range(number - 1)]
        began = time.monotonic()
        with daemon(spares=1, others=others) as served:
            _wait(served, number)
            took = time.monotonic() - began
            return _point("agents", number, served, _calls(served, [served.token], seconds), took)


def open_streams(number: int, seconds: float) -> Point:
    """That have had their first chunk and are silent since."""
    several = max(1, -(-number // _PER_INSTANCE))
    policy = (
        f"[resources]\npids_max = 512\n[calls]\nconcurrency = {_PER_INSTANCE}\nqueue = 1000\n"
        f"[scaling]\ninstances_min = {several}\ninstances_max = {several}\n"
    )
    with daemon(spares=1, others=[streams.COUNTING], policy=policy) as served, contextlib.ExitStack() as stack:
        _wait(served, 2 * several)
        began = time.monotonic()
        for _ in range(number):
            stack.enter_context(_held(served))
        took = time.monotonic() - began
        return _point("open streams", number, served, _calls(served, [served.token], seconds), took)


def principals(number: int, seconds: float) -> Point:
    """Callers with a token of their own each, in turn, and a limit for each."""
    with daemon(spares=1, config='[limits.principal]\nrate = "100000/s"\n') as served:
        directory = state.open_existing(served.state_dir)
        key = signing.create_or_open(str(directory.keys))
        began = time.monotonic()
        tokens = [
            signing.mint(
                key, issuer=directory.issuer, audience=directory.audience, subject=f"caller-{index}", agents=None,
                ttl_seconds=3600,
            )
            for index in range(number)
        ]  # fmt: skip
        took = time.monotonic() - began
        _wait(served, 1)
        return _point("principals", number, served, _calls(served, tokens, seconds), took)


DIMENSIONS: dict[str, Callable[[int, float], Point]] = {
    "instances": instances, "agents": agents, "streams": open_streams, "principals": principals,
}  # fmt: skip


def _point(of: str, number: int, served: Daemon, latencies: Sequence[float], took: float) -> Point:
    rows = _rows(served)
    supervisor = next(row.pid for row in served.listing().daemons if row.name == "supervisor")
    return Point(
        of=of, number=number, p50_ms=statistics.median(latencies) * 1e3, p99_ms=quantile(latencies, 0.99) * 1e3,
        gateway=pss(dict(served.endpoint().processes)["gateway"]), supervisor=pss(supervisor),
        instances=sum(pss(pid) for row in rows for pid in (row.pid, row.reaper_pid)), up_seconds=took,
    )  # fmt: skip


def _calls(served: Daemon, tokens: Sequence[str], seconds: float) -> list[float]:
    """Seconds of each call, and of at least one for each token; BenchmarkError where one is not answered."""
    connection = http.client.HTTPConnection(*served.address, timeout=60)
    found: list[float] = []
    path, body = served.path("echo"), b'{"text":"hello"}'
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end or len(found) < len(tokens):
            token = tokens[len(found) % len(tokens)]
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            began = time.perf_counter()
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            found.append(time.perf_counter() - began)
            if answer.status != 200:
                raise BenchmarkError(f"a call was answered with {answer.status} {content[:200]!r}")
    finally:
        connection.close()
    return found


@contextlib.contextmanager
def _held(served: Daemon) -> Iterator[None]:
    """One stream that has begun."""
    body = json.dumps({"seconds": _HOLD_SECONDS}).encode()
    head = (
        f"POST {served.path('hold_stream', agent='counting')} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {served.token}\r\nContent-Type: application/json\r\n"
        f"Accept: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(served.address, timeout=30) as connection:
        connection.sendall(head.encode() + body)
        said = b""
        while b"event: chunk" not in said:
            piece = connection.recv(65536)
            if not piece or len(said) > 65536:
                raise BenchmarkError(f"a stream did not begin: {(said + piece)[:300]!r}")
            said += piece
        yield


def _copy(place: Path, index: int) -> Path:
    """The echo under another name."""
    folder = place / f"echo-{index}"
    shutil.copytree(AGENT, folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "runagent.config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "agent_name": f"echo-{index}"}), encoding="utf-8")
    return folder


def _rows(served: Daemon) -> list[admin.InstanceRow]:
    return [row for row in served.listing().instances if row.state == "ready"]


def _wait(served: Daemon, number: int) -> float:
    """Seconds until so many instances are ready, and the spare is there."""
    began = time.monotonic()
    while len(_rows(served)) < number or not served.listing().spares:
        if time.monotonic() - began > _UP_SECONDS:
            raise BenchmarkError(f"{len(_rows(served))} of {number} instances are ready after ten minutes")
        time.sleep(0.02)
    return time.monotonic() - began


def main() -> int:
    """The exit status: whether everything was measured."""
    parser = argparse.ArgumentParser(prog="benchmarks.growth", description="Latency and memory as everything grows.")
    parser.add_argument(
        "of", nargs="*", choices=(*DIMENSIONS, []), metavar="PART", help=f"{', '.join(DIMENSIONS)} (default: all)"
    )
    parser.add_argument("--most", type=int, default=100, choices=STEPS, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=3.0, help="of calls at each step (default: %(default)s)")
    arguments = parser.parse_args()
    points: list[Point] = []
    failures: list[str] = []
    try:
        require_root()
    except BenchmarkError as error:
        print(f"benchmarks.growth: {error}", file=sys.stderr)
        return 1
    here = machine.look()
    print("\n".join(report.machine_lines(here)), end="\n\n", flush=True)
    for name in arguments.of or DIMENSIONS:
        for number in STEPS:
            if number > arguments.most:
                break
            try:
                points.append(DIMENSIONS[name](number, arguments.seconds))
            except (BenchmarkError, OSError, http.client.HTTPException) as error:
                failures.append(f"{number} {name}: {error}")
                break
            print("  ".join(points[-1].cells()), flush=True)
    print()
    print("\n".join(markdown(points)))
    for failure in failures:
        print(f"benchmarks.growth: {failure}", file=sys.stderr)
    RESULT.parent.mkdir(exist_ok=True)
    found = [{name: getattr(point, name) for name in Point.__slots__} for point in points]
    RESULT.write_text(json.dumps({"load": here.load, "points": found}, indent=1) + "\n", encoding="utf-8")
    return 1 if failures else 0


def markdown(points: Sequence[Point]) -> Iterator[str]:
    """The table."""
    yield f"| {' | '.join(_HEAD)} |"
    yield f"|{'---|' * len(_HEAD)}"
    for point in points:
        yield f"| {' | '.join(point.cells())} |"


if __name__ == "__main__":
    sys.exit(main())
