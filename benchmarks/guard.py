"""`python -m benchmarks.guard`: has anything become slower? Ratios to a baseline of the same run, and instructions.

Runs as: root, when somebody asks for it; no test depends on it.
Reads from strangers: nothing.
The exit status says whether all limits of benchmarks/guard.toml held: 0 yes, 1 no, 2 not everything could be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import answers, cold_start, load, machine, peers, report
from benchmarks.figures import ratio
from benchmarks.processes import ROOT, BenchmarkError, Endpoint, bare_aiohttp, check_echo, daemon, require_root
from benchmarks.rows import Target, target
from benchmarks.warm_call import OURS, take_turns

LIMITS = Path(__file__).resolve().parent / "guard.toml"
NAMES = {
    "ratio": (
        "warm, 16 connections", "warm, 1 connection", "kept answer, 16 connections",
        "cold start, at its gate", "cold start, from a spare", "cold start, on demand",
    ),
    "instructions": ("gateway", "runner"),
}  # fmt: skip
_COUNTED = re.compile(r"^([0-9]+),[^,]*,instructions")


class LimitsError(Exception):
    """The file of limits cannot be used: what is wrong with it, and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What must hold, by name."""

    ratio: Mapping[str, Target]
    instructions: Mapping[str, Target]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One limit and what was seen. `seen` is None where it could not be, and `why` says so."""

    name: str
    limit: Target
    seen: float | None
    why: str = ""

    @property
    def holds(self) -> bool:
        """Whether it was seen to hold."""
        return self.seen is not None and self.limit.met(self.seen)

    def __str__(self) -> str:
        seen = "not measured" if self.seen is None else f"{self.seen:.3g}"
        state = "holds" if self.holds else f"unknown: {self.why}" if self.seen is None else "BROKEN"
        return f"{self.name:<44}{seen:>14}   {self.limit!s:<10} {state}"


def read(text: str) -> Limits:
    """The limits in the text of a file; `LimitsError` for an unknown key, and for a limit that is none."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LimitsError(f"guard.toml: {error}") from error
    if found.pop("version", None) != 1:
        raise LimitsError("guard.toml: version: must be 1")
    tables: dict[str, dict[str, Target]] = {}
    for section, known in NAMES.items():
        values = found.pop(section, {})
        tables[section] = {}
        for name, value in values.items():
            if name not in known:
                raise LimitsError(f"guard.toml: {section}.{name}: is not measured\nhint: one of {', '.join(known)}")
            try:
                tables[section][name] = target(value)
            except (ValueError, AttributeError) as error:
                raise LimitsError(f"guard.toml: {section}.{name}: {error}") from error
    if found:
        raise LimitsError(f"guard.toml: {next(iter(found))}: is not known")
    return Limits(ratio=tables["ratio"], instructions=tables["instructions"])


def verdicts(
    limits: Limits, ratios: Mapping[str, float], instructions: Mapping[str, float], why: str
) -> Iterator[Verdict]:
    """Each limit beside what was seen."""
    for name, limit in limits.ratio.items():
        yield Verdict(name=name, limit=limit, seen=ratios.get(name), why=why)
    for name, limit in limits.instructions.items():
        label = f"thousand instructions a call, {name}"
        yield Verdict(name=label, limit=limit, seen=instructions.get(name), why=why)


def unlimited(limits: Limits, instructions: Mapping[str, float], why: str) -> Iterator[str]:
    """What was counted and has no limit, or why nothing was counted."""
    if why:
        yield f"note: {why}"
    for name, seen in instructions.items():
        if name not in limits.instructions:
            yield f"note: {seen:.1f} thousand instructions a call in the {name}, for which guard.toml has no limit"


def status(found: Sequence[Verdict]) -> int:
    """A broken limit counts more than one that could not be measured."""
    if any(verdict.seen is not None and not verdict.holds for verdict in found):
        return 1
    return 2 if any(verdict.seen is None for verdict in found) else 0


# ---- measuring


def _ratios(*, rounds: int, seconds: int, runs: int) -> dict[str, float]:
    found: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(daemon(spares=1, others=[answers.KEPT]))
        bare = stack.enter_context(bare_aiohttp())
        ours = served.endpoint()
        kept = answers.other_path(ours, served.url + served.path("echo", agent="kept"))
        for endpoint in (ours, kept, bare):
            check_echo(endpoint)
        same = answers.other_path(bare, bare.url.replace("/echo", "/bytes"))
        cases = [
            ("warm, 16 connections", 16, ours), ("warm, 16 connections", 16, bare),
            ("warm, 1 connection", 1, ours), ("warm, 1 connection", 1, bare),
            ("kept answer, 16 connections", 16, kept), ("kept answer, 16 connections", 16, same),
        ]  # fmt: skip
        for seen in take_turns(cases, rounds=rounds, seconds=seconds, what="guard", progress=lambda _: None):
            mine, theirs = ([one.load.per_second for one in seen.of(name)] for name in (OURS, peers.AIOHTTP))
            found[seen.case] = ratio(mine, theirs).of_medians
    cold = cold_start.measure(runs=runs, progress=lambda _: None)
    if theirs_ns := cold.peers.get(peers.BWRAP):
        for kind, starts in cold.kinds:
            mine = [float(start.answered) for start in starts]
            found[f"cold start, {kind}"] = statistics.median(mine) / statistics.median(theirs_ns)
    return found


def _instructions(seconds: int) -> tuple[dict[str, float], str]:
    """Thousands a call, by process, and why there are none."""
    if shutil.which("perf") is None:
        return {}, "perf is not installed"
    with daemon(spares=1) as served:
        endpoint = served.endpoint()
        check_echo(endpoint)
        load.run(endpoint, connections=16, seconds=1)
        found = {}
        for name, pid in endpoint.processes:
            counted, calls = _count(pid, endpoint, seconds)
            if counted is None:
                return {}, "perf stat counts no instructions on this machine"
            found[name] = counted / calls / 1e3
    return found, ""


def _count(pid: int, endpoint: Endpoint, seconds: int) -> tuple[int | None, int]:
    """Instructions of a process while it gets load, and calls."""
    # "-x,": fields that a program can read. It counts until it is told to end (perf-stat(1)).
    perf = subprocess.Popen(
        ["perf", "stat", "-x,", "-e", "instructions:u", "-p", str(pid)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    try:
        time.sleep(0.3)  # until it is attached: nothing tells when it is
        calls = load.run(endpoint, connections=16, seconds=seconds).requests
    finally:
        perf.send_signal(signal.SIGINT)
        _, said = perf.communicate(timeout=30)
    return counted(said), calls


def counted(said: str) -> int | None:
    """The count in what `perf stat -x,` prints; None where the machine has no such counter."""
    for line in said.splitlines():
        match = _COUNTED.match(line)
        if match is not None:
            return int(match[1])
    return None


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.guard", description="Has anything become slower?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--runs", type=int, default=20)
    arguments = parser.parse_args()
    try:
        require_root()
        limits = read(LIMITS.read_text(encoding="utf-8"))
        print("\n".join(report.machine_lines(machine.look())), end="\n\n", flush=True)
        ratios = _ratios(rounds=arguments.rounds, seconds=arguments.seconds, runs=arguments.runs)
        instructions, why = _instructions(arguments.seconds)
    except (BenchmarkError, LimitsError) as error:
        print(f"benchmarks.guard: {error}", file=sys.stderr)
        return 2
    found = list(verdicts(limits, ratios, instructions, why or "see 'make bench'"))
    for verdict in found:
        print(verdict)
    print("\n".join(unlimited(limits, instructions, why)))
    if status(found) == 1:
        print(f"hint: measure again on a quiet machine; limits are in {LIMITS.relative_to(ROOT)}", file=sys.stderr)
    return status(found)


if __name__ == "__main__":
    sys.exit(main())
