"""The programs that are measured, started and ended: the daemon itself, and the servers it is compared with.

Runs as: `make bench`, root.
Reads from strangers: nothing; everything listens on 127.0.0.1, on a port that the kernel chose.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runagentd.foreman import admin_client
from runagentd.wire import admin

ROOT = Path(__file__).resolve().parent.parent
AGENT = Path(__file__).resolve().parent / "agents" / "echo"
_UP_SECONDS = 60.0
_UP_AGENT_SECONDS = 0.3
"""more for each agent: what it is is read from its folder, in a process of its own, before anybody is answered"""
_DOWN_SECONDS = 15.0
_POLL_SECONDS = 0.005


class BenchmarkError(Exception):
    """Something cannot be measured here: one clear text."""


def arguments(text: str) -> bytes:
    """The body of a request in the form that most of the servers take."""
    return json.dumps({"text": text}, separators=(",", ":")).encode()


HELLO = arguments("hello")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Something that echoes a text when it is sent `body` by POST."""

    name: str
    url: str
    token: str
    processes: tuple[tuple[str, int], ...]
    """who works for an answer: names and pids"""
    wrap: Callable[[str], bytes] = arguments
    """a text as this server wants it"""
    body: bytes = HELLO
    status: int = 200
    """what an answer must have"""
    slow: bool = False
    """whether it needs longer rounds to answer some requests in each"""

    def sending(self, text: str) -> Endpoint:
        """The same, with another text."""
        return replace(self, body=self.wrap(text))

    def cpu_ns(self) -> dict[str, int]:
        """What each of them has spent on a processor, in nanoseconds (proc_pid_schedstat(5))."""
        return {
            name: int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0])
            for name, pid in self.processes
        }


class Daemon:
    """A running `runagentd serve` with the benchmarks' one agent."""

    def __init__(self, *, url: str, token: str, agent: str, admin_socket: Path, foreman: int) -> None:
        parts = urllib.parse.urlsplit(url)
        self.address = (parts.hostname or "", parts.port or 0)
        self.url = url
        self.token = token
        self.agent = agent
        self._admin_socket = admin_socket
        self.state_dir = admin_socket.parent
        self.foreman = foreman

    def path(self, tag: str, *, agent: str = "") -> str:
        """Of an entrypoint at the native door; of the echo where no other agent is named."""
        return f"/v1/agents/{agent or self.agent}/entrypoints/{tag}:invoke"

    def endpoint(self) -> Endpoint:
        listing = self.listing()
        runner = next(row.pid for row in listing.instances if row.agent == self.agent)
        return Endpoint(
            name="runagentd",
            url=self.url + self.path("echo"),
            token=self.token,
            processes=(*self._readers(), ("runner", runner)),
        )

    def _readers(self) -> list[tuple[str, int]]:
        """The gateway, and its workers where it has some."""
        found = []
        for pid in Path(f"/proc/{self.foreman}/task/{self.foreman}/children").read_text(encoding="ascii").split():
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"runagentd.gateway.__main__" in command:
                found.insert(0, ("gateway", int(pid)))
            elif b"runagentd.worker.__main__" in command:
                found.append((f"worker {len(found)}", int(pid)))
        return found

    def listing(self) -> admin.Instances:
        return admin_client.instances(self._admin_socket)

    def settle(self, *, spares: int) -> admin.InstanceRow:
        """Wait until its instance is ready and all spares are; the instance's row."""
        deadline = time.monotonic() + _UP_SECONDS
        while True:
            listing = self.listing()
            row = next(row for row in listing.instances if row.agent == self.agent)
            if row.state == "ready" and listing.spares >= spares:
                return row
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the agent's instance is {row.state}, last cause {row.last_cause!r}")
            time.sleep(_POLL_SECONDS)

    def asleep(self, *, spares: int, standbys: int) -> None:
        """Wait until nothing of the agent runs, and what is made in advance is there."""
        deadline = time.monotonic() + _UP_SECONDS
        while True:
            listing = self.listing()
            state = next(row.state for row in listing.instances if row.agent == self.agent)
            if state == "asleep" and listing.spares >= spares and listing.standbys >= standbys:
                return
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the agent is {state}, and does not go to sleep")
            time.sleep(0.01)


@contextlib.contextmanager
def daemon(
    *, spares: int, standbys: int = 0, others: Sequence[Path] = (), config: str = "", policy: str = ""
) -> Iterator[Daemon]:
    """`runagentd serve` under the policy `base`, in a state directory of its own.

    `others` are agents beside the echo; `config` is the text of a runagentd.toml, `policy` that of a policy for all.
    """
    place = Path(tempfile.mkdtemp(prefix="runagentd-bench-"))
    ready, log, settings = place / "ready.json", place / "log", place / "runagentd.toml"
    settings.write_text(config, encoding="utf-8")
    rules = place / "rules.toml"
    rules.write_text(f"version = 1\n{policy}", encoding="utf-8")
    command = [
        sys.executable, "-m", "runagentd.cli.runagentd", "serve", str(AGENT), *map(str, others),
        "--config", str(settings), "--policy", str(rules),
        "--port", "0", "--spares", str(spares), "--standbys", str(standbys),
        "--state-dir", str(place / "state"), "--ready-file", str(ready),
    ]  # fmt: skip
    try:
        with _running(command, log) as process:
            _wait_for(ready.exists, process, log, _UP_SECONDS + _UP_AGENT_SECONDS * len(others))
            up = json.loads(ready.read_text(encoding="utf-8"))
            yield Daemon(
                url=up["url"], token=up["token"], agent=up["agents"][0]["id"],
                admin_socket=place / "state" / "admin.sock", foreman=process.pid,
            )  # fmt: skip
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def bare_aiohttp() -> Iterator[Endpoint]:
    """An aiohttp handler on uvloop, with nothing around it: what the gateway's HTTP server costs by itself."""
    command = [sys.executable, "-m", "benchmarks.servers.aiohttp_echo", "--host", "127.0.0.1", "--port", "{port}"]
    with server("aiohttp, bare", command) as endpoint:
        yield endpoint


@contextlib.contextmanager
def server(
    name: str, command: Sequence[str], *, path: str = "/echo", wrap: Callable[[str], bytes] = arguments,
    environment: Mapping[str, str] | None = None, folder: Path = ROOT, slow: bool = False,
) -> Iterator[Endpoint]:  # fmt: skip
    """A program that listens on 127.0.0.1, at the port that "{port}" in its command becomes."""
    port = free_port()
    with tempfile.NamedTemporaryFile(prefix="runagentd-bench-", suffix=".log") as file:
        log = Path(file.name)
        filled = [word.replace("{port}", str(port)) for word in command]
        with _running(filled, log, environment=environment, folder=folder) as process:
            _wait_for(lambda: _listens(port), process, log)
            yield Endpoint(
                name=name, url=f"http://127.0.0.1:{port}{path}", token="", processes=(("server", process.pid),),
                wrap=wrap, body=wrap("hello"), slow=slow,
            )  # fmt: skip


@contextlib.contextmanager
def _running(
    command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None, folder: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        # A session of its own: some servers leave workers behind, and all of it is ended by its group.
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_DOWN_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        # The leader is not reaped yet, or has just been: in either case no other session has its number so soon.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(
    happened: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = _UP_SECONDS
) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise BenchmarkError(f"a program that is to be measured does not come up:\n{said}")
        time.sleep(_POLL_SECONDS)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def check_echo(endpoint: Endpoint) -> None:
    """One call, and its answer: what is measured must be what is meant."""
    parts = urllib.parse.urlsplit(endpoint.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    headers = {"Content-Type": "application/json"}
    if endpoint.token:
        headers["Authorization"] = f"Bearer {endpoint.token}"
    text = "is this an echo?"
    try:
        connection.request("POST", parts.path, endpoint.wrap(text), headers)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    # Servers put an answer into envelopes of their own; the text stands in each of them.
    if answer.status != endpoint.status or (answer.status == 200 and text.encode() not in body):
        raise BenchmarkError(f"{endpoint.name} answers {answer.status} {body[:200]!r} where an echo was expected")


def require_root() -> None:
    """BenchmarkError for anybody else. From here on SIGTERM ends what was started, as Ctrl-C does."""
    if os.geteuid() != 0:
        raise BenchmarkError("benchmarks must be run as root: they make real sandboxes")
    # By default it would end this process alone, and the servers live in sessions of their own.
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, _: object) -> None:
    sys.exit(128 + number)
