"""A gateway that was captured: a test takes its link to the supervisor, and says on it what no gateway says."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runagentd.foreman import admin_client
from runagentd.wire import admin, control
from tests.system.daemon import Daemon, serve
from tests.system.folders import agent, policy
from tests.system.test_scaling import wait_until

pytestmark = [pytest.mark.root, pytest.mark.slow]

_PIDFD_GETFD = 438
"""pidfd_getfd(2), the same number on every architecture"""


@dataclass
class Captured:
    """`link` is the gateway's own, which does not run any more."""

    daemon: Daemon
    link: socket.socket

    def say(self, message: control.FromGateway) -> None:
        """The socket does not wait by itself: the gateway has the same one."""
        select.select([], [self.link], [], 10)
        self.link.send(control.pack(message))

    def wait_until_taken(self) -> None:
        """Until the supervisor has taken all that was said: it answers in order."""
        self.say(control.AskFigures(number=1))
        message: control.FromSupervisor | None = None
        while not isinstance(message, control.FiguresTold):
            select.select([self.link], [], [], 10)
            message = control.parse_from_supervisor(self.link.recv(control.MESSAGE_BYTES_MAX))


@pytest.fixture
def captured(tmp_path: Path) -> Iterator[Captured]:
    three = policy(tmp_path, "three", "[scaling]\ninstances_min = 0\ninstances_max = 3\n")
    folder = agent(tmp_path, "one", "def f():\n    return 1\n", "f")
    with serve([folder], policies=[f"one={three}"]) as daemon:
        assert daemon.call("one", "f") == (200, 1)
        gateway = daemon.gateway_pid()
        os.kill(gateway, signal.SIGSTOP)
        link = link_of(gateway)
        try:
            yield Captured(daemon, link)
        finally:
            link.close()
            os.kill(gateway, signal.SIGCONT)


def link_of(gateway: int) -> socket.socket:
    """Its connection from the supervisor."""
    pidfd, libc = os.pidfd_open(gateway), ctypes.CDLL(None)
    for number in os.listdir(f"/proc/{gateway}/fd"):
        if not os.readlink(f"/proc/{gateway}/fd/{number}").startswith("socket:"):
            continue
        found = socket.socket(fileno=libc.syscall(_PIDFD_GETFD, pidfd, int(number), 0))
        listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if found.family == socket.AF_UNIX and str(found.getsockname()).endswith("/control.sock") and not listens:
            os.close(pidfd)
            return found
        found.close()
    raise AssertionError("the gateway has no link to the supervisor")


def test_it_starts_no_more_instances_than_the_policy_allows(captured: Captured) -> None:
    row = captured.daemon.row("one")
    for instances in (2**63 - 1, -(2**63), 2**63 - 1):
        captured.say(control.Demand(agent=row.agent, instances=instances))
        captured.say(control.Demand(agent=row.agent, instances=instances, side=7))
        captured.say(control.Demand(agent="no such agent", instances=instances))
    captured.wait_until_taken()
    wait_until(lambda: [each.state for each in captured.daemon.instances()] == ["ready"] * 3)


def test_it_pushes_nothing_out_of_the_events(captured: Captured) -> None:
    """Each instance becomes ready once, whatever is said of it."""
    row = captured.daemon.row("one")
    for _ in range(5000):
        captured.say(control.InstanceReady(instance=row.instance, describe=b"{}"))
    captured.wait_until_taken()
    asked = admin.EventsAsk(life="", after=0, agent="", wait_ms=0)
    reply = admin_client.ask(captured.daemon.state_dir / "admin.sock", asked)
    assert isinstance(reply, admin.EventsTold)
    assert reply.lost == 0
    assert [event.kind for event in reply.events].count(admin.EventKind.INSTANCE_READY) == 1


def test_a_lie_about_what_holds_ends_its_link(captured: Captured) -> None:
    """As a broken protocol does: else each lie would be a line of the log."""
    captured.say(control.TrustTaken(epoch=2**62))

    def over() -> bool:
        try:
            captured.say(control.Drained())
        except (BrokenPipeError, ConnectionResetError):
            return True
        return False

    wait_until(over)
    assert captured.daemon.log.read_text().count("what it was never told") == 1
