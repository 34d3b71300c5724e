"""Each way in which a call or an instance can end, provoked in a real daemon, and what three witnesses say of it.

The witnesses are the caller, the daemon's log and /metrics. Each way has an agent of its own, so that what the log and
the metrics say of an agent is said of it.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.daemon import Daemon, serve
from tests.system.folders import agent, policy
from tests.system.test_causes import TAGS, WAYS_TO_END
from tests.system.test_metrics import scrape

WAIT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Way:
    """One way to end, and what each witness has to say: `outcome` of the call, `cause` of the instance's end."""

    name: str
    provoke: Callable[[Daemon, str], str]
    """given the agent; what the caller was told"""
    caller: str
    outcome: str | None
    """in the log's line of the call, and the label of runagentd_calls_total; None where no call ends"""
    cause: str | None = None
    """in the log's line of the instance, and the label of runagentd_instance_ends_total; None where none ends"""
    lost: str | None = None
    """the daemon's process that was lost: the foreman logs it, and the metric that counts such processes grows"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the witnesses said."""

    caller: str
    log: str
    metric: str


def _told(status: int, body: Any) -> str:
    if status == 200:
        return "200"
    return " ".join(str(part) for part in (status, body.get("code"), body.get("cause")) if part)


def _call(tag: str, **arguments: Any) -> Callable[[Daemon, str], str]:
    return lambda daemon, name: _told(*daemon.call(name, tag, arguments))


def _import_fails(daemon: Daemon, name: str) -> str:
    daemon.call(name, "crash_at_the_next_import")
    _until(lambda: daemon.row(name).last_cause == "import", "the agent does not fail to import")
    return _told(*daemon.call(name, "echo", {"text": "here"}))


def _during(act: Callable[[Daemon, str], None]) -> Callable[[Daemon, str], str]:
    """While a call runs."""

    def provoke(daemon: Daemon, name: str) -> str:
        told: list[str] = []

        def caller() -> None:
            try:
                told.append(_told(*daemon.call(name, "sleep_for_long", {"seconds": 30})))
            except (OSError, http.client.HTTPException):
                told.append("connection closed")

        thread = threading.Thread(target=caller)
        thread.start()
        _until(lambda: scrape(daemon).get(f'runagentd_calls_running{{agent="{name}"}}') == 1, "the call does not run")
        act(daemon, name)
        thread.join(WAIT_SECONDS)
        return told[0] if told else "nothing in time"

    return provoke


def _go_away(daemon: Daemon, name: str) -> str:
    parts = urllib.parse.urlsplit(daemon.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=WAIT_SECONDS)
    headers = {"Authorization": f"Bearer {daemon.token}", "Content-Type": "application/json"}
    path = f"/v1/agents/{name}/entrypoints/anap:invoke"
    connection.request("POST", path, json.dumps({"seconds": 30}), headers)
    _until(lambda: scrape(daemon).get(f'runagentd_calls_running{{agent="{name}"}}') == 1, "the call does not run")
    connection.close()
    return "gone"


def _let_sleep(daemon: Daemon, name: str) -> str:
    before = _told(*daemon.call(name, "echo", {"text": "here"}))
    _until(lambda: daemon.row(name).last_cause == "scale-down", "the instance does not end")
    return f"{before}, then {_told(*daemon.call(name, 'echo', {'text': 'here'}))}"


def _of_two_callers(daemon: Daemon, name: str) -> str:
    return f"{_asked(daemon, name, 'one')}, then {_asked(daemon, name, 'another')}"


def _asked(daemon: Daemon, name: str, subject: str) -> str:
    path = f"/v1/agents/{name}/entrypoints/echo:invoke"
    return _told(*daemon.request("POST", path, body={"text": "here"}, token=daemon.token_of(subject)))


def _lose_its_gateway(daemon: Daemon, name: str) -> str:
    before = _told(*daemon.call(name, "echo", {"text": "here"}))
    lost = daemon.gateway_pid()
    os.kill(lost, signal.SIGKILL)
    _until(lambda: daemon.row(name).last_cause == "gateway-lost", "the instance does not end")
    return f"{before}, then {_told(*daemon.call(name, 'echo', {'text': 'here'}))}"


def _kill_gateway(daemon: Daemon, name: str) -> None:
    os.kill(daemon.gateway_pid(), signal.SIGKILL)


def _kill_supervisor(daemon: Daemon, name: str) -> None:
    os.kill(next(row.pid for row in daemon.listing().daemons if row.name == "supervisor"), signal.SIGKILL)


WAYS = (
    Way("exception", _call("raise_it"), "502 FUNCTION_ERROR", "FUNCTION_ERROR"),
    Way("wrong argument", _call("echo", text=["no", "text"]), "422 VALIDATION_ERROR", "VALIDATION_ERROR"),
    Way("deadline", _call("anap", seconds=30), "504 TIMEOUT_ERROR deadline", "TIMEOUT_ERROR"),
    Way(
        "deadline, and it will not stop",
        _call("sleep_whatever_happens", seconds=60),
        "504 TIMEOUT_ERROR deadline",
        "TIMEOUT_ERROR",
        "deadline",
    ),
    Way("disconnect", _go_away, "gone", "CANCELLED"),
    Way("out of memory", _call("eat", mebibytes=400), "502 OUT_OF_MEMORY oom", "OUT_OF_MEMORY", "oom"),
    Way("seccomp", _call("call_as_x32"), "502 INSTANCE_DIED seccomp", "INSTANCE_DIED", "seccomp"),
    Way("signal", _call("kill", number=11), "502 INSTANCE_DIED signal", "INSTANCE_DIED", "signal"),
    Way("exit", _call("leave", status=3), "502 INSTANCE_DIED exit", "INSTANCE_DIED", "exit"),
    Way("crash at import", _import_fails, "503 IMPORT_ERROR import", "IMPORT_ERROR", "import"),
    Way(
        "operator",
        _during(lambda daemon, name: daemon.restart(name)),
        "502 INSTANCE_DIED operator",
        "INSTANCE_DIED",
        "operator",
    ),
    Way("policy", _call("echo", text="x" * 70_000), "413 PAYLOAD_TOO_LARGE", "PAYLOAD_TOO_LARGE"),
    Way("scale down", _let_sleep, "200, then 200", None, "scale-down"),
    Way("evicted", _of_two_callers, "200, then 200", None, "evicted"),
    Way("gateway lost", _during(_kill_gateway), "connection closed", None, None, "gateway"),
    Way("gateway lost, and its callers", _lose_its_gateway, "200, then 200", None, "gateway-lost"),
    Way(
        "supervisor lost",
        _during(_kill_supervisor),
        "502 INSTANCE_DIED supervisor-lost",
        "INSTANCE_DIED",
        None,
        "supervisor",
    ),
)
"""Those that cost a daemon process come last: counters begin anew with their process."""


def agent_of(way: Way) -> str:
    return way.name.replace(",", "").replace(" ", "-")


@contextmanager
def daemon_for(place: Path) -> Iterator[Daemon]:
    """With an agent for each way."""
    source = WAYS_TO_END + "\n    sleep_for_long = sleep\n"
    folders = [agent(place, agent_of(way), source, *TAGS, persistent_folders=["kept"]) for way in WAYS]
    for folder in folders:
        manifest = folder / "runagent.config.json"
        known = json.loads(manifest.read_text())
        known["agent_architecture"]["entrypoints"].append(
            {"file": "agent.py", "module": "sleep_for_long", "tag": "sleep_for_long"}
        )
        manifest.write_text(json.dumps(known))
    common = 'extends = "persistent"\n[calls]\ncancel_grace = "500ms"\nrequest_bytes = "64KiB"\n'
    short = policy(place, "short", common + 'deadline = "2s"\n')
    long = policy(place, "long", common + 'deadline = "40s"\n')
    sleeper = policy(place, "sleeper", common + '[scaling]\ninstances_min = 0\nidle = "1s"\n')
    apart = policy(place, "apart", common + 'isolation = "principal"\n[files]\npersistent = false\n')
    chosen = {
        "evicted": apart,
        "gateway-lost-and-its-callers": apart,
        "operator": long,
        "gateway-lost": long,
        "supervisor-lost": long,
        "disconnect": long,
        "scale-down": sleeper,
    }
    policies = [short, *(f"{name}={path}" for name, path in chosen.items())]
    with serve(folders, policies=policies, options=("--log-format", "json")) as daemon:
        yield daemon


def witness(daemon: Daemon, way: Way) -> Seen:
    """Provoke it, and ask all three."""
    name = agent_of(way)
    identity = daemon.row(name).agent
    told = way.provoke(daemon, name)
    log, metric = "", ""
    end = time.monotonic() + WAIT_SECONDS
    while True:  # the log and the metrics may be some moments behind the caller
        log, metric = _log(daemon, identity, way), _metric(daemon, name, way)
        if (log, metric) == expected(way)[1:] or time.monotonic() > end:
            return Seen(told, log, metric)
        time.sleep(0.05)


def expected(way: Way) -> tuple[str, str, str]:
    """What each witness has to say."""
    said = ", ".join(part for part in (way.outcome, way.cause, way.lost and f"the {way.lost} ended") if part)
    return way.caller, said, said


def _log(daemon: Daemon, identity: str, way: Way) -> str:
    found = []
    lines = [json.loads(line) for line in daemon.log.read_text().splitlines() if line.startswith("{")]
    if way.outcome is not None:
        calls = [line for line in lines if line.get("event") == "call" and line.get("agent") == identity]
        found += [line["outcome"] for line in calls][-1:]
    if way.cause is not None:
        ends = [line for line in lines if line.get("event") == "an instance ended" and line.get("agent") == identity]
        found += [line["cause"] for line in ends if line["cause"] == way.cause][-1:]
    if way.lost is not None and any(line.get("event", "").startswith(f"the {way.lost} ended") for line in lines):
        found.append(f"the {way.lost} ended")
    return ", ".join(found)


def _metric(daemon: Daemon, name: str, way: Way) -> str:
    try:
        samples = scrape(daemon)
    except OSError:
        return "no answer"
    found = []
    if way.outcome is not None and any(
        value > 0
        for sample, value in samples.items()
        if sample.startswith(f'runagentd_calls_total{{agent="{name}",outcome="{way.outcome}"')
    ):
        found.append(way.outcome)
    if way.cause is not None and samples.get(f'runagentd_instance_ends_total{{agent="{name}",cause="{way.cause}"}}', 0):
        found.append(way.cause)
    if way.lost is not None and samples.get(f"runagentd_{way.lost}s_total", 0) > 1:
        found.append(f"the {way.lost} ended")
    return ", ".join(found)


def _until(true: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(otherwise)
        time.sleep(0.02)
