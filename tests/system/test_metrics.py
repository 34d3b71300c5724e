"""A scrape of a real daemon: what both processes count, in one text."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.gateway.test_metrics import samples
from tests.system.daemon import ROOT, Daemon, serve
from tests.system.folders import agent

pytestmark = [pytest.mark.root, pytest.mark.slow]


ENDED = 'runagentd_instance_ends_total{agent="plain",cause="operator"}'


def scrape(daemon: Daemon) -> dict[str, float]:
    made = subprocess.run(
        [
            sys.executable, "-m", "runagentd.cli.runagentctl", "token", "create", "--subject", "prometheus",
            "--scope", "metrics:read", "--ttl", "1h", "--state-dir", str(daemon.state_dir),
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    request = urllib.request.Request(
        f"{daemon.url}/metrics", headers={"Authorization": f"Bearer {made.stdout.strip()}"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return samples(response.read().decode())


def test_calls_instances_and_what_they_use(tmp_path: Path) -> None:
    """Two calls, and an end by an operator."""
    source = "def echo(text: str) -> str:\n    return text\n"
    with serve([agent(tmp_path, "plain", source, "echo")]) as daemon:
        for _ in range(2):
            assert daemon.call("plain", "echo", {"text": "x"})[0] == 200
        before = daemon.row("plain").instance
        pressure = scrape(daemon)['runagentd_pressure_seconds_total{agent="plain",resource="cpu"}']
        daemon.restart("plain")
        daemon.wait_until_ready("plain", other_than=before)
        end = time.monotonic() + 20
        while ENDED not in (found := scrape(daemon)):  # figures are kept for a second
            assert time.monotonic() < end
    assert found['runagentd_calls_total{agent="plain",outcome="OK",tag="echo"}'] == 2
    assert found['runagentd_instances{agent="plain",state="ready"}'] == 1
    assert found[ENDED] == 1
    assert found["runagentd_supervisor_up"] == 1
    assert found['runagentd_spawn_seconds_count{step="seccomp"}'] == 2
    starts = [value for name, value in found.items() if name.startswith("runagentd_cold_starts_total")]
    assert sum(starts) == 2
    assert found['runagentd_memory_bytes{agent="plain"}'] > 1_000_000
    assert found['runagentd_memory_max_bytes{agent="plain"}'] == 256 * 1024 * 1024
    assert found['runagentd_cpu_seconds_total{agent="plain"}'] > 0
    assert found['runagentd_pressure_seconds_total{agent="plain",resource="cpu"}'] >= pressure
    assert found["runagentd_connections"] >= 1
    assert found["runagentd_connections_max"] > 100
