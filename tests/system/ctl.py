"""`runagentctl` as an operator types it, against a daemon of a test's, and what of it several tests need."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from runagentd.errors import HostError
from runagentd.foreman import admin_client
from runagentd.wire import admin
from tests.system.daemon import ROOT, Daemon


def run(*words: str | Path, state: Path | None = None) -> tuple[int, str, str]:
    """`runagentctl WORDS`: exit status, stdout, stderr; never a traceback."""
    state_words = [] if state is None else ["--state-dir", str(state)]
    command = [sys.executable, "-m", "runagentd.cli.runagentctl", *map(str, words), *state_words]
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback (most recent call last):\n  File" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def forget_all(daemon: Daemon) -> None:
    for agent_id in {row.agent for row in daemon.instances()}:
        reply = admin_client.ask(daemon.state_dir / "admin.sock", admin.Remove(agent=agent_id, version=""))
        assert reply == admin.Done()
    assert daemon.instances() == []


def with_token(daemon: Daemon) -> Daemon:
    """`serve` without folders has made no token."""
    status, out, _ = run("token", "create", "--subject", "test", state=daemon.state_dir)
    assert status == 0
    daemon.token = out.strip()
    return daemon


def ctl(daemon: Daemon, *words: str | Path) -> str:
    """What a command prints that goes well."""
    status, out, err = run(*words, state=daemon.state_dir)
    assert (status, err) == (0, "")
    return out


def versions(daemon: Daemon, name: str = "chat") -> dict[int, dict[str, Any]]:
    rows = json.loads(ctl(daemon, "versions", name, "--json"))["rows"]
    return {row["number"]: row for row in rows}


def states(daemon: Daemon) -> dict[int, str]:
    return {number: row["state"] for number, row in versions(daemon).items()}


def change(folder: Path, to: str) -> None:
    (folder / "agent.py").write_text(re.sub(r'"\w+"', f'"{to}"', (folder / "agent.py").read_text()))


def kill_supervisor(daemon: Daemon) -> None:
    """And wait for the next one."""
    before = supervisor_pid(daemon)
    assert before > 1, "kill(0) would end the test run itself"
    os.kill(before, signal.SIGKILL)
    end = time.monotonic() + 20
    while True:
        with contextlib.suppress(HostError):
            if supervisor_pid(daemon) != before:
                return
        assert time.monotonic() < end, daemon.log.read_text()[-2000:]
        time.sleep(0.02)


def supervisor_pid(daemon: Daemon) -> int:
    return next(row.pid for row in daemon.listing().daemons if row.name == "supervisor")
