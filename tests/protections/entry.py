"""The agent of `make protections`: it tries what it is told to try, and says what it observed.

Runs as: inside a served agent, as the agent; copied there as main.py.
Reads from strangers: nothing.
"""

from __future__ import annotations

from tests.escape.attempts import siblings
from tests.escape.attempts.everything import ATTEMPTS
from tests.escape.attempts.frame import Observation, observe, observe_here
from tests.protections.probes import PROBES, mark
from tests.protections.traces import TRACES

mark()


def attempt(name: str) -> dict[str, object]:
    """One attempt of the escape suite or one probe: what happened, and what may happen."""
    one = PROBES.get(name) or ATTEMPTS[name]
    return _answer(observe_here(one.run) if one.in_runner else observe(one.run), one.expect)


def plant(name: str) -> dict[str, object]:
    """The first half of an attempt of two siblings."""
    return _answer(observe_here(siblings.PAIRS[name].plant), ("open",))


def look(name: str) -> dict[str, object]:
    """The second half."""
    pair = siblings.PAIRS[name]
    return _answer(observe_here(pair.look), pair.expect)


def leave(name: str, said: str) -> dict[str, object]:
    """What one call leaves; `said` is an argument as any."""
    return _answer(observe_here(TRACES[name].plant), ("open",))


def find(name: str) -> dict[str, object]:
    """What another one finds of it."""
    return _answer(observe_here(TRACES[name].look), TRACES[name].expect)


def draw() -> dict[str, str]:
    """Random numbers."""
    return siblings.draw()


def seeds() -> dict[str, object]:
    """What is chosen when an interpreter starts: its hash seed, and where its functions lie."""
    return {"hash": hash("a text"), "function": id(len)}


def _answer(observed: Observation, expect: tuple[str, ...]) -> dict[str, object]:
    return {"word": observed.word, "detail": observed.detail, "expect": list(expect)}
