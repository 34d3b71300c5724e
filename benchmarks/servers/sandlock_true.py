"""sandlock's sandbox around /usr/bin/true, once for each line that comes in; answers with nanoseconds.

Runs as: a process of its own, in sandlock's environment.
Reads from strangers: nothing.
With --fork: what a clone of a sandboxed process costs, as the difference between many clones and one.
"""

from __future__ import annotations

import sys
import time

import sandlock

READABLE = ["/usr", "/lib", "/lib64", "/bin", "/etc", sys.prefix, sys.base_prefix]
MANY = 21


def run() -> int:
    """One sandbox, from its policy to the end of its program."""
    began = time.monotonic_ns()
    result = sandlock.Sandbox(fs_readable=READABLE).run(["/usr/bin/true"])
    took = time.monotonic_ns() - began
    if not result.success:
        raise RuntimeError(f"/usr/bin/true failed: {result}")
    return took


def fork() -> int:
    """One clone more."""
    return max(0, clones(MANY) - clones(1)) // (MANY - 1)


def clones(number: int) -> int:
    """A sandbox whose process is cloned so often; each clone does nothing."""
    sandbox = sandlock.Sandbox(fs_readable=READABLE, init_fn=lambda: None, work_fn=lambda _: None)
    began = time.monotonic_ns()
    made = sandbox.fork(number)
    took = time.monotonic_ns() - began
    if len(made.pids) != number:
        raise RuntimeError(f"{len(made.pids)} of {number} clones were made")
    return took


def main() -> None:
    way = fork if "--fork" in sys.argv[1:] else run
    for _ in sys.stdin:
        try:
            print(way(), flush=True)
        except (OSError, RuntimeError, sandlock.SandlockError) as error:
            print(f"sandlock: {error}".replace("\n", " "), flush=True)


if __name__ == "__main__":
    main()
