"""`make test`: all tests, in two runs at a time, for most of what they do is to wait for daemons and builders.

Runs as: root.
Reads from strangers: nothing.
The first run's dots are shown; what the second has said follows when both are over. The exit status is 0 if both are.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
APART = ("tests/system", "tests/deploys", "tests/frameworks", "tests/soak", "tests/causes")
"""What starts whole daemons, and takes about half of the time; the other run is everything else."""


def main(options: list[str]) -> int:
    command = [sys.executable, "-m", "pytest", *options]
    with tempfile.TemporaryFile() as said:
        beside = subprocess.Popen([*command, *APART], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            first = subprocess.run(
                [*command, *(f"--ignore={folder}" for folder in APART)], cwd=ROOT, stdin=subprocess.DEVNULL, check=False
            )
            second = beside.wait()
        except BaseException:
            beside.terminate()  # pytest ends what its tests have started
            beside.wait()
            raise
        said.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(b"\n" + ", ".join(APART).encode() + b":\n" + said.read())
        sys.stdout.flush()
    return first.returncode or second


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
