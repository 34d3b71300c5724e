"""`make causes`: provokes every way in which a call or an instance can end, and prints what three witnesses say.

Runs as: root. The exit status says whether all three told the truth each time.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.causes.provoke import WAYS, Seen, daemon_for, expected, witness

HEAD = ("what happens", "the caller is told", "the log says", "/metrics counts")


def main() -> int:
    """The exit status."""
    wrong = 0
    print(row(*HEAD))
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place, daemon_for(Path(place)) as daemon:
        for way in WAYS:
            seen = witness(daemon, way)
            print(row(way.name, seen.caller, seen.log, seen.metric), flush=True)
            if seen != Seen(*expected(way)):
                wrong += 1
                print(f"make causes: expected was {row(*expected(way))}", file=sys.stderr)
    print(f"\n{len(WAYS)} ways to end, {wrong} of them not told as they were")
    return int(wrong > 0)


def row(*cells: str) -> str:
    """A row of a table in Markdown; what is empty is a dash."""
    return f"| {' | '.join(cell or '–' for cell in cells)} |"


if __name__ == "__main__":
    sys.exit(main())
