"""Traces in a real daemon: into the sandbox, back to the caller, into the history, and into a file for a Collector."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
import urllib.parse
from pathlib import Path

import pytest

from tests.system.ctl import run
from tests.system.daemon import Daemon, serve
from tests.system.folders import agent

pytestmark = [pytest.mark.root, pytest.mark.slow]

ID, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SOURCE = """
    from runagent_call import traceparent, tracestate

    def told() -> list:
        return [traceparent.get(), tracestate.get()]
"""


def call(daemon: Daemon, **fields: str) -> tuple[list[str | None], str]:
    """What the function was told, and what the caller was."""
    parts = urllib.parse.urlsplit(daemon.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.request(
        "POST", "/v1/agents/tracer/entrypoints/told:invoke", "{}", {"Authorization": f"Bearer {daemon.token}", **fields}
    )
    answer = connection.getresponse()
    told = json.loads(answer.read())
    connection.close()
    assert answer.status == 200, told
    return told, answer.getheader("traceresponse") or ""


def test_a_trace_goes_through_all_of_it(tmp_path: Path) -> None:
    """And a gateway that was killed goes on with the file that is there."""
    config = tmp_path / "runagentd.toml"
    config.write_text('[telemetry]\nspans = "file"\nshare = 0\n')
    with serve([agent(tmp_path, "tracer", SOURCE, "told")], options=["--config", str(config)]) as daemon:
        (parent, state), response = call(daemon, traceparent=f"00-{ID}-{SPAN}-01", tracestate="a=1")
        assert (str(parent)[:36], str(parent)[-3:], state) == (f"00-{ID}-", "-01", "a=1")
        assert response[:36] == f"00-{ID}-"
        (unrecorded, none), _ = call(daemon)
        assert (str(unrecorded)[-3:], none) == ("-00", None)
        file = daemon.state_dir / "gateway" / "spans" / "spans.jsonl"
        spans = read(file, 3)
        assert {span["traceId"] for span in spans} == {ID}
        by_id = {span["spanId"]: span for span in spans}
        function = by_id[str(parent).split("-")[2]]
        server = by_id[response.split("-")[2]]
        assert (function["parentSpanId"], server["parentSpanId"]) == (server["spanId"], SPAN)
        assert file.stat().st_mode & 0o777 == 0o644
        assert file.parent.stat().st_mode & 0o777 == 0o755
        assert daemon.state_dir.stat().st_mode & 0o777 == 0o700  # who may read it is decided here
        status, out, _ = run("calls", "--json", state=daemon.state_dir)
        traces = [json.loads(line)["trace_id"] for line in out.splitlines()]
        assert (status, traces[0], len(traces)) == (0, ID, 2)
        os.kill(daemon.gateway_pid(), signal.SIGKILL)
        daemon.wait_for_log("the gateway ended and is started again")
        end = time.monotonic() + 20
        while True:
            try:
                call(daemon, traceparent=f"00-{ID}-{SPAN}-01")
                break
            except (OSError, http.client.HTTPException, AssertionError):
                assert time.monotonic() < end
                time.sleep(0.05)
        assert len(read(file, 6)) >= 6


def read(file: Path, least: int) -> list[dict[str, str]]:
    """The spans in a file, once there are so many."""
    end = time.monotonic() + 20
    while True:
        lines = file.read_text().splitlines() if file.exists() else []
        spans = [
            span
            for line in lines
            for resource in json.loads(line)["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]
        if len(spans) >= least:
            return spans
        assert time.monotonic() < end, f"{len(spans)} spans"
        time.sleep(0.05)
