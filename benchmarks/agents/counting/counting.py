"""Streams of numbers, as fast as they are taken."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator


def count_stream(to: int) -> Iterator[int]:
    """The numbers from 0, so many of them."""
    yield from range(to)


def stamp_stream() -> Iterator[int]:
    """One chunk: when it was made, in nanoseconds of CLOCK_MONOTONIC, which sandboxes share with their host."""
    yield time.monotonic_ns()


async def hold_stream(seconds: float) -> AsyncIterator[int]:
    """One chunk, and then nothing for so long: an open stream that does not speak."""
    yield 0
    await asyncio.sleep(seconds)
