"""What runagentd is compared with: the same function in a FastAPI application, in-process, with nothing around it.

Runs as: uvicorn.
Reads from strangers: the load generator's requests, on 127.0.0.1.
`async def`, so that no thread pool is in the way, and no response model: the fastest form that FastAPI's tutorial has.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Arguments(BaseModel):
    """The function's one argument, checked as the runner checks it."""

    text: str


@app.post("/echo", response_model=None)
async def echo(arguments: Arguments) -> Any:
    """The argument."""
    return arguments.text
