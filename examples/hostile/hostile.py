"""An agent that tries to get out, and reports honestly what happened.

Each way (see ways.py) is tried in a child process: one that works, or is killed for trying, ends there.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ways import WAYS, NothingThere, Way

SECONDS = 10.0


@dataclass(frozen=True)
class Report:
    """What happened to one attempt."""

    attempt: str
    area: str
    outcome: Literal["blocked", "killed", "open"]
    errno: str | None
    detail: str


def try_to_escape(area: str = "") -> list[Report]:
    """Try every way out, or those of one area.

    The areas are files, namespaces, credentials, kernel, network, processes and resources.
    """
    return list(try_to_escape_stream(area))


def try_to_escape_stream(area: str = "") -> Iterator[Report]:
    """The same, telling of each attempt as soon as it has ended."""
    areas = list(dict.fromkeys(way.area for way in WAYS))
    if area and area not in areas:
        raise ValueError(f"there is no area {area!r}; the areas are {', '.join(areas)}")
    for way in WAYS:
        if area in ("", way.area):
            yield _try(way)


def _try(way: Way) -> Report:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(_outcome(way)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb", buffering=0) as answer:
        if not select.select([answer], [], [], SECONDS)[0]:
            os.kill(child, signal.SIGKILL)
        said = answer.read(65536)
    _, status = os.waitpid(child, 0)
    if said:
        return Report(way.name, way.area, *json.loads(said))
    how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "ended without a word"
    return Report(way.name, way.area, "killed", None, how)


def _outcome(way: Way) -> tuple[str, str | None, str]:
    try:
        return "open", None, way.run()
    except NothingThere as nothing:
        return "blocked", None, str(nothing)
    except OSError as refused:
        number = refused.errno or 0
        return "blocked", errno.errorcode.get(number, str(number)), os.strerror(number)
