"""What the three agents of this folder must answer: calls with literal results, for whoever serves them.

Runs as: the test process.
Reads from strangers: nothing.
The agents were written from the RunAgent format alone; they are served as they are, never edited to suit us.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call. `result` is the value, or the list of chunks of a `_stream` tag; `fails_with` an exception's type."""

    agent: str
    tag: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    fails_with: str | None = None


_EMMA = {"title": "Emma", "author": "Jane Austen", "published": "1815-12-23"}
_PERSUASION = {"title": "Persuasion", "author": "Jane Austen", "published": "1817-12-20"}

FOLDERS = {"Greeter": "greeter", "Librarian Agent": "librarian", "diary": "diary"}

CALLS = (
    Call(agent="Greeter", tag="greet", kwargs={"name": "Ada"}, result="Hello, Ada!"),
    Call(agent="Greeter", tag="greet", args=("Ada", "fr"), kwargs={"shout": True}, result="BONJOUR, ADA!"),
    Call(agent="Greeter", tag="greet", kwargs={"name": "Ada", "language": "xx"}, fails_with="KeyError"),
    Call(agent="Greeter", tag="count_down_stream", kwargs={"start": 2}, result=[2, 1, "lift-off"]),
    Call(agent="Greeter", tag="slow_greet", args=("Bo",), result={"greeting": "Hello, Bo!", "length": 2}),
    Call(agent="Greeter", tag="fail", kwargs={"reason": "test"}, fails_with="RuntimeError"),
    Call(
        agent="Librarian Agent",
        tag="lend",
        kwargs={"title": "Emma"},
        result={"title": "Emma", "days": 14, "library": "Town Library"},
    ),
    Call(agent="Librarian Agent", tag="lend", kwargs={"title": "Emma"}, fails_with="ValueError"),
    Call(agent="Librarian Agent", tag="search", args=("austen",), result={"books": [_EMMA, _PERSUASION]}),
    Call(
        agent="Librarian Agent",
        tag="first_title",
        kwargs={"author": "Stoker"},
        result={"title": "Dracula", "publisher": None},
    ),
    Call(
        agent="Librarian Agent", tag="walk_stream", kwargs={"author": "Jane Austen"}, result=[_EMMA, _PERSUASION]
    ),
    Call(agent="diary", tag="whoami", result=["somebody else", "cheerful", "home", True]),
    Call(
        agent="diary",
        tag="write",
        kwargs={"text": "It rained all day.", "day": 2},
        result={"day": 2, "text": "It rained all day.", "words": 4},
    ),
    Call(agent="diary", tag="read", kwargs={"day": 2}, result="It rained all day."),
    Call(agent="diary", tag="read_stream", kwargs={"day": 2}, result=["It", "rained", "all", "day."]),
    Call(agent="diary", tag="read", kwargs={"day": 9}, fails_with="FileNotFoundError"),
)
"""In this order, each agent on a fresh instance."""
