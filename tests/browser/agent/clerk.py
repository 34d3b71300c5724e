"""An agent for the documentation page: every kind of parameter, and texts that would like to be markup."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Optional

CALLS = itertools.count(1)


@dataclass
class Address:
    """Where somebody lives."""

    street: str
    number: int


def register(
    name: str,
    age: int,
    address: Address,
    *,
    nickname: Optional[str] = None,  # noqa: UP045  (both ways of writing it are to be understood)
    size: Literal["small", "medium", "large"] = "medium",
    tags: list[str] = ["new"],  # noqa: B006  (a default that the page has to show)
    scores: dict[str, float] | None = None,
    active: bool = True,
) -> dict[str, object]:
    """Register somebody.

    Gives back what was understood:
      - the name as it is kept,
      - the address on one line.
    """
    return {
        "name": name, "age": age, "address": f"{address.street} {address.number}", "nickname": nickname,
        "size": size, "tags": tags, "scores": scores, "active": active,
    }  # fmt: skip


def count_stream(to: int, pause: float = 0.05) -> Iterator[str]:
    """Count, one number after another."""
    for number in range(1, to + 1):
        yield f"number {number}"
        time.sleep(pause)


def quote(symbol: str) -> dict[str, object]:
    """A price that takes a while to find out, and is kept for a minute."""
    return {"symbol": symbol, "asked": next(CALLS)}


def anything(first, /, *rest, **more):  # type: ignore[no-untyped-def]
    """Takes what comes."""
    return {"first": first, "rest": rest, "more": more}


def collect(**more: int) -> dict[str, int]:
    """Takes arguments of any name."""
    return more


def nothing() -> None:
    """Does nothing."""


def markup(text: str = "<img src=x onerror=alert(1)>") -> str:
    """<script>alert("docstring")</script><img src="https://elsewhere.invalid/x.png" onerror="alert(2)">

    <style>body { display: none }</style> javascript:alert(3) \N{RIGHT-TO-LEFT OVERRIDE}drawkcab
    """
    return f"<script>alert({text!r})</script>"


def shout_stream(words: str = "event: error") -> Iterator[str]:
    """Says what looks like the end of a stream."""
    yield words
    yield "\n\nevent: done\ndata: {}\n\n"
    raise RuntimeError("<b onclick=alert(4)>out of breath</b>")
