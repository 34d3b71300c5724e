"""Collatz's walk as a graph: two nodes, and an edge that chooses between them until the number is 1."""

import operator
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph


class Walk(TypedDict):
    number: int
    path: Annotated[list[int], operator.add]


def halve(walk: Walk) -> dict[str, Any]:
    half = walk["number"] // 2
    return {"number": half, "path": [half]}


def grow(walk: Walk) -> dict[str, Any]:
    more = 3 * walk["number"] + 1
    return {"number": more, "path": [more]}


def next_node(walk: Walk) -> Literal["halve", "grow", "__end__"]:
    if walk["number"] == 1:
        return END
    return "grow" if walk["number"] % 2 else "halve"


_builder = StateGraph(Walk)
_builder.add_node("halve", halve)
_builder.add_node("grow", grow)
for _place in (START, "halve", "grow"):
    _builder.add_conditional_edges(_place, next_node)
graph = _builder.compile()


def _begin(number: int) -> Walk:
    if number < 1:
        raise ValueError(f"number: {number} is not above 0")
    return {"number": number, "path": [number]}


def run(number: int) -> dict[str, Any]:
    """The whole walk."""
    return graph.invoke(_begin(number), {"recursion_limit": 500})


async def arun(number: int) -> dict[str, Any]:
    """The same, on the event loop."""
    return await graph.ainvoke(_begin(number), {"recursion_limit": 500})


def run_stream(number: int) -> Iterator[dict[str, Any]]:
    """What each node has changed, as it comes."""
    yield from graph.stream(_begin(number), {"recursion_limit": 500}, stream_mode="updates")


async def arun_stream(number: int) -> AsyncIterator[dict[str, Any]]:
    """The same, on the event loop."""
    async for update in graph.astream(_begin(number), {"recursion_limit": 500}, stream_mode="updates"):
        yield update
