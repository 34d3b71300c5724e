"""The gateway as a process of its own: what it has given up, and how it ends."""

from __future__ import annotations

import fcntl
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runagentd import confinement, inherited, kernel, signing
from runagentd.trust import TrustStore
from runagentd.wire import record
from runagentd.wire.settings import Settings
from tests.fakes_gateway import STATE_ID, FakeSupervisor

UID = 1_879_048_000
CHECKOUT = Path(__file__).parents[2]
pytestmark = [pytest.mark.root, pytest.mark.slow]


@dataclass
class Started:
    """A gateway process with its supervisor connected. `lifeline` is the foreman's end."""

    pid: int
    port: int
    lifeline: int
    supervisor: FakeSupervisor
    token: str
    log: Path

    def status(self) -> dict[str, str]:
        text = Path(f"/proc/{self.pid}/status").read_text()
        return {line.partition(":")[0]: line.partition(":")[2].strip() for line in text.splitlines()}

    def wait(self) -> int:
        """How it ended, within five seconds."""
        end = time.monotonic() + 5
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        raise TimeoutError("the gateway did not end")


def start(folder: Path, control: socket.socket, uid: int = UID) -> tuple[int, int, int, str]:
    """(pid, port, lifeline, token) of a gateway that was started as the foreman starts it."""
    key = signing.create_or_open(str(folder / "keys"))
    audience = signing.audience(STATE_ID)
    (folder / "data").mkdir(exist_ok=True)
    os.chown(folder / "data", uid, uid)
    http_socket = socket.create_server(("127.0.0.1", 0))
    reading, writing = os.pipe()
    settings, foreman_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    content = kernel.sealed_memfd("settings", record.encode(Settings()))
    socket.send_fds(foreman_end, [b"settings"], [content])
    os.close(content)
    foreman_end.close()
    egress, nobody = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nobody.close()
    passed = {
        "settings": settings.detach(),
        "http": http_socket.fileno(),
        "lifeline": reading,
        "control": os.dup(control.fileno()),
        "egress": egress.detach(),
        "data": os.open(folder / "data", os.O_RDONLY | os.O_DIRECTORY),
    }
    arguments = ["--uid", str(uid), "--gid", str(uid), "--audience", audience, "--issuer", audience]
    command = [sys.executable, "-m", "runagentd.gateway", *arguments]
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    pid = os.fork()
    if pid == 0:
        try:
            parked = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 300) for descriptor in (log, *passed.values())]
            os.dup2(parked[0], 2)
            for number, descriptor in enumerate(parked[1:]):
                os.dup2(descriptor, 3 + number, inheritable=True)
            os.closerange(3 + len(passed), 4096)
            os.chdir(CHECKOUT)
            os.execve(sys.executable, command, inherited.start_environment(list(passed), os.getpid()))
        finally:
            os._exit(127)
    port: int = http_socket.getsockname()[1]
    http_socket.close()
    for descriptor in (log, reading, *(passed[name] for name in ("settings", "control", "egress", "data"))):
        os.close(descriptor)
    token = signing.mint(key, issuer=audience, audience=audience, subject="t", agents=None, ttl_seconds=60)
    return pid, port, writing, token


@pytest.fixture
def started() -> Iterator[Started]:
    with tempfile.TemporaryDirectory(prefix="gw") as name:
        folder = Path(name)
        supervisor = FakeSupervisor(folder / "control.sock")
        pid, port, lifeline, token = start(folder, supervisor.listener)
        gateway = Started(pid, port, lifeline, supervisor, token, folder / "log")
        with TrustStore(folder / "keys") as store:
            supervisor.trust = list(store.changes(-1).messages())
        try:
            supervisor.connect()
            yield gateway
        finally:
            if gateway.pid:
                os.kill(gateway.pid, signal.SIGKILL)
                os.waitpid(gateway.pid, 0)
            if gateway.lifeline >= 0:
                os.close(gateway.lifeline)
            supervisor.close()


def test_it_serves_with_its_own_uid_and_no_capability(started: Started) -> None:
    """As the kernel sees it."""
    status = started.status()
    assert status["Uid"].split() == [str(UID)] * 4
    assert status["Gid"].split() == [str(UID)] * 4
    assert status["Groups"] == ""
    assert [status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == ["0" * 16] * 5
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    connection = http.client.HTTPConnection("127.0.0.1", started.port, timeout=5)
    connection.request("GET", "/v1/agents", headers={"Authorization": f"Bearer {started.token}"})
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b'{"agents":[]}')
    connection.close()


def test_it_can_start_no_process(started: Started) -> None:
    """What a captured gateway forked would outlive its restart, and the daemon."""
    limits = Path(f"/proc/{started.pid}/limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max processes"))
    assert line.split()[2:4] == ["0", "0"]


def test_it_holds_no_descriptor_that_it_does_not_need(started: Started) -> None:
    """Sockets, pipes, its event loop, its folder, its size; no file of the state directory's but what is its own."""
    links = [os.readlink(f"/proc/{started.pid}/fd/{name}") for name in os.listdir(f"/proc/{started.pid}/fd")]
    files = sorted(Path(link).name for link in links if link.startswith("/") and not link.startswith("/dev/"))
    files = [name for name in files if not name.endswith(" (deleted)")]  # where pytest keeps what tests print
    databases = [f"{name}.db{end}" for name in ("history", "idempotency", "quota") for end in ("", "-shm", "-wal")]
    assert files == sorted([*databases, "log", "logs", "statm"])


def test_it_ends_with_the_foreman(started: Started) -> None:
    """At once: the end of the lifeline is the end."""
    os.close(started.lifeline)
    started.lifeline = -1
    assert started.wait() == 0


def test_sigterm_drains(started: Started) -> None:
    """Nothing is open, so it is over soon."""
    os.kill(started.pid, signal.SIGTERM)
    assert started.wait() == 0
    assert "draining" in started.log.read_text()


def test_ctrl_c_is_the_foremans_business(started: Started) -> None:
    """SIGINT changes nothing."""
    os.kill(started.pid, signal.SIGINT)
    connection = http.client.HTTPConnection("127.0.0.1", started.port, timeout=5)
    connection.request("GET", "/livez")
    assert connection.getresponse().status == 200
    connection.close()


def test_another_gateway_can_take_over_with_the_same_descriptors(started: Started) -> None:
    """What has connected while no gateway ran is served by the next one."""
    os.kill(started.pid, signal.SIGKILL)
    os.waitpid(started.pid, 0)
    started.supervisor.drop()
    started.pid, port, lifeline, _ = start(started.log.parent, started.supervisor.listener)
    os.close(started.lifeline)
    started.lifeline = lifeline
    started.supervisor.connect()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/v1/agents", headers={"Authorization": f"Bearer {started.token}"})
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize("uid", [0])
def test_it_refuses_to_serve_as_root(uid: int) -> None:
    """Fail closed."""
    with tempfile.TemporaryDirectory(prefix="gw") as name:
        supervisor = FakeSupervisor(Path(name) / "control.sock")
        pid, _, lifeline, _ = start(Path(name), supervisor.listener, uid=uid)
        _, status = os.waitpid(pid, 0)
        os.close(lifeline)
        supervisor.close()
        assert os.waitstatus_to_exitcode(status) == 2
        assert "or are root's" in (Path(name) / "log").read_text()


def test_it_refuses_to_serve_with_anything_left() -> None:
    """Without its drop of privileges it does not start: each line of /proc/self/status is looked at."""
    good = {
        "Uid": "7 7 7 7", "Gid": "7 7 7 7", "Groups": "", "NoNewPrivs": "1",
        "CapInh": "0", "CapPrm": "0", "CapEff": "0", "CapBnd": "0", "CapAmb": "0",
    }  # fmt: skip
    confinement.look(good, 7, 7)
    for key, value in (
        ("Uid", "7 7 0 7"), ("Gid", "7 0 7 7"), ("Groups", "0"), ("NoNewPrivs", "0"), ("CapInh", "1"),
        ("CapPrm", "1"), ("CapEff", "1"), ("CapBnd", "1"), ("CapAmb", "1"),
    ):  # fmt: skip
        with pytest.raises(PermissionError):
            confinement.look({**good, key: value}, 7, 7)


def test_a_wrong_start_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """Not a traceback."""
    command = [
        sys.executable,
        "-m",
        "runagentd.gateway",
        "--uid",
        "7",
        "--gid",
        "7",
        "--audience",
        "a",
        "--issuer",
        "a",
    ]
    got = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=20, check=False)
    assert got.returncode == 2
    assert got.stderr.count("\n") == 1
    assert "no descriptor was passed for http, lifeline, control, egress, data, settings" in got.stderr
