"""The agent of the benchmarks: standard library only, and two functions that do next to nothing."""

import asyncio  # noqa: F401  (imported because agents of some use import it: a cold start includes that)
import json  # noqa: F401
import time

IMPORTED_NS = time.monotonic_ns()


def echo(text: str) -> str:
    """The argument."""
    return text


def clock() -> list[int]:
    """When this module had been imported, and now: nanoseconds of CLOCK_MONOTONIC."""
    return [IMPORTED_NS, time.monotonic_ns()]
