"""The escape suite as an agent: the same attempts that succeed outside, run from within a served sandbox.

Runs as: the agent, in its sandbox.
Reads from strangers: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.escape.attempts import channel, ends, everything, siblings
from tests.escape.attempts.frame import Observation, observe, observe_here


def list_attempts() -> list[dict[str, Any]]:
    """Every attempt with its area, its idea and what is expected."""
    return [
        {"name": one.name, "area": one.area, "idea": one.idea, "expect": list(one.expect)}
        for one in everything.ATTEMPTS.values()
    ]


def run_attempt(name: str) -> Observation:
    """Run one attempt."""
    one = everything.ATTEMPTS[name]
    return observe_here(one.run) if one.in_runner else observe(one.run)


def run_area(area: str) -> dict[str, Observation]:
    """Run all attempts of one area, one after the other."""
    return {one.name: run_attempt(one.name) for one in everything.ATTEMPTS.values() if one.area == area}


def plant(name: str) -> str:
    """Leave something for a sibling to find."""
    return siblings.PAIRS[name].plant()


def look(name: str) -> Observation:
    """Look for what a sibling has left."""
    return observe_here(siblings.PAIRS[name].look)


def draw() -> dict[str, str]:
    """Numbers that no other instance may draw as well."""
    return siblings.draw()


def break_protocol(name: str) -> str:
    """Misuse the runner's own channel; this call is not expected to be answered in peace."""
    return channel.BREACHES[name].run()


def send_more_than_was_asked() -> Iterator[str]:
    """A stream that sends chunks without the credits for them."""
    yield "first"
    channel.beyond_the_credits()
    yield "never"


def end(name: str) -> str:
    """End this instance in some way."""
    return ends.ENDS[name].run()


def echo(text: str = "") -> str:
    """Still here."""
    return text
