"""Idempotency-Key on a real daemon whose gateway is killed at the worst moments: nothing ever runs twice."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sqlite3
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any

import pytest

from runagentd.gateway.kept import idempotency
from tests.system.daemon import Daemon, serve
from tests.system.folders import agent

pytestmark = [pytest.mark.root, pytest.mark.slow]

SOURCE = """
    import time

    RUNS = []

    def pay(order: str, seconds: float = 0.0) -> int:
        RUNS.append(order)
        time.sleep(seconds)
        return RUNS.count(order)

    def runs(order: str) -> int:
        return RUNS.count(order)
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with serve([agent(tmp_path_factory.mktemp("once"), "shop", SOURCE, "pay", "runs")]) as running:
        yield running


def pay(daemon: Daemon, order: str, seconds: float = 0.0) -> tuple[int, Any, bool]:
    """(status, the answer, whether it was replayed). Any: JSON."""
    parts = urllib.parse.urlsplit(daemon.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    fields = {"Authorization": f"Bearer {daemon.token}", "Idempotency-Key": f'"the-number-of-order-{order}"'}
    try:
        body = json.dumps({"order": order, "seconds": seconds})
        connection.request(
            "POST", "/v1/agents/shop/entrypoints/pay:invoke", body, {**fields, "Content-Type": "application/json"}
        )
        got = connection.getresponse()
        return got.status, json.loads(got.read()), got.headers.get("Idempotency-Replayed") == "true"
    finally:
        connection.close()


def kill_gateway(daemon: Daemon) -> None:
    """And wait until its successor answers."""
    pid = daemon.gateway_pid()
    assert pid > 1
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError, HTTPException, StopIteration, ValueError):
            if daemon.gateway_pid() != pid and daemon.call("shop", "runs", {"order": "-"}, timeout=5) == (200, 0):
                return
        assert time.monotonic() < end, daemon.log.read_text()[-2000:]
        time.sleep(0.02)


def wait_until_written_down(daemon: Daemon) -> None:
    """Until the ledger holds a call that runs."""
    end = time.monotonic() + 10
    path = daemon.state_dir / "gateway" / idempotency.NAME
    while True:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            if database.execute("SELECT 1 FROM keys WHERE state = ?", (idempotency.RUNNING,)).fetchone() is not None:
                return
        assert time.monotonic() < end
        time.sleep(0.01)


def runs(daemon: Daemon, order: str) -> int:
    status, count = daemon.call("shop", "runs", {"order": order})
    assert status == 200
    return int(count)


def test_a_result_survives_the_gateway(daemon: Daemon) -> None:
    """Replayed by its successor; the function ran once."""
    assert pay(daemon, "a") == (200, 1, False)
    kill_gateway(daemon)
    assert pay(daemon, "a") == (200, 1, True)
    assert runs(daemon, "a") == 1


def test_a_call_that_was_cut_off_never_runs_again_by_its_key(daemon: Daemon) -> None:
    """Killed while the function runs: nobody knows what came of it, and that is what the key says."""
    broken = threading.Event()

    def caller() -> None:
        try:
            pay(daemon, "b", 2.0)
        except (OSError, HTTPException):
            broken.set()

    thread = threading.Thread(target=caller)
    thread.start()
    wait_until_written_down(daemon)
    assert pay(daemon, "b", 2.0)[0] == 409
    kill_gateway(daemon)
    thread.join(20)
    assert broken.is_set()
    for _ in range(3):
        status, problem, _ = pay(daemon, "b", 2.0)
        assert (status, problem["code"]) == (409, "IDEMPOTENCY_OUTCOME_UNKNOWN")
    assert runs(daemon, "b") <= 1


def test_at_most_once_whenever_the_gateway_dies(daemon: Daemon) -> None:
    """Clients that insist, and a gateway that is killed five times under them."""
    over = threading.Event()
    seen: dict[str, set[int]] = {}

    def insist(name: str) -> None:
        number = 0
        while not over.is_set():
            order = f"{name}-{number}"
            with contextlib.suppress(OSError, HTTPException, ValueError):
                status, answered, _ = pay(daemon, order, 0.002)
                if status == 200:
                    seen.setdefault(order, set()).add(answered)
                if status == 200 or (isinstance(answered, dict) and answered.get("code", "").endswith("UNKNOWN")):
                    number += 1

    threads = [threading.Thread(target=insist, args=(f"c{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            time.sleep(0.3)
            kill_gateway(daemon)
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert len(seen) > 5
    assert {frozenset(answers) for answers in seen.values()} == {frozenset({1})}
