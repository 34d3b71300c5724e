"""The hostile clients: processes in a cgroup of half a processor, so that the machine itself is not the limit.

Runs as: `make siege`, root.
Reads from strangers: nothing; what clients say was made by this checkout.
The cgroup is made, limited and removed as the supervisor does it with those of instances, on v1 and v2.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.processes import ROOT, BenchmarkError
from benchmarks.siege.attackers import KINDS, TOKENS
from benchmarks.siege.judge import Flood
from runagentd.supervise.cgroup import CgroupHost, Group, own_layout

PROCESSORS = 0.5
_MEMORY_BYTES = 1024**3
_PIDS = 64
_GRACE_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one hostile client has done."""

    kind: str
    counts: Mapping[str, int]
    floods: Mapping[str, Flood]


class Attack:
    """Clients that are under way."""

    def __init__(self, processes: Mapping[str, subprocess.Popen[str]]) -> None:
        self._processes = processes

    def reports(self, seconds: float) -> tuple[Report, ...]:
        """What each of them says at its end, which is to come within `seconds`."""
        return tuple(_report(kind, process, seconds) for kind, process in self._processes.items())


class Cage:
    """The cgroup."""

    def __init__(self, group: Group) -> None:
        self._group = group

    @contextlib.contextmanager
    def attack(
        self, url: str, tokens: Mapping[str, str], *, seconds: float, kinds: Sequence[str] = tuple(KINDS)
    ) -> Iterator[Attack]:
        """All kinds at once, each from an address of its own, until they end by themselves or the block ends."""
        processes: dict[str, subprocess.Popen[str]] = {}
        try:
            for number, kind in enumerate(kinds):
                processes[kind] = _start(kind, url, f"127.0.0.{number + 2}", tokens, seconds)
            for kind, process in processes.items():
                if process.stdout is None or process.stdout.readline() != "ready\n":
                    raise BenchmarkError(f"the hostile client for {kind} does not start")
                # Only now: eight starts of Python would take the cage some seconds.
                self._confine(process.pid)
            for process in processes.values():
                if process.stdin is not None:
                    process.stdin.write("go\n")
                    process.stdin.flush()
            yield Attack(processes)
        finally:
            self._group.kill()
            for process in processes.values():
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        pipe.close()

    def _confine(self, pid: int) -> None:
        for descriptor in self._group.procs_fds():
            try:
                os.write(descriptor, str(pid).encode("ascii"))
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def cage() -> Iterator[Cage]:
    """A cgroup of half a processor below our own, until the block ends."""
    host = CgroupHost(own_layout(), f"siege{os.getpid()}", is_ours=lambda pid: pid == os.getpid())
    try:
        group = host.create("hostile")
        try:
            group.write_limits(memory_max=_MEMORY_BYTES, pids_max=_PIDS, cpu_max=PROCESSORS, cpu_weight=100)
            yield Cage(group)
        finally:
            group.end()
    finally:
        host.remove()


def _start(kind: str, url: str, address: str, tokens: Mapping[str, str], seconds: float) -> subprocess.Popen[str]:
    parts = urllib.parse.urlsplit(url)
    return subprocess.Popen(
        [
            sys.executable, "-m", "benchmarks.siege.attackers", kind, "--seconds", str(seconds), "--address", address,
            "--host", parts.hostname or "", "--port", str(parts.port), "--path", parts.path,
        ],
        cwd=ROOT, env={**os.environ, TOKENS: json.dumps(dict(tokens))},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _report(kind: str, process: subprocess.Popen[str], seconds: float) -> Report:
    try:
        said, _ = process.communicate(timeout=seconds + _GRACE_SECONDS)
        found = json.loads(said.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise BenchmarkError(f"the hostile client for {kind} has said nothing at its end") from error
    floods = {name: Flood(**flood) for name, flood in found["floods"].items()}
    return Report(kind=kind, counts=found["counts"], floods=floods)
