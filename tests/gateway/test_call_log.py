"""Calls become lines, and nobody can fill the disk with them."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter
from typing import Any

import pytest

from runagentd.gateway.call_log import CallLog
from runagentd.gateway.requests import CallRecord
from runagentd.log import Form, Level, Log
from tests.fakes_gateway import TRACE, Gateway


def record(outcome: str, peer: str = "192.0.2.1", instance: str | None = None) -> CallRecord:
    return CallRecord(
        request_id="1", door="native", peer=peer, subject=None, agent=None, tag=None, instance=instance,
        outcome=outcome, cause=None, started_unix=0.0, seconds=0.1, queue_seconds=None, request_bytes=None,
        result_bytes=0, chunks=0, principal=None, detail=None, client=None, trace=TRACE,
    )  # fmt: skip


class Written:
    """A log of calls whose clock a test moves. Any: JSON."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        monkeypatch.setattr("runagentd.gateway.call_log.time.monotonic_ns", lambda: round(self.seconds * 1e9))
        self._stream = io.StringIO()
        self.calls = CallLog(Log(self._stream, source="gateway", form=Form.JSON, level=Level.DEBUG))

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    def peers(self) -> Counter[str]:
        return Counter(line["peer"] for line in self.lines() if line["event"] == "call")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    return Written(monkeypatch)


def test_refusals_of_one_peer_are_so_many_lines_and_the_others_are_counted(written: Written) -> None:
    """200 at once and ten a second; a summary says how many more there were, by their codes."""

    async def flood() -> None:
        for second in range(3):
            written.seconds = float(second)
            for _ in range(500):
                written.calls.write(record("RATE_LIMIT_ERROR"))
            written.calls.write(record("AUTHENTICATION_ERROR"))
        written.calls.summarise()
        written.calls.summarise()

    asyncio.run(flood())
    assert written.peers() == {"192.0.2.1": 220}
    [summary] = [line for line in written.lines() if line["event"] != "call"]
    assert (summary["event"], summary["level"]) == ("refused calls that were not logged one by one", "warning")
    assert (summary["RATE_LIMIT_ERROR"], summary["AUTHENTICATION_ERROR"]) == (1280, 3)


def test_a_flood_leaves_room_for_what_happens_to_others(written: Written) -> None:
    """Another peer's refusals, and all calls that a runner had, whatever became of them."""

    async def flood() -> None:
        for _ in range(5000):
            written.calls.write(record("RATE_LIMIT_ERROR"))
        written.calls.write(record("AUTHENTICATION_ERROR", peer="192.0.2.2"))
        for _ in range(1000):
            written.calls.write(record("FUNCTION_ERROR", peer="192.0.2.3", instance="i"))
        written.calls.summarise()

    asyncio.run(flood())
    assert written.peers() == {"192.0.2.1": 200, "192.0.2.2": 1, "192.0.2.3": 1000}


def test_many_peers_together_are_bounded_too(written: Written) -> None:
    """Addresses cost little."""

    async def flood() -> None:
        for number in range(20_000):
            written.calls.write(record("RATE_LIMIT_ERROR", peer=f"2001:db8::{number:x}"))
        written.calls.summarise()

    asyncio.run(flood())
    assert sum(written.peers().values()) == 500


def test_a_gateway_that_is_flooded_says_so_at_its_end_at_the_latest(gateway: Gateway) -> None:
    """With real requests: 250 without a token."""
    for _ in range(250):
        assert gateway.ask("POST", "/v1/agents/a/entrypoints/b:invoke", b"{}", token=None).status == 401
    gateway.inside(gateway.application.close)
    logged = len(gateway.records())
    [summary] = [row for row in map(json.loads, gateway.log_lines) if row["event"].startswith("refused calls")]
    assert 200 <= logged < 250
    assert summary["AUTHENTICATION_ERROR"] == 250 - logged
