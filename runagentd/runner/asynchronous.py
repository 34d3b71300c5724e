"""The part of a call that runs in an event loop: await what the function returned, and pass a stream on.

Runs as: the runner, in the sandbox, on the thread that runs the loop.
Reads from strangers: see `calls`.
One task from begin to end: an asynchronous generator may hold a cancel scope or a lock that belongs to its task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from runagentd.runner import calls
from runagentd.runner.calls import Call, Unfinished
from runagentd.runner.handover import Limits


async def drive(
    call: Call, value: Any, changed: asyncio.Event, send: Callable[[bytes], None], limits: Limits
) -> bytes | Unfinished:
    """The closing frame, or something left to iterate over without a loop. `changed`: look at the credits again."""
    try:
        value = await calls.settled(value)
        if calls.is_asynchronous_stream(value):
            if not call.stream:
                await calls.aclose(value)
                raise calls.not_single(value)
            return await _pump(call, value, changed, send, limits)
        if calls.is_stream(value):
            return Unfinished(value)
        encoded = calls.encode(call, value, limits)
        return calls.whole_stream(call, encoded) if call.stream else calls.result_frame(call, encoded)
    except BaseException as error:  # noqa: BLE001  (a SystemExit that left the task would stop the loop)
        return calls.error_frame(call, error, limits)


async def _pump(
    call: Call, stream: Any, changed: asyncio.Event, send: Callable[[bytes], None], limits: Limits
) -> bytes:
    iterator = aiter(stream)
    try:
        while True:
            while call.chunks >= call.granted:
                changed.clear()
                await changed.wait()
            try:
                item = await anext(iterator)
            except StopAsyncIteration:
                return calls.end_frame(call)
            encoded = calls.encode(call, item, limits)
            call.chunks += 1
            send(calls.chunk_frame(call, encoded))
    finally:
        await calls.aclose(iterator)
