"""`python -m benchmarks.profile`: where the time of a call and of a start goes, stage by stage.

Runs as: root, in a checkout (the gateway between a client and a runner is the tests').
Reads from strangers: nothing; everything is on 127.0.0.1.
Three tables: what each stage of the gateway takes of its processor, what each step of a start takes, and which system
calls a call makes. The gateway is not changed for it: the functions are wrapped here, in a process of their own, and
what the wrapping costs is measured in the same run and taken off. A daemon that serves has none of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import cold_start, load, machine, report
from benchmarks.processes import ROOT, BenchmarkError, Endpoint, check_echo, daemon, require_root
from runagentd.gateway import plain, server
from runagentd.gateway.agents import Agent
from runagentd.gateway.exchanges import PlainExchange
from runagentd.gateway.pipeline import Pipeline, Running
from runagentd.log import Level
from runagentd.wire import channel, control
from tests.fakes_gateway import LIMITS, Gateway

_CONNECTIONS = 16
_ROUNDS = 20_000
"""of an empty function, for what the wrapping costs"""
STAGES: tuple[tuple[str, Any, str, bool], ...] = (  # Any: a module or a class
    ("request: head and body", plain, "parse", False),
    ("exchange: id, time, peer", PlainExchange, "__init__", False),
    ("record: begun", Running, "__init__", False),
    ("admit", Pipeline, "admit", False),
    ("authenticate: known already", Pipeline, "recall", False),
    ("authenticate: asked", Pipeline, "principal", True),
    ("authorize", Pipeline, "authorize", False),
    ("limit", Pipeline, "limit", False),
    ("decode", Pipeline, "decode", True),
    ("cache", Pipeline, "cache", False),
    ("route", Pipeline, "route", False),
    ("channel: call queued and sent", Agent, "submit", False),
    ("record: written", Running, "record", False),
    ("answer: head and body", server, "_whole", False),
    ("the rest of the pipeline", Pipeline, "run", True),
)
"""name, where, attribute, whether it is a coroutine function; in the order of a call"""


@dataclass(frozen=True, slots=True)
class Wrapping:
    """What taking the time of a stage costs, in nanoseconds: within the time that is taken, and around it."""

    inner: float
    outer: float


class Stages:
    """Time by stage, without that of the stages within. One thread, and no stage waits for another task.

    The clock is the thread's processor time: on a busy machine the others' share would go to whatever stage was open.
    """

    def __init__(self, wrapping: Wrapping, clock: Callable[[], int] = time.thread_time_ns) -> None:
        self._clock = clock
        self._wrapping = wrapping
        self._open: list[tuple[int, list[float]]] = []
        self.nanoseconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    def begin(self) -> None:
        """A stage begins, within those that are open."""
        self._open.append((self._clock(), [0.0]))

    def end(self, name: str) -> None:
        """The one that began last ends."""
        began, [within] = self._open.pop()
        took = self._clock() - began
        if self._open:
            self._open[-1][1][0] += took + self._wrapping.outer
        self.nanoseconds[name] = self.nanoseconds.get(name, 0.0) + took - within - self._wrapping.inner
        self.calls[name] = self.calls.get(name, 0) + 1

    def clear(self) -> None:
        """Forget all."""
        self.nanoseconds.clear()
        self.calls.clear()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:  # Any: whatever it is
        """The function, with its time taken."""

        @functools.wraps(function)
        def timed(*positional: Any, **named: Any) -> Any:
            self.begin()
            try:
                return function(*positional, **named)
            finally:
                self.end(name)

        return timed

    def around_coroutine(self, name: str, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Likewise; what it awaits is there already for the calls that are measured."""

        @functools.wraps(function)
        async def timed(*positional: Any, **named: Any) -> Any:
            self.begin()
            try:
                return await function(*positional, **named)
            finally:
                self.end(name)

        return timed


def wrapping() -> Wrapping:
    """As it is here and now: the least of several attempts."""

    def attempt() -> Wrapping:
        stages = Stages(Wrapping(0.0, 0.0))
        empty, nothing = stages.around("empty", _nothing), _nothing
        began = time.thread_time_ns()
        for _ in range(_ROUNDS):
            nothing()
        between = time.thread_time_ns()
        for _ in range(_ROUNDS):
            empty()
        whole = (time.thread_time_ns() - between - (between - began)) / _ROUNDS
        inner = stages.nanoseconds["empty"] / _ROUNDS - (between - began) / _ROUNDS
        return Wrapping(max(0.0, inner), max(0.0, whole - inner))

    return min((attempt() for _ in range(5)), key=lambda found: found.inner + found.outer)


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One stage: microseconds a call, and how often a call passes it."""

    name: str
    microseconds: float
    times: float


def lines(stages: Stages, wrapping: Wrapping, *, calls: int, total_ns: float) -> Iterator[Line]:
    """Each stage that was passed, and what is left of the gateway's processor time: event loop, sockets, tasks."""
    known = 0.0
    for name, _, _, _ in STAGES:
        if times := stages.calls.get(name, 0):
            own = max(0.0, stages.nanoseconds[name])
            known += own
            yield Line(name=name, microseconds=own / calls / 1e3, times=times / calls)
    wrapped = sum(stages.calls.values()) * (wrapping.inner + wrapping.outer)
    rest = max(0.0, total_ns - known - wrapped)
    yield Line(name="event loop, sockets, frames, tasks", microseconds=rest / calls / 1e3, times=1.0)
    yield Line(name="all of the gateway", microseconds=(known + rest) / calls / 1e3, times=1.0)


# ---- the gateway


def gateway_stages(seconds: int) -> list[Line]:
    """A gateway in this process, a runner and a client in others, so that nobody else wants its interpreter."""
    cost = wrapping()
    stages = Stages(cost)
    for name, owner, attribute, coroutine in STAGES:
        wrap = stages.around_coroutine if coroutine else stages.around
        setattr(owner, attribute, wrap(name, getattr(owner, attribute)))
    with tempfile.TemporaryDirectory(prefix="gw") as folder, Gateway(Path(folder), level=Level.INFO) as gateway:
        runner = gateway.ready("echo", limits=_limits())
        command = [sys.executable, "-m", "benchmarks.profile", "--runner", str(runner.socket.fileno())]
        other = subprocess.Popen(command, cwd=ROOT, pass_fds=[runner.socket.fileno()])
        try:
            endpoint = Endpoint(
                name="gateway", url=f"http://127.0.0.1:{gateway.port}/v1/agents/echo/entrypoints/echo:invoke",
                token=gateway.token(ttl=3600), processes=(),
            )  # fmt: skip
            check_echo(endpoint)
            load.run(endpoint, connections=_CONNECTIONS, seconds=1)
            gateway.inside(stages.clear)
            gateway.log_lines.clear()
            began = gateway.inside(time.thread_time_ns)
            found = load.run(endpoint, connections=_CONNECTIONS, seconds=seconds)
            total = gateway.inside(time.thread_time_ns) - began
        finally:
            other.kill()
            other.wait()
    return list(lines(stages, cost, calls=found.requests, total_ns=total))


def _limits() -> control.CallLimits:
    """The tests', with a queue for all connections, and time until the runner's process is there."""
    return dataclasses.replace(LIMITS, queue=64, deadline_ms=300_000)


def play_runner(descriptor: int) -> None:
    """Answer each call at once, in a process of its own, until the gateway is gone."""
    splitter = channel.Splitter(channel.FROM_GATEWAY)
    with socket.socket(fileno=descriptor) as connection:
        connection.settimeout(None)
        while data := connection.recv(65536):
            answers = [
                channel.pack(channel.Frame.RESULT, frame.call, b'{"type":"string"}', _text(frame.body))
                for frame in splitter.feed(data)
                if frame.type is channel.Frame.CALL
            ]
            connection.sendall(b"".join(answers))


def _text(body: bytes) -> bytes:
    """The argument of a call, as JSON."""
    return json.dumps(json.loads(body)[1]["text"]).encode()


# ---- a start


def start_steps(runs: int) -> list[str]:
    """Medians of both kinds of start, and of every step."""
    found = cold_start.measure(runs=runs, progress=lambda _: None)
    said = list(report.stage_lines(found))
    for name, starts in found.kinds:
        said.append(f"  every step, {name} (medians, ms)")
        said += [f"    {step:<42}{value / 1e6:8.3f}" for step, value in report.longest_steps(starts)]
    return said


# ---- system calls

_COUNT = re.compile(r"^\s*[0-9.]+\s+[0-9.]+\s+[0-9]+\s+([0-9]+)\s+(?:[0-9]+\s+)?(\S+)$")


def counts(said: str) -> dict[str, int]:
    """How often each was called, from what `strace -c` prints."""
    found = {match[2]: int(match[1]) for match in map(_COUNT.match, said.splitlines()) if match is not None}
    found.pop("total", None)
    return found


def system_calls(connections: int, seconds: int) -> dict[str, Mapping[str, float]]:
    """System calls a call, of gateway and runner, the most frequent first; BenchmarkError without strace."""
    if shutil.which("strace") is None:
        raise BenchmarkError("strace is not installed; apt-get install strace")
    with daemon(spares=1) as served:
        endpoint = served.endpoint()
        check_echo(endpoint)
        found: dict[str, Mapping[str, float]] = {}
        for name, pid in endpoint.processes:
            said, calls = _traced(pid, endpoint, connections, seconds)
            each = sorted(counts(said).items(), key=lambda item: (-item[1], item[0]))
            found[name] = {call: count / calls for call, count in each if count / calls >= 0.005}
        return found


def _traced(pid: int, endpoint: Endpoint, connections: int, seconds: int) -> tuple[str, int]:
    strace = subprocess.Popen(
        ["strace", "-f", "-c", "-p", str(pid)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    try:
        time.sleep(0.5)  # until it is attached: nothing tells when it is
        calls = load.run(endpoint, connections=connections, seconds=seconds).requests
    finally:
        strace.send_signal(signal.SIGINT)
        _, said = strace.communicate(timeout=30)
    return said, calls


# ---- the command


def main() -> int:
    """The exit status: whether everything was measured."""
    parser = argparse.ArgumentParser(prog="benchmarks.profile", description="Where the time goes.")
    parser.add_argument("--seconds", type=int, default=5, help="of load (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=20, help="starts of each kind (default: %(default)s)")
    parser.add_argument("--runner", type=int, metavar="FD", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.runner is not None:
        play_runner(arguments.runner)
        return 0
    try:
        require_root()
        print("\n".join(report.machine_lines(machine.look())), flush=True)
        # First, for the functions of this process are wrapped from then on: what follows is in daemons of its own.
        print(f"\na call in the gateway, {_CONNECTIONS} connections, µs")
        _print(gateway_stages(arguments.seconds))
        print("\na start")
        print("\n".join(start_steps(arguments.runs)), flush=True)
        for connections in (1, _CONNECTIONS):
            print(f"\nsystem calls a call, {connections} connection{'s' if connections > 1 else ''} (strace -c)")
            for name, found in system_calls(connections, min(arguments.seconds, 3)).items():
                each = ", ".join(f"{call} {count:.2f}" for call, count in found.items())
                print(f"  {name:<10}{sum(found.values()):6.2f}: {each}", flush=True)
    except BenchmarkError as error:
        print(f"benchmarks.profile: {error}", file=sys.stderr)
        return 1
    return 0


def _print(found: Sequence[Line]) -> None:
    for line in found:
        print(f"  {line.name:<40}{line.microseconds:8.2f}   {line.times:6.2f} times a call", flush=True)


if __name__ == "__main__":
    sys.exit(main())
