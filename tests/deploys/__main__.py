"""`make deploys`: 20 deploys, 20 rollbacks, 5 broken deploys and 5 kill -9 of the supervisor, under load.

Prints what was done and what it took; exit status 1 where a call failed that had no right to, or the state is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from runagentd import state
from tests.deploys.deploys import deploys


def main() -> int:
    """One run."""
    parser = argparse.ArgumentParser(prog="make deploys")
    parser.add_argument("--seed", type=int, default=20261128)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="runagentd-deploys-", dir=state.SCRATCH) as place:
        findings = deploys(Path(place), deploys=20, rollbacks=20, broken=5, kills=5, seed=arguments.seed)
    for line in findings.lines():
        print(line)
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
