"""Functions that wait until they are told to stop, and remember when that was."""

import asyncio
import time

SEEN: dict[str, int] = {}
STARTED: dict[str, int] = {}


def nap(name: str) -> None:
    """A plain function in a system call."""
    STARTED[name] = time.monotonic_ns()
    try:
        time.sleep(30)
    finally:
        SEEN[name] = time.monotonic_ns()


def spin(name: str) -> None:
    """A plain function that never waits."""
    STARTED[name] = time.monotonic_ns()
    try:
        while True:
            sum(range(100))
    finally:
        SEEN[name] = time.monotonic_ns()


async def anap(name: str) -> None:
    """A coroutine."""
    STARTED[name] = time.monotonic_ns()
    try:
        await asyncio.sleep(30)
    finally:
        SEEN[name] = time.monotonic_ns()


def count_stream(name: str):
    """A generator that yields every five milliseconds."""
    STARTED[name] = time.monotonic_ns()
    try:
        while True:
            time.sleep(0.005)
            yield time.monotonic_ns()
    finally:
        SEEN[name] = time.monotonic_ns()


def clock() -> int:
    """When this function began: the place before it is free by then."""
    return time.monotonic_ns()


def remembered() -> dict[str, list[int]]:
    """When each function began, and when it saw its end; 0 for never."""
    return {name: [began, SEEN.get(name, 0)] for name, began in STARTED.items()}
