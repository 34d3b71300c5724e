"""`make runtimes`: agents on every other CPython that is found here, one version after the other.

Runs as: root. Each goes through the tests of the runner, the escape suite, and the tests of this folder, which pytest
does not enter by itself. The exit status says whether there was one, and whether all of it held.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests import tried
from tests.runtimes import found

TESTS = ("tests/runtimes", "tests/runner", "tests/escape/test_escape.py")


def main() -> int:
    """The exit status."""
    runtimes, unfit = found.find()
    for reason in unfit:
        print(f"make runtimes: left out: {reason}", file=sys.stderr)
    if not runtimes or (unfit and os.environ.get(found.VARIABLE)):
        print(
            "make runtimes: no other CPython from 3.11 on is here; install one, or name some:\n"
            f"{found.VARIABLE}=/opt/python3.13/bin/python3:/opt/python3.12/bin/python3 make runtimes",
            file=sys.stderr,
        )
        return 1
    failed = []
    for version, path in runtimes.items():
        print(f"Python {version}, {path}", flush=True)
        command = [sys.executable, "-m", "pytest", "--quiet", *TESTS]
        environment = {**os.environ, tried.VARIABLE: f"{version}={path}"}
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.append(version)
    words = f"not on {', '.join(failed)}" if failed else "on all of them"
    print(f"make runtimes: tried {', '.join(runtimes)}: all is well {words}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
