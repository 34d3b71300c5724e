"""`make soak SECONDS=600`: see `soak`. Prints what it did and what was wrong; the exit status says the latter, too."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import soak


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="load, kill, look")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1, help="another one calls and kills other things")
    parser.add_argument("--workers", type=int, default=2, help="how many processes read HTTP")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="runagentd-soak-") as place:
        findings = soak(Path(place), options.seconds, options.seed, workers=options.workers)
    for line in findings.lines():
        print(line)
    print("nothing was wrong" if not findings.wrong else f"{len(findings.wrong)} things were wrong")
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
