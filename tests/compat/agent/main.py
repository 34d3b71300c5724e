"""An agent that returns one of everything, so that each client's answer can be compared with a literal."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import decimal
import enum
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: float
    name: str | None = None


class Pair(NamedTuple):
    left: int
    right: str


class Plain:
    def __init__(self) -> None:
        self.shown = 1
        self._hidden = 2


class Crew:
    """Like CrewAI's result: its `to_dict` has nothing, its `model_dump` all."""

    def to_dict(self) -> dict[str, Any]:
        return {}

    def model_dump(self) -> dict[str, Any]:
        return {"raw": "the answer"}


# Any: one of everything.
VALUES: dict[str, Any] = {
    "text": "hi",
    "empty text": "",
    "unicode": 'naïve 日本語 🎉 \u2028 \x00 " \\ </script>',
    "integer": 7,
    "large integer": 2**80,
    "float": 1.5,
    "whole float": 2.0,
    "true": True,
    "none": None,
    "nan": float("nan"),
    "infinity": float("inf"),
    "list": [1, "two", None, True, 2.5],
    "empty list": [],
    "dict": {"a": 1, "b": ["c", {"d": None}]},
    "empty dict": {},
    "nested": {"a": {"b": {"c": [[[1]]]}}},
    "nan inside": {"x": [float("nan"), 1]},
    "tuple": (1, "a"),
    "set": {3, 1, 2},
    "bytes": b"\x00\xff",
    "datetime": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
    "date": datetime.date(2026, 1, 2),
    "decimal": decimal.Decimal("1.10"),
    "uuid": uuid.UUID("12345678-1234-5678-1234-567812345678"),
    "enum": Colour.RED,
    "dataclass": Point(1, 2.0),
    "named tuple": Pair(1, "r"),
    "object": Plain(),
    "framework object": Crew(),
    "like an error": {"type": "error", "error": "only data"},
    "like a frame": {"type": "status", "status": "stream_completed", "content": 1},
}


def give(what: str) -> Any:
    return VALUES[what]


def echo(*args: Any, **kwargs: Any) -> Any:
    return {"args": args, "kwargs": kwargs}


def typed(count: int, ratio: float = 0.5, *, names: list[str] | None = None) -> Any:
    return [count, ratio, names]


def nothing() -> None:
    print("printed, and not returned")


def fail(text: str) -> None:
    raise ValueError(text)


def rest(seconds: float) -> str:
    time.sleep(seconds)
    return f"rested {seconds} s"


def count(to: int) -> Iterator[int]:
    yield from range(to)


async def count_slowly(to: int, seconds: float) -> AsyncIterator[int]:
    for number in range(to):
        yield number
        await asyncio.sleep(seconds)


def give_all() -> Iterator[Any]:
    yield from VALUES.values()


def chunks_of(size: int, number: int) -> Iterator[str]:
    for _ in range(number):
        yield "x" * size


def break_off(after: int, text: str) -> Iterator[int]:
    yield from range(after)
    raise RuntimeError(text)
