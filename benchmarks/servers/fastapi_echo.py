"""What runagentd is compared with: the same function in a FastAPI application, in-process, with nothing around it.

Runs as: uvicorn, or granian, in an environment of their own.
Reads from strangers: the load generator's requests, on 127.0.0.1.
`async def`, so that no thread pool is in the way, and no response model: the fastest form that FastAPI's tutorial has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

app = FastAPI()


class Arguments(BaseModel):
    """The function's one argument, checked as the runner checks it."""

    text: str


@app.post("/echo", response_model=None)
async def echo(arguments: Arguments) -> Any:
    """The argument."""
    return arguments.text


class Count(BaseModel):
    """How many numbers."""

    to: int


@app.post("/sse", response_model=None)
async def events(count: Count) -> StreamingResponse:
    """Numbers as server-sent events."""

    async def numbers() -> AsyncIterator[bytes]:
        for number in range(count.to):
            yield b"event: chunk\nid: %d\ndata: %d\n\n" % (number + 1, number)
        yield b"event: done\ndata: {}\n\n"

    return StreamingResponse(numbers(), media_type="text/event-stream")
