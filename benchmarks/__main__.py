"""`python -m benchmarks`: everything that we aim at, measured side by side with others, as ratios.

Runs as: root.
Reads from strangers: nothing.
The exit status says whether everything was measured, not how it came out: a figure is for people to judge.
A part that cannot be measured, or a peer that does not start, becomes a line of the table and ends nothing else.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import answers, cold_start, lives, load, machine, peers, report, streams, table, warm_call
from benchmarks.crowd import thousand
from benchmarks.processes import ROOT, BenchmarkError, require_root
from benchmarks.rows import Measured, PartRun, Result, Row, as_json, failed

RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything. The defaults take about twelve minutes."""

    runs: int
    rounds: int
    seconds: int
    instances: int
    clients: int
    times: int


Progress = Callable[[str], None]


def _cold(size: Size, progress: Progress) -> Measured:
    runs = cold_start.measure(runs=size.runs, progress=progress)
    return dataclasses.replace(cold_start.measured(runs), details=list(report.stage_lines(runs)))


def _warm(size: Size, progress: Progress) -> Measured:
    return warm_call.measured(*warm_call.measure(rounds=size.rounds, seconds=size.seconds, progress=progress))


def _payloads(size: Size, progress: Progress) -> Measured:
    found = warm_call.measure_payloads(rounds=size.rounds, seconds=size.seconds, progress=progress)
    return warm_call.measured_payloads(*found)


PARTS: Mapping[str, Callable[[Size, Progress], Measured]] = {
    "cold": _cold,
    "warm": _warm,
    "payloads": _payloads,
    "open": lambda size, say: answers.open_loop(rounds=size.rounds, seconds=size.seconds, progress=say),
    "cached": lambda size, say: answers.cached(rounds=size.rounds, seconds=size.seconds, progress=say),
    "refused": lambda size, say: answers.refused(rounds=size.rounds, seconds=size.seconds, progress=say),
    "streams": lambda size, say: streams.measure(rounds=size.rounds, progress=say),
    "isolated": lambda size, say: lives.isolated(rounds=size.rounds, seconds=size.seconds, progress=say),
    "memory": lambda size, say: lives.memory(instances=size.instances, progress=say),
    "burst": lambda size, say: lives.burst(bursts_wanted=size.rounds, progress=say),
    "cancel": lambda size, say: lives.cancel(clients=size.clients, progress=say),
    "kills": lambda size, say: lives.kills(times=size.times, progress=say),
}


def main() -> int:
    """The exit status."""
    arguments = _arguments()
    size = Size(
        runs=arguments.runs, rounds=arguments.rounds, seconds=arguments.seconds, instances=arguments.instances,
        clients=arguments.clients, times=arguments.times,
    )  # fmt: skip
    names = [name for name in PARTS if not arguments.only or name in arguments.only]
    try:
        require_root()
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    here = machine.look()
    _say(report.machine_lines(here))
    print(f"load by {load.generator()}\n")
    result, complete = _measured(names, size, here)
    path: Path = arguments.json
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_json(result), encoding="utf-8")
    print(f"written: {path}")
    return 0 if complete else 1


def _measured(names: Iterable[str], size: Size, here: machine.Machine) -> tuple[Result, bool]:
    rows: list[Row] = []
    parts: dict[str, PartRun] = {}
    series: dict[str, dict[str, list[float]]] = {}
    missing: dict[str, str] = {}
    complete = True
    for name in names:
        before, began = machine.load_average(), time.monotonic()
        try:
            found = PARTS[name](size, _progress)
        except (BenchmarkError, OSError, EOFError, http.client.HTTPException, subprocess.SubprocessError) as error:
            complete = False
            found = Measured(rows=[failed(name, f"{type(error).__name__}: {peers.last_line(str(error))}")], series={})
        parts[name] = PartRun(seconds=round(time.monotonic() - began, 1), load_before=before)
        rows += found.rows
        series[name] = {key: list(values) for key, values in found.series.items()}
        missing |= found.missing
        _say([f"{table.TITLES[name]}   ({parts[name].seconds:.0f} s)", *table.text_lines(found.rows), *found.details])
    everybody = [peer.as_row() for peer in peers.known(missing)]
    facts = {**dataclasses.asdict(here), "generator": load.generator(), "size": dataclasses.asdict(size)}
    result = Result(machine=facts, commit=_commit(), peers=everybody, parts=parts, rows=rows, series=series)
    return result, complete


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure this checkout on this machine.")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--runs", type=_positive, default=60, help="cold starts of each kind (default: %(default)s)")
    parser.add_argument("--rounds", type=_positive, default=5, help="rounds of load (default: %(default)s)")
    parser.add_argument("--seconds", type=_positive, default=2, help="of load in each round (default: %(default)s)")
    parser.add_argument("--instances", type=_instances, default=60, help="in memory (default: %(default)s)")
    parser.add_argument("--clients", type=_positive, default=1000, help="that go away (default: %(default)s)")
    parser.add_argument("--times", type=_positive, default=2, help="of each kill -9 (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: results/latest.json, or only-PART.json")
    arguments = parser.parse_args()
    if arguments.json is None:
        # The table of docs/ is of one whole run: a part that was measured by itself does not get into it by chance.
        name = f"only-{'-'.join(arguments.only)}" if arguments.only else "latest"
        arguments.json = RESULTS / f"{name}.json"
    return arguments


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 10000")
    return int(text)


def _instances(text: str) -> int:
    number = _positive(text)
    if not 2 * thousand.EDGE < number <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {2 * thousand.EDGE + 1} to 1000")
    return number


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _say(lines: Iterable[str]) -> None:
    _progress("")
    for line in lines:
        print(line.rstrip())
    print(flush=True)


def _progress(what: str) -> None:
    """On a terminal, one line that is overwritten; nothing in a log file."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
