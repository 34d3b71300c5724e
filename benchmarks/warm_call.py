"""Warm call: a trivial function with everything on that exists, beside FastAPI with none of it, under the same load.

Runs as: `make bench`, root.
Reads from strangers: nothing.
runagentd: a token verified, the policy `base` applied, the call carried to a sandbox and its answer checked and logged.
FastAPI: the same function, in the process that answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import load
from benchmarks.load import Load
from benchmarks.processes import Endpoint, bare_aiohttp, check_echo, daemon, fastapi

CONNECTIONS = (1, 16)
_WARM_UP_SECONDS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of load on one server."""

    load: Load
    cpu_ns_per_call: dict[str, float]
    """by process; unlike calls a second this hardly changes when others are at work on the machine"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """What each server has shown with so many connections, round for round."""

    connections: int
    ours: tuple[Round, ...]
    fastapi: tuple[Round, ...]
    aiohttp: tuple[Round, ...]


def measure(*, rounds: int, seconds: int, progress: Callable[[str], None]) -> tuple[Rounds, ...]:
    """All servers run all the time and get load in turns, `rounds` times for so many seconds each."""
    found: dict[tuple[int, int], list[Round]] = {}
    with contextlib.ExitStack() as stack:
        endpoints = [
            stack.enter_context(daemon(spares=1)).endpoint(),
            stack.enter_context(fastapi()),
            stack.enter_context(bare_aiohttp()),
        ]
        for endpoint in endpoints:
            check_echo(endpoint)
            load.run(endpoint, connections=CONNECTIONS[-1], seconds=_WARM_UP_SECONDS)
        for number in range(rounds):
            for connections in CONNECTIONS:
                for index, endpoint in enumerate(endpoints):
                    progress(f"warm call, round {number + 1} of {rounds}: {connections} on {endpoint.name}")
                    seen = _round(endpoint, connections, seconds)
                    found.setdefault((connections, index), []).append(seen)
    return tuple(
        Rounds(
            connections=connections,
            ours=tuple(found[connections, 0]),
            fastapi=tuple(found[connections, 1]),
            aiohttp=tuple(found[connections, 2]),
        )
        for connections in CONNECTIONS
    )


def _round(endpoint: Endpoint, connections: int, seconds: int) -> Round:
    before = endpoint.cpu_ns()
    seen = load.run(endpoint, connections=connections, seconds=seconds)
    after = endpoint.cpu_ns()
    return Round(load=seen, cpu_ns_per_call={name: (after[name] - before[name]) / seen.requests for name in before})
