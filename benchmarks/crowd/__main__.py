"""`python -m benchmarks.crowd`: many callers, many instances, and clients that go away.

Runs as: root.
Reads from strangers: nothing.
Prints what was measured beside what was aimed at. The exit status says whether everything was measured.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence

from benchmarks import machine, report
from benchmarks.crowd import burst, cancel, fairness, thousand
from benchmarks.figures import quantile
from benchmarks.processes import BenchmarkError, require_root

PARTS = ("burst", "cancel", "fairness", "thousand")


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.crowd", description="Many callers, many instances.")
    parser.add_argument(
        "part", nargs="*", choices=(*PARTS, []), metavar="PART", help=f"{', '.join(PARTS)} (default: all)"
    )
    parser.add_argument("--clients", type=int, default=1000, help="that go away (default: %(default)s)")
    parser.add_argument("--instances", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=40.0, help="of the fairness part (default: %(default)s)")
    options = parser.parse_args()
    try:
        require_root()
        for line in report.machine_lines(machine.look()):
            print(line)
        for part in options.part or PARTS:
            print(f"\n{part}   (load average {os.getloadavg()[0]:.1f})")
            for line in _lines(part, options):
                print(f"  {line}", flush=True)
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    return 0


def _lines(part: str, options: argparse.Namespace) -> Iterator[str]:
    match part:
        case "burst":
            bursts = burst.measure(calls=100, rounds=10)
            yield f"first calls to an agent that sleeps, 100 at once: {bursts.answered} of {bursts.asked} answered"
            yield f"p50 {_ms(bursts.seconds, 0.5)}, p99 {_ms(bursts.seconds, 0.99)}   (target: all, p99 <= 500 ms)"
        case "cancel":
            cancels = cancel.measure(clients=options.clients)
            yield f"{options.clients} clients that went away: {cancels.leaked} calls leaked   (target: 0)"
            seen = [_ms(cancels.seen, share) for share in (0.5, 0.99, 1)]
            yield f"the function saw it after p50 {seen[0]}, p99 {seen[1]}, at most {seen[2]}   (target: 50 ms)"
            free = [_ms(cancels.free, share) for share in (0.5, 0.99, 1)]
            yield f"its place was free after p50 {free[0]}, p99 {free[1]}, at most {free[2]}   (target: 250 ms)"
            yield f"{cancels.replaced} instances were replaced because a call did not stop"
        case "fairness":
            fair = fairness.measure(seconds=options.seconds)
            yield f"beside a caller with half of its share: p50 {_ms(fair.quiet, 0.5)}, p99 {_ms(fair.quiet, 0.99)}"
            yield f"beside one that floods:                 p50 {_ms(fair.flooded, 0.5)}, p99 {_ms(fair.flooded, 0.99)}"
            ratio = quantile(fair.flooded, 0.99) / quantile(fair.quiet, 0.99)
            yield f"p99 x {ratio:.2f}, {fair.refused} refused   (target: at most 2, 0); the flood had "
            yield f"{fair.flood_answered} answers"
        case "thousand":
            many = thousand.measure(instances=options.instances)
            yield f"{many.instances} instances of the chat example, ready after {many.up_seconds:.1f} s"
            yield (
                f"a spawn: {many.first_spawns * 1000:.1f} ms the first, {many.last_spawns * 1000:.1f} ms the last, "
                f"x {many.last_spawns / many.first_spawns:.2f}   (target: at most 1.2)"
            )
            yield f"memory of each, reaper and runner: {many.pss_each / 2**20:.2f} MB PSS   (target: 5, then 3)"
            yield f"supervisor {many.supervisor / 2**20:.0f} MB, gateway {many.gateway / 2**20:.0f} MB"
            yield f"{many.answered} of {many.instances} calls at once answered, within {many.answer_seconds:.1f} s"


def _ms(seconds: Sequence[float], share: float) -> str:
    return f"{quantile(seconds, share) * 1000:.1f} ms"


if __name__ == "__main__":
    sys.exit(main())
