"""What is answered without calling: kept answers and refusals, beside handlers that do nothing else. And open loop.

Runs as: `make bench`, root.
Reads from strangers: nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import load, peers
from benchmarks.processes import AGENT, BenchmarkError, Daemon, Endpoint, bare_aiohttp, check_echo, daemon
from benchmarks.rows import Measured, Row, Series, beside, without
from benchmarks.warm_call import OURS, Rounds, p50s, rates, series, take_turns

CACHED, REFUSED, OPEN = "cached", "refused", "open"
CACHED_TARGET = ">= 0.9"
KEPT = AGENT.parent / "kept"
_CONNECTIONS = 16
_OPEN_CONNECTIONS = 32
PER_SECOND = (200, 1000, 2000)
OPEN_PEERS = (peers.FASTAPI, peers.AIOHTTP)
BAD_TOKEN, NO_AGENT = "a token with a wrong signature (401)", "an agent that is not there (404)"


def cached(*, rounds: int, seconds: int, progress: Callable[[str], None]) -> Measured:
    """The same question again and again, beside a handler that always answers the same bytes."""
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(daemon(spares=1, others=[KEPT]))
        bare = stack.enter_context(bare_aiohttp())
        ours = other_path(served.endpoint(), served.url + served.path("echo", agent="kept"))
        check_echo(ours)
        same = other_path(bare, bare.url.replace("/echo", "/bytes"))
        cases = [("16", _CONNECTIONS, ours), ("16", _CONNECTIONS, same)]
        [found] = take_turns(cases, rounds=rounds, seconds=seconds, what="kept answers", progress=progress)
    return measured_cached(found)


def measured_cached(found: Rounds) -> Measured:
    """Calls a second, and latency."""
    ours, theirs = found.of(OURS), found.of(peers.AIOHTTP)
    name, peer = "an answer that was kept, 16 connections", "aiohttp, the same bytes"
    rows = [
        beside(CACHED, name, "calls/s", rates(ours), rates(theirs), peer, target=CACHED_TARGET),
        beside(CACHED, f"{name}, p50", "ms", p50s(ours), p50s(theirs), peer),
    ]
    return Measured(rows=rows, series=series([found]))


def refused(*, rounds: int, seconds: int, progress: Callable[[str], None]) -> Measured:
    """Two ways to be refused, beside a handler that refuses everything."""
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(daemon(spares=1))
        bare = stack.enter_context(bare_aiohttp())
        ours = served.endpoint()
        theirs = dataclasses.replace(other_path(bare, bare.url.replace("/echo", "/refused")), status=401)
        ways = {
            BAD_TOKEN: dataclasses.replace(ours, token=spoiled(ours.token), status=401),
            NO_AGENT: dataclasses.replace(other_path(ours, ours.url.replace(served.agent, "nobody")), status=404),
        }
        cases = [(way, _CONNECTIONS, one) for way, endpoint in ways.items() for one in (endpoint, theirs)]
        found = take_turns(cases, rounds=rounds, seconds=seconds, what="refusals", progress=progress)
    return measured_refused(found)


def measured_refused(found: Sequence[Rounds]) -> Measured:
    """Refusals a second."""
    rows = [
        beside(
            REFUSED, f"{way.case}, 16 connections", "calls/s", rates(way.of(OURS)), rates(way.of(peers.AIOHTTP)),
            "aiohttp, always 401",
        )
        for way in found
    ]  # fmt: skip
    return Measured(rows=rows, series=series(found))


def spoiled(token: str) -> str:
    """The token with another signature of the same length."""
    head, _, signature = token.rpartition(".")
    return f"{head}.{signature[:-8]}{'A' * 8 if not signature.endswith('A' * 8) else 'B' * 8}"


def other_path(endpoint: Endpoint, url: str) -> Endpoint:
    """The same server, asked at another URL."""
    return dataclasses.replace(endpoint, url=url)


# ---- open loop


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """One round of an open loop; milliseconds from the moments at which requests were due."""

    p50: float
    p99: float
    most: float


def open_loop(*, rounds: int, seconds: int, progress: Callable[[str], None]) -> Measured:
    """Three rates, each on each server in turn."""
    found: dict[tuple[int, str], list[Due]] = {}
    with contextlib.ExitStack() as stack:
        served: Daemon = stack.enter_context(daemon(spares=1))
        there, missing = peers.start_all(stack, OPEN_PEERS, progress)
        endpoints = [served.endpoint(), *there.values()]
        for endpoint in endpoints:
            check_echo(endpoint)
            load.run(endpoint, connections=_CONNECTIONS, seconds=1)
        for number in range(rounds):
            for rate in PER_SECOND:
                for endpoint in endpoints:
                    progress(f"open loop, round {number + 1} of {rounds}: {rate}/s on {endpoint.name}")
                    found.setdefault((rate, endpoint.name), []).append(_due(endpoint, rate, seconds))
    return measured_open(found, missing)


def _due(endpoint: Endpoint, per_second: int, seconds: int) -> Due:
    command = [
        sys.executable, "-m", "benchmarks.open_loop", "--connections", str(_OPEN_CONNECTIONS),
        "--per-second", str(per_second), "--seconds", str(seconds),
    ]  # fmt: skip
    said = json.loads(load.run_generator(endpoint, command, seconds=seconds))
    if said["failures"]:
        raise BenchmarkError(f"{endpoint.name}: {said['failures']} of {said['requests']} requests failed in open loop")
    return Due(
        p50=said["p50_microseconds"] / 1e3, p99=said["p99_microseconds"] / 1e3, most=said["most_microseconds"] / 1e3
    )  # fmt: skip


def measured_open(found: Mapping[tuple[int, str], Sequence[Due]], missing: Mapping[str, str]) -> Measured:
    """Medians of the rounds' quantiles."""
    rows: list[Row] = []
    values: Series = {}
    for (rate, name), rounds in found.items():
        values |= {
            f"{name}, {rate}/s, p50 ms": [one.p50 for one in rounds],
            f"{name}, {rate}/s, p99 ms": [one.p99 for one in rounds],
            f"{name}, {rate}/s, most ms": [one.most for one in rounds],
        }
    for rate in PER_SECOND:
        for peer in OPEN_PEERS:
            for quantile in ("p50", "p99"):
                name, unit = f"{rate:,} calls/s, {quantile} from when due", f"{rate}/s, {quantile} ms"
                ours, theirs = values[f"{OURS}, {unit}"], values.get(f"{peer}, {unit}")
                if theirs:
                    rows.append(beside(OPEN, name, "ms", ours, theirs, peer))
                else:
                    rows.append(without(OPEN, name, "ms", ours, peer, missing.get(peer, "not measured")))
    return Measured(rows=rows, series=values, missing=missing)
