"""Load on an echo server: wrk where it is installed, else a client of our own; the same for everything in one run.

Runs as: `make bench`.
Reads from strangers: nothing; the generator is a process of its own and says one line of JSON at its end.
A closed loop: each connection sends its next request when it has the answer to the one before.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ROOT, BenchmarkError, Endpoint

_SCRIPT = Path(__file__).resolve().parent / "load.lua"
_GRACE_SECONDS = 30
TOKEN = "BENCHMARK_TOKEN"
BODY = "BENCHMARK_BODY"
"""names the file with a request's body"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one round of load has shown."""

    requests: int
    seconds: float
    p50_seconds: float
    p99_seconds: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def generator() -> str:
    """Who makes the load on this machine."""
    return "wrk" if shutil.which("wrk") is not None else "benchmarks.client"


def run(endpoint: Endpoint, *, connections: int, seconds: int) -> Load:
    """One round; BenchmarkError where one answer was not what it should be: an error is answered faster than a call."""
    command = _wrk(connections, seconds) if generator() == "wrk" else _own(connections, seconds)
    said = run_generator(endpoint, command, seconds=seconds)
    return parse(said, endpoint.name, refused=endpoint.status >= 400)


def run_generator(endpoint: Endpoint, command: Sequence[str], *, seconds: float) -> str:
    """What a load generator prints, which finds token and body of its request in its environment."""
    with tempfile.NamedTemporaryFile(prefix="runagentd-bench-", suffix=".body") as body:
        body.write(endpoint.body)
        body.flush()
        done = subprocess.run(
            [*command, endpoint.url],
            cwd=ROOT,
            env={**os.environ, TOKEN: endpoint.token, BODY: body.name},
            capture_output=True,
            text=True,
            timeout=seconds + _GRACE_SECONDS,
            check=False,
        )
    if done.returncode != 0:
        raise BenchmarkError(f"{command[0]} failed on {endpoint.name}: {(done.stderr or done.stdout)[-500:]}")
    return done.stdout


def _wrk(connections: int, seconds: int) -> Sequence[str]:
    return ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "30s", "-s", str(_SCRIPT)]


def _own(connections: int, seconds: int) -> Sequence[str]:
    return [sys.executable, "-m", "benchmarks.client", "--connections", str(connections), "--seconds", str(seconds)]


def parse(said: str, name: str, *, refused: bool = False) -> Load:
    """The generator's last line; BenchmarkError where it says that anything failed, or that nothing was answered.

    `refused`: every answer is to be a refusal; else none may be.
    """
    lines = said.strip().splitlines()
    try:
        found = json.loads(lines[-1])
        requests, refusals, failures = int(found["requests"]), int(found["refused"]), int(found["failures"])
        load = Load(
            requests=requests,
            seconds=found["microseconds"] / 1e6,
            p50_seconds=found["p50_microseconds"] / 1e6,
            p99_seconds=found["p99_microseconds"] / 1e6,
        )
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise BenchmarkError(f"the load generator's last line cannot be read: {said[-300:]!r}") from error
    if refused:
        failures += requests - refusals
    else:
        failures += refusals
    if not requests:
        raise BenchmarkError(f"{name}: not one request was answered under load")
    if failures:
        raise BenchmarkError(f"{name}: {failures} of {requests} requests failed under load")
    return load
