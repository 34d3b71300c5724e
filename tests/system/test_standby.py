"""The next instance of an agent stands at its gate before anybody needs it: complete, looked at, no line run."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import traces
from tests.system.ctl import run
from tests.system.daemon import Daemon, serve
from tests.system.folders import agent, policy
from tests.system.test_scaling import wait_until

pytestmark = [pytest.mark.root, pytest.mark.slow]

WHEN = """
    import os, time

    IMPORTED = time.monotonic_ns()

    def when() -> list:
        return [IMPORTED, os.getpid(), os.getuid()]
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """Three agents, two of which may have an instance that stands by."""
    # Not below /tmp: what is there cannot be shown to an agent.
    mounted = tempfile.mkdtemp(prefix="runagentd-test-", dir="/srv")
    try:
        yield from served(tmp_path, mounted)
    finally:
        os.rmdir(mounted)


def served(tmp_path: Path, mounted: str) -> Iterator[Daemon]:
    reads = policy(tmp_path, "reads", f'[files]\nread = ["{mounted}"]\n')
    folders = [agent(tmp_path, name, WHEN, "when") for name in ("one", "two", "reads")]
    with serve(folders, policies=[f"reads={reads}"], options=["--standbys", "2"]) as running:
        yield running


def reapers_unknown(daemon: Daemon) -> set[int]:
    """Pid 1 of each sandbox that serves nobody: those that stand by, and the spare."""
    known = {row.reaper_pid for row in daemon.instances()}
    family = {each.pid for each in traces.family(daemon.process.pid, traces.identity(daemon.state_dir))}
    return {pid for pid in family - known if _name(pid) == "reaper\n"}


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has ended since


def test_a_start_takes_what_stands_by_and_the_agents_code_runs_only_then(tmp_path: Path) -> None:
    """The first start of an agent has none; the next one is not made at that moment, and was not imported before."""
    with serve([agent(tmp_path, "one", WHEN, "when")]) as daemon:
        first = daemon.wait_until_ready("one")
        assert first.stood_by is False
        wait_until(lambda: daemon.listing().standbys == 1)
        asked = time.monotonic_ns()
        daemon.restart("one")
        second = daemon.wait_until_ready("one", other_than=first.instance)
        status, (imported, pid, uid) = daemon.call("one", "when")
        assert (status, second.stood_by, pid, uid) == (200, True, 2, 65532)
        assert imported > second.spawn_started_ns > asked
        wait_until(lambda: daemon.listing().standbys == 1)


def test_after_a_deploy_and_after_a_rollback_the_next_instance_stands_by(tmp_path: Path) -> None:
    """Of the version that serves now: no other start is needed first, and not what stood by of the one before."""
    folder = agent(tmp_path, "one", WHEN, "when")
    with serve([folder]) as daemon:
        daemon.wait_until_ready("one")
        wait_until(lambda: daemon.listing().standbys == 1)
        (folder / "agent.py").write_text((folder / "agent.py").read_text() + "# another version\n")
        for command, number in ((("deploy", folder), 2), (("rollback", "one"), 1)):
            assert run(*command, state=daemon.state_dir)[0] == 0
            wait_until(lambda: daemon.listing().standbys == 1)
            before = next(row for row in daemon.instances() if row.state == "ready")
            daemon.restart("one")
            after = daemon.wait_until_ready("one", other_than=before.instance)
            assert (before.number, after.number, after.stood_by) == (number, number, True)
            wait_until(lambda: daemon.listing().standbys == 1)


def test_one_that_is_killed_while_it_stands_by_is_missed_by_nobody(daemon: Daemon) -> None:
    """The next start makes another one, and what the dead one held is free."""
    wait_until(lambda: daemon.listing().standbys == 2)
    wait_until(lambda: len(reapers_unknown(daemon)) == 3)
    for pid in reapers_unknown(daemon):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: daemon.listing().standbys == 0)
    for name in ("one", "two", "reads"):
        before = daemon.row(name)
        daemon.restart(name)
        after = daemon.wait_until_ready(name, other_than=before.instance)
        assert (after.stood_by, daemon.call(name, "when")[0]) == (False, 200)
        assert after.last_cause == "operator"


def test_a_restart_makes_the_mounts_of_host_folders_anew(daemon: Daemon) -> None:
    """What was mounted there since may be why somebody restarts the agent."""
    wait_until(lambda: daemon.listing().standbys == 2)
    for _ in range(2):
        before = daemon.row("reads")
        daemon.restart("reads")
        assert daemon.wait_until_ready("reads", other_than=before.instance).stood_by is False
        time.sleep(0.5)
