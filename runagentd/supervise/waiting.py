"""Wait in the event loop until a descriptor has something to read.

Runs as: the supervisor.
Reads from strangers: nothing.
"""

from __future__ import annotations

import asyncio


async def readable(descriptor: int) -> None:
    """Return when `descriptor` is readable, which for a pidfd means that its process has ended (pidfd_open(2))."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    loop.add_reader(descriptor, wake)
    try:
        await future
    finally:
        loop.remove_reader(descriptor)
