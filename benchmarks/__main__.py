"""`python -m benchmarks`: cold start and warm call, side by side with bubblewrap and FastAPI, as ratios.

Runs as: root.
Reads from strangers: nothing.
The exit status says whether everything was measured, not how it came out: a figure is for people to judge.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks import cold_start, load, machine, report, warm_call
from benchmarks.processes import BenchmarkError, require_root


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure this checkout on this machine.")
    parser.add_argument("--only", choices=("cold", "warm"), help="one of the two parts")
    parser.add_argument("--runs", type=_positive, default=60, help="cold starts of each kind (default: %(default)s)")
    parser.add_argument("--rounds", type=_positive, default=5, help="rounds of load (default: %(default)s)")
    parser.add_argument("--seconds", type=_positive, default=4, help="of load in each round (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured there")
    arguments = parser.parse_args()
    runs, rounds = None, None
    try:
        require_root()
        here = machine.look()
        _say(report.machine_lines(here))
        if arguments.only != "warm":
            runs = cold_start.measure(runs=arguments.runs, progress=_progress)
            _say(report.cold_start_lines(runs))
        if arguments.only != "cold":
            rounds = warm_call.measure(rounds=arguments.rounds, seconds=arguments.seconds, progress=_progress)
            _say(report.warm_call_lines(rounds, load.generator()))
    except BenchmarkError as error:
        _progress("")
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    if arguments.json is not None:
        found = report.as_json(here, runs, rounds, load.generator())
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 10000")
    return int(text)


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
