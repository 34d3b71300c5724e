"""Spawns and kills leave nothing: `make test` does a hundred, RUNAGENTD_SPAWNS=1000 a thousand."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system import traces
from tests.system.daemon import Daemon, serve
from tests.system.folders import agent

pytestmark = [pytest.mark.root, pytest.mark.slow]

SPAWNS = int(os.environ.get("RUNAGENTD_SPAWNS", "100"))
SECONDS = 60 + SPAWNS * 0.5

AGENT = """
    import os, threading, time

    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    if os.fork() == 0:
        time.sleep(1000)

    def echo(text: str) -> str:
        return text
"""


@dataclass(frozen=True)
class Count:
    """How much of each there is, of one daemon's."""

    processes: int
    cgroups: int
    host_mounts: int
    supervisor_mounts: int
    namespaces: int
    supervisor_descriptors: int
    zygote_descriptors: int
    gateway_descriptors: int
    zombies: int
    scratch_files: int


def count(daemon: Daemon) -> Count:
    pids = {row.name: row.pid for row in daemon.listing().daemons}
    state_id = traces.identity(daemon.state_dir)
    return Count(
        processes=len(traces.family(daemon.process.pid, state_id)),
        cgroups=len(traces.cgroups(state_id)),
        host_mounts=len(Path("/proc/self/mountinfo").read_text().splitlines()),
        supervisor_mounts=len(Path(f"/proc/{pids['supervisor']}/mountinfo").read_text().splitlines()),
        namespaces=traces.namespaces(state_id),
        supervisor_descriptors=traces.descriptors(pids["supervisor"]),
        zygote_descriptors=traces.descriptors(pids["zygote"]),
        gateway_descriptors=traces.descriptors(daemon.gateway_pid()),
        zombies=len(traces.zombies(daemon.process.pid)),
        scratch_files=sum(1 for _ in daemon.state_dir.rglob("*")),
    )


def settled(daemon: Daemon, expected: Count | None = None) -> Count:
    """A count that is as expected, or else the last of several: a spare, or what stands by, may be in the making."""
    found = count(daemon)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and (expected is None or found != expected):
        time.sleep(0.1)
        again = count(daemon)
        listing = daemon.listing()
        if expected is None and again == found and (listing.spares, listing.standbys) == (1, 2):
            return again
        found = again
    return found


@pytest.mark.timeout(SECONDS)
def test_spawns_and_kills_leave_nothing(tmp_path: Path) -> None:
    """By the operator's restart, which is SIGKILL to the reaper; each instance has a child and a thread."""
    folders = [agent(tmp_path, name, AGENT, "echo") for name in ("first", "second")]
    with serve(folders) as daemon:
        daemon.call("first", "echo", {"text": "warm"})
        before = settled(daemon)
        uids = set()
        for number in range(SPAWNS):
            name = ("first", "second")[number % 2]
            row = daemon.row(name)
            uids.add(row.uid)
            daemon.restart(name)
            following = daemon.wait_until_ready(name, other_than=row.instance)
            assert following.uid != row.uid
            if number % 10 == 0:
                assert daemon.call(name, "echo", {"text": "there"}) == (200, "there")
        assert settled(daemon, before) == before
        # Leases come in blocks of 256, and each block costs the supervisor a descriptor: none was taken in addition.
        assert max(uids) - min(uids) < 256
        family = traces.family(daemon.process.pid, traces.identity(daemon.state_dir))
        assert daemon.stop() == 0
        assert traces.left(daemon.state_dir, family) == {}
