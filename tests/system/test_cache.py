"""The response cache on a real daemon: kept across instances, and looked after by runagentctl."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.system.daemon import ROOT, Daemon, serve
from tests.system.folders import agent

SOURCE = """
    import time

    def now(text: str) -> float:
        return time.time()
"""


def ctl(daemon: Daemon, *arguments: str) -> str:
    command = [sys.executable, "-m", "runagentd.cli.runagentctl", *arguments, "--state-dir", str(daemon.state_dir)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


def test_answers_are_kept_until_they_are_purged(tmp_path: Path) -> None:
    """Also where the instance that made them is gone."""
    folder = agent(tmp_path, "clock", SOURCE, "now")
    path = folder / "runagent.config.json"
    config = json.loads(path.read_text())
    config["agent_architecture"]["entrypoints"][0]["cache"] = {"ttl": 600}
    path.write_text(json.dumps(config))
    with serve([folder]) as daemon:
        first = daemon.call("clock", "now", {"text": "a"})
        assert first[0] == 200
        assert daemon.call("clock", "now", {"text": "a"}) == first
        assert daemon.call("clock", "now", {"text": "b"}) != first
        before = daemon.row("clock").instance
        daemon.restart("clock")
        daemon.wait_until_ready("clock", other_than=before)
        assert daemon.call("clock", "now", {"text": "a"}) == first
        lines = ctl(daemon, "cache", "stats").splitlines()
        assert lines[0].split() == [
            "AGENT", "ENTRIES", "BYTES", "HITS", "STALE", "MISSES", "JOINED", "STORED", "EVICTED",
        ]  # fmt: skip
        assert lines[1].split()[:2] == ["clock", "2"]
        assert lines[1].split()[3:] == ["2", "0", "2", "0", "2", "0"]
        assert ctl(daemon, "cache", "purge", "--agent", "clock").startswith("purged: 2 entries\n")
        assert daemon.call("clock", "now", {"text": "a"}) != first
