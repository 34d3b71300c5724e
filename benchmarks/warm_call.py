"""Warm call: a trivial function with everything on that exists, beside servers with none of it, under the same load.

Runs as: `make bench`, root.
Reads from strangers: nothing.
runagentd: a token verified, the policy `base` applied, the call carried to a sandbox and its answer checked and logged.
The others: the same function, in the process that answers or in a worker of the same user.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from benchmarks import load, peers
from benchmarks.load import Load
from benchmarks.processes import BenchmarkError, Endpoint, check_echo, daemon
from benchmarks.rows import Measured, Row, Series, alone, beside, without

PART, PAYLOADS = "warm", "payloads"
CONNECTIONS = (1, 16, 64)
OURS = "runagentd"
TARGETS: Mapping[tuple[int, str], str] = {(16, peers.FASTAPI): ">= 2.5", (16, peers.RUNAGENT): ">= 100"}
P50_TARGET = "<= 0.8"
PAYLOAD_BYTES = {"100 B": 100, "10 kB": 10_000, "1 MB": 1_000_000}
PAYLOAD_PEERS = (peers.FASTAPI, peers.AIOHTTP)
_WARM_UP_SECONDS = 1
_PAYLOAD_CONNECTIONS = 16
_SLOW_TIMES = 2
_SLOW_CONNECTIONS = 16
_LEFT_OUT = "not asked with more than 16 connections, for what it does when they have gone would disturb the others"
_IDLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of load on one server."""

    load: Load
    cpu_ns_per_call: dict[str, float]
    """by process; unlike calls a second this hardly changes when others are at work on the machine"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """What each server has shown in one case (so many connections, or such a payload), round for round."""

    case: str
    by: Mapping[str, tuple[Round, ...]]
    failed: Mapping[str, str] = field(default_factory=dict)
    """those that did not stand the load, and why"""

    def of(self, name: str) -> tuple[Round, ...]:
        """What one has shown; BenchmarkError, with the reason, where it has not stood the load."""
        if name not in self.by:
            raise BenchmarkError(f"{name}: {self.failed.get(name, 'not measured')}")
        return self.by[name]

    def why(self, peer: str, missing: Mapping[str, str]) -> str:
        """Why there is nothing of a peer here."""
        return self.failed.get(peer) or missing.get(peer, "not measured")


def measure(*, rounds: int, seconds: int, progress: Callable[[str], None]) -> tuple[tuple[Rounds, ...], dict[str, str]]:
    """All servers run all the time and get load in turns, `rounds` times for so many seconds each."""
    names = [name for name, _, _ in peers.SERVERS]
    with contextlib.ExitStack() as stack:
        endpoints, missing = _all(stack, names, progress)
        cases = [
            (str(number), number, endpoint)
            for number in CONNECTIONS
            for endpoint in endpoints
            if not endpoint.slow or number <= _SLOW_CONNECTIONS
        ]
        found = take_turns(cases, rounds=rounds, seconds=seconds, what="warm call", progress=progress)
    left_out = {endpoint.name: _LEFT_OUT for endpoint in endpoints if endpoint.slow}
    return tuple(
        replace(each, failed={**each.failed, **left_out}) if int(each.case) > _SLOW_CONNECTIONS else each
        for each in found
    ), missing


def measure_payloads(
    *, rounds: int, seconds: int, progress: Callable[[str], None]
) -> tuple[tuple[Rounds, ...], dict[str, str]]:
    """Texts of three lengths, there and back."""
    with contextlib.ExitStack() as stack:
        endpoints, missing = _all(stack, PAYLOAD_PEERS, progress)
        cases = [
            (name, _PAYLOAD_CONNECTIONS, endpoint.sending("x" * size))
            for name, size in PAYLOAD_BYTES.items()
            for endpoint in endpoints
        ]
        return take_turns(cases, rounds=rounds, seconds=seconds, what="payloads", progress=progress), missing


def _all(
    stack: contextlib.ExitStack, names: Sequence[str], progress: Callable[[str], None]
) -> tuple[list[Endpoint], dict[str, str]]:
    """Ours and those of the others that start and echo."""
    ours = stack.enter_context(daemon(spares=1)).endpoint()
    there, missing = peers.start_all(stack, names, progress)
    endpoints = [ours]
    check_echo(ours)
    for name, endpoint in there.items():
        try:
            check_echo(endpoint)
        except (OSError, BenchmarkError) as error:
            missing[name] = peers.last_line(str(error))
        else:
            endpoints.append(endpoint)
    for endpoint in endpoints:
        with contextlib.suppress(BenchmarkError):  # whoever fails will do so again when it counts
            load.run(endpoint, connections=16, seconds=_WARM_UP_SECONDS)
    return endpoints, missing


def take_turns(
    cases: Sequence[tuple[str, int, Endpoint]],
    *,
    rounds: int,
    seconds: int,
    what: str,
    progress: Callable[[str], None],
) -> tuple[Rounds, ...]:
    """Load on each case (its name, how many connections, what is called), `rounds` times all of them in turn.

    A peer that fails under it is named and left in peace; BenchmarkError where we do.
    """
    found: dict[str, dict[str, list[Round]]] = {}
    failed: dict[str, dict[str, str]] = {}
    for number in range(rounds):
        for case, connections, endpoint in cases:
            if endpoint.name in failed.setdefault(case, {}):
                continue
            progress(f"{what}, round {number + 1} of {rounds}: {case} on {endpoint.name}")
            try:
                seen = _round(endpoint, connections, seconds)
            except BenchmarkError as error:
                if endpoint.name == OURS:
                    raise
                failed[case][endpoint.name] = peers.last_line(str(error))
                found.get(case, {}).pop(endpoint.name, None)
                continue
            found.setdefault(case, {}).setdefault(endpoint.name, []).append(seen)
    return tuple(
        Rounds(case=case, by={name: tuple(each) for name, each in by.items()}, failed=failed[case])
        for case, by in found.items()
    )  # fmt: skip


def _round(endpoint: Endpoint, connections: int, seconds: int) -> Round:
    before = endpoint.cpu_ns()
    seen = load.run(endpoint, connections=connections, seconds=seconds * (_SLOW_TIMES if endpoint.slow else 1))
    after = endpoint.cpu_ns()
    _wait_until_idle(endpoint)
    return Round(load=seen, cpu_ns_per_call={name: (after[name] - before[name]) / seen.requests for name in before})


def _wait_until_idle(endpoint: Endpoint) -> None:
    """A slow server goes on with what was asked before the load ended, and would disturb whoever is next."""
    deadline = time.monotonic() + _IDLE_SECONDS
    while endpoint.slow and time.monotonic() < deadline:
        before = sum(endpoint.cpu_ns().values())
        time.sleep(0.2)
        if sum(endpoint.cpu_ns().values()) - before < 0.02e9:
            return


# ---- rows


def rates(rounds: Sequence[Round]) -> list[float]:
    """Calls a second."""
    return [one.load.per_second for one in rounds]


def p50s(rounds: Sequence[Round]) -> list[float]:
    """Medians of latencies, in milliseconds."""
    return [one.load.p50_seconds * 1e3 for one in rounds]


def p99s(rounds: Sequence[Round]) -> list[float]:
    """High quantiles of latencies, in milliseconds."""
    return [one.load.p99_seconds * 1e3 for one in rounds]


def cpu(rounds: Sequence[Round], process: str) -> list[float]:
    """Microseconds of processor time of one process, or of all together where `process` is empty, for a call."""
    return [
        (one.cpu_ns_per_call[process] if process else sum(one.cpu_ns_per_call.values())) / 1e3 for one in rounds
    ]  # fmt: skip


def series(found: Sequence[Rounds]) -> Series:
    """All values, for the file."""
    return {
        f"{name}, {rounds.case}, {what}": values
        for rounds in found
        for name, each in rounds.by.items()
        for what, values in (("calls/s", rates(each)), ("p50 ms", p50s(each)), ("p99 ms", p99s(each)))
    }


def measured(found: Sequence[Rounds], missing: Mapping[str, str]) -> Measured:
    """Calls a second beside everybody; latencies and processor time beside those that the targets name."""
    rows: list[Row] = []
    for rounds in found:
        ours, number = rounds.by[OURS], int(rounds.case)
        name = f"warm call, {rounds.case} connection{'' if number == 1 else 's'}"
        for peer, _, _ in peers.SERVERS:
            aim = TARGETS.get((number, peer))
            if peer in rounds.by:
                rows.append(beside(PART, name, "calls/s", rates(ours), rates(rounds.by[peer]), peer, target=aim))
            else:
                why = rounds.why(peer, missing)
                rows.append(without(PART, name, "calls/s", rates(ours), peer, why, target=aim))
        if peers.FASTAPI in rounds.by:
            theirs, aim = rounds.by[peers.FASTAPI], P50_TARGET if number == 1 else None
            rows.append(beside(PART, f"{name}, p50", "ms", p50s(ours), p50s(theirs), peers.FASTAPI, target=aim))
            rows.append(beside(PART, f"{name}, p99", "ms", p99s(ours), p99s(theirs), peers.FASTAPI))
        if number == 16:
            for process in ours[0].cpu_ns_per_call:
                rows.append(alone(PART, f"processor time a call, {process}", "µs", cpu(ours, process)))
            if peers.FASTAPI in rounds.by:
                both = (cpu(ours, ""), cpu(rounds.by[peers.FASTAPI], ""))
                rows.append(beside(PART, "processor time a call, all processes", "µs", *both, peers.FASTAPI))
    return Measured(rows=rows, series=series(found), missing=missing)


def measured_payloads(found: Sequence[Rounds], missing: Mapping[str, str]) -> Measured:
    """Calls a second, by the length of the text."""
    rows: list[Row] = []
    for rounds in found:
        name, ours = f"a text of {rounds.case} there and back, 16 connections", rates(rounds.by[OURS])
        for peer in PAYLOAD_PEERS:
            if peer in rounds.by:
                rows.append(beside(PAYLOADS, name, "calls/s", ours, rates(rounds.by[peer]), peer))
            else:
                rows.append(without(PAYLOADS, name, "calls/s", ours, peer, rounds.why(peer, missing)))
    return Measured(rows=rows, series=series(found), missing=missing)
