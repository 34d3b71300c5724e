# noqa: INP001  (an agent's folder is no package)
"""The agent of a rehearsal: parameters, defaults, a docstring, a generator, as real agents have them.

Runs as: the zygote and its spares (`runner.rehearsal`); nobody can call it.
Reads from strangers: nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MODULES = (asyncio, json, os, time)


@dataclass
class Greeting:
    """What `greet` gives."""

    text: str
    words: list[str] = field(default_factory=list)


def greet(name: str, times: int = 1, mood: str | None = None) -> dict[str, Any]:
    """Greet somebody."""
    greeting = Greeting(" ".join([f"Hello {name}!"] * times), [name, mood or ""])
    return {"text": greeting.text, "words": greeting.words, "length": len(json.dumps(greeting.text)), "half": 0.5}


def count(to: int) -> Iterator[int]:
    """Count, one number at a time."""
    yield from range(to)
