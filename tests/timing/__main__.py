"""`make timing`: ask a gateway two questions in turn, many times, and say whether a clock can tell their answers apart.

Runs as: anybody. The gateway is the real one, over loopback, in a process of its own, with a supervisor that a test
plays; loopback, because whatever cannot be seen there cannot be seen from further away.
Reads from strangers: nothing.

Both questions of a pair are asked one right after the other, in an order that is drawn anew; counted is how often the
one took longer (the sign test: what the machine does besides is the same for both, and a slow moment counts once). They
are told apart where that is 4.5 standard deviations from a half, in the same direction in two runs. The last rounds ask
gateways that leak on purpose. Exits 1 where a good gateway is told apart, or a leaky one is not.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.fakes_gateway import Gateway
from tests.timing.gateways import ABSENT, LEAKS, PAIRS, PRESENT, prepared

BOUND = 4.5
WARM = 200
"""Rounds before the first that counts: until then, everything is new to everybody."""


@dataclass(frozen=True)
class Result:
    """What a run found: how much longer the one question took in the median, and how sure it is that it did."""

    microseconds: float
    deviations: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.timing", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=20_000, help="of each question in a run (default: %(default)s)")
    parser.add_argument("--serve", choices=["", *LEAKS], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve)
        return 0
    wrong = 0
    print(f"{'question':76}{'difference':>12}{'σ':>9}{'σ again':>9}")
    for leak, pairs in [("", tuple(PAIRS)), *LEAKS.items()]:
        with started(leak) as (port, questions):
            for pair in pairs:
                runs = [compare(port, questions[pair], options.samples) for _ in range(2)]
                told = is_told(runs)
                wrong += told is not bool(leak)
                name = f"{pair}, leaking: {leak}" if leak else pair
                verdict = ("found out" if leak else "TOLD APART") if told else ("NOT FOUND OUT" if leak else "alike")
                found = f"{runs[0].microseconds:9.2f} µs{runs[0].deviations:9.1f}{runs[1].deviations:9.1f}"
                print(f"{name:76}{found}  {verdict}", flush=True)
    return 1 if wrong else 0


def is_told(runs: Sequence[Result]) -> bool:
    """Whether all runs saw the same."""
    return all(run.deviations > BOUND for run in runs) or all(run.deviations < -BOUND for run in runs)


def compare(port: int, questions: Mapping[str, Sequence[str]], samples: int) -> Result:
    """One run."""
    order = random.SystemRandom()
    texts = {name: [text.encode() for text in questions[name]] for name in (PRESENT, ABSENT)}
    differences = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(samples + WARM):
            taken = {}
            for name in order.sample((PRESENT, ABSENT), 2):
                text = texts[name][number % len(texts[name])]
                began = time.perf_counter_ns()
                connection.sendall(text)
                answer = connection.recv(65536)
                taken[name] = time.perf_counter_ns() - began
                if not answer.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 404 ")):
                    raise RuntimeError(answer[:200].decode("latin-1"))
            differences.append(taken[PRESENT] - taken[ABSENT])
    return judged(differences[WARM:])


def judged(differences: Sequence[int]) -> Result:
    """The sign test; ties are nobody's."""
    longer, shorter = sum(value > 0 for value in differences), sum(value < 0 for value in differences)
    return Result(median(differences) / 1000, (longer - shorter) / math.sqrt(longer + shorter))


@contextmanager
def started(leak: str) -> Iterator[tuple[int, dict[str, dict[str, list[str]]]]]:
    """A gateway in a process of its own: its port, and what can be asked of it."""
    command = [sys.executable, "-m", "tests.timing", "--serve", leak]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the gateway has no pipes")
        told = json.loads(process.stdout.readline())
        try:
            yield told["port"], told["questions"]
        finally:
            process.stdin.close()  # which ends it


def serve(leak: str) -> None:
    """Be that gateway, until nobody listens."""
    with tempfile.TemporaryDirectory(prefix="gw") as folder, Gateway(Path(folder)) as gateway:
        questions = prepared(gateway, leak)
        print(json.dumps({"port": gateway.port, "questions": questions}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    sys.exit(main())
