"""Two workers read HTTP for one gateway: what clients see is what they see with one process, whichever of them dies."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from runagentd import signing, state
from tests import certificates
from tests.system import traces
from tests.system.daemon import Daemon, serve
from tests.system.folders import agent, policy
from tests.system.test_kills import in_time, wait_until_it_answers
from tests.system.test_tls import connect, serial, unverified

pytestmark = [pytest.mark.root, pytest.mark.slow]

SOURCE = """
    begun, ended = [], []

    def echo(text: str) -> str:
        return text

    async def nap(seconds: float) -> str:
        import asyncio
        begun.append("nap")
        try:
            await asyncio.sleep(seconds)
        finally:
            ended.append("nap")
        return "slept"

    def count_stream(to: int):
        import time
        begun.append("count_stream")
        try:
            for number in range(to):
                yield number
                time.sleep(0.01)
        finally:
            ended.append("count_stream")

    def beginnings() -> list[str]:
        return begun

    def endings() -> list[str]:
        return ended
"""
TAGS = ("echo", "nap", "count_stream", "beginnings", "endings")
WORKERS = "[gateway]\nworkers = 2\n"
SECONDS = 10.0


@contextlib.contextmanager
def served(place: Path, text: str = "", *options: str) -> Iterator[Daemon]:
    config = place / "runagentd.toml"
    config.write_text(WORKERS + text)
    several = policy(place, "several", "[calls]\nconcurrency = 16\nqueue = 64\n")
    folder = place / "busy"
    if not folder.exists():
        agent(place, "busy", SOURCE, *TAGS)
    with serve([folder], policies=[several], options=["--config", str(config), *options]) as daemon:
        yield daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with served(tmp_path) as running:
        yield running


class Client:
    """A connection that is kept."""

    def __init__(self, daemon: Daemon) -> None:
        parts = urllib.parse.urlsplit(daemon.url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        self._connection.connect()
        self._token = daemon.token
        port = self._connection.sock.getsockname()[1]
        self.worker = worker_of(daemon, port)
        """the pid of the process that has accepted it"""

    def call(self, tag: str, arguments: dict[str, Any]) -> tuple[int, Any, http.client.HTTPMessage]:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        path = f"/v1/agents/busy/entrypoints/{tag}:invoke"
        self._connection.request("POST", path, json.dumps(arguments), headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers

    def echo(self) -> tuple[int, Any]:
        return self.call("echo", {"text": "there"})[:2]

    def close(self) -> None:
        self._connection.close()


def worker_of(daemon: Daemon, port: int) -> int:
    """Who has the other end of a client's connection: proc_net_tcp(5) names its inode, /proc/PID/fd who has that."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        inodes = {
            f"socket:[{fields[9]}]" for fields in lines if fields[2].endswith(f":{port:04X}") and fields[9] != "0"
        }
        for pid in daemon.worker_pids():
            with contextlib.suppress(OSError):
                for name in os.listdir(f"/proc/{pid}/fd"):
                    with contextlib.suppress(OSError):
                        if os.readlink(f"/proc/{pid}/fd/{name}") in inodes:
                            return pid
        time.sleep(0.005)
    raise AssertionError("nobody has accepted the connection")


@contextlib.contextmanager
def clients_of_both(daemon: Daemon) -> Iterator[dict[int, list[Client]]]:
    """Two connections at least to each worker, by its pid."""
    found: dict[int, list[Client]] = {pid: [] for pid in daemon.worker_pids()}
    assert len(found) == 2
    try:
        end = time.monotonic() + SECONDS
        while any(len(clients) < 2 for clients in found.values()):
            assert time.monotonic() < end, "one worker accepts everything"
            client = Client(daemon)
            found[client.worker].append(client)
        yield found
    finally:
        for client in (client for clients in found.values() for client in clients):
            client.close()


def wait_for(daemon: Daemon, pattern: str, number: int = 1) -> None:
    """Until so many lines of the log match."""
    end = time.monotonic() + SECONDS
    while len(re.findall(pattern, daemon.log.read_text())) < number:
        assert time.monotonic() < end, daemon.log.read_text()[-3000:]
        time.sleep(0.01)


def sleeping(client: Client, answers: list[object], seconds: float = 30) -> threading.Thread:
    """A call that takes long, in a thread; what came of it is put into `answers`."""

    def call() -> None:
        try:
            status, body, headers = client.call("nap", {"seconds": seconds})
            cause = body.get("cause") if isinstance(body, dict) else body
            answers.append((status, cause, headers["Retry-After"]))
        except (OSError, http.client.HTTPException) as error:
            answers.append(type(error))

    thread = threading.Thread(target=call)
    thread.start()
    return thread


def under_way(daemon: Daemon, number: int) -> None:
    """Until so many calls that take long have begun."""
    end = time.monotonic() + SECONDS
    while len(daemon.call("busy", "beginnings")[1]) < number:
        assert time.monotonic() < end
        time.sleep(0.01)


def metric(daemon: Daemon, name: str) -> dict[str, float]:
    """By worker."""
    parts = urllib.parse.urlsplit(daemon.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {metrics_token(daemon)}"})
        text = connection.getresponse().read().decode()
    return {worker: float(value) for worker, value in re.findall(name + r'\{worker="(\d)"\} (\S+)', text)}


def metrics_token(daemon: Daemon) -> str:
    directory = state.open_existing(daemon.state_dir)
    return signing.mint(
        signing.create_or_open(str(directory.keys)), issuer=directory.issuer, audience=directory.audience,
        subject="scraper", agents=[], ttl_seconds=60, scopes=["metrics:read"],
    )  # fmt: skip


def test_both_answer_calls_streams_and_websockets(daemon: Daemon) -> None:
    """With bodies of every size, which travel to the gateway in pieces."""
    with clients_of_both(daemon) as clients:
        for client in (client for both in clients.values() for client in both):
            assert client.echo() == (200, "there")
            for size in (1_000, 65_530, 300_000, 900_000):
                text = "x" * size
                assert client.call("echo", {"text": text})[:2] == (200, text)
            assert client.call("echo", {"text": "x" * 5_000_000})[:1] == (413,)
        requests = metric(daemon, "runagentd_worker_requests_total")
        connections = metric(daemon, "runagentd_worker_connections")
    assert min(requests.values()) > 10
    assert sorted(connections) == ["1", "2"]
    assert sum(connections.values()) == 1 + sum(map(len, clients.values()))
    assert asyncio.run(streams(daemon)) == [(list(range(5)), list(range(5)))] * 6


async def streams(daemon: Daemon) -> list[tuple[list[int], list[int]]]:
    """Of six connections each: what came as events, and what came over a WebSocket."""
    headers = {"Authorization": f"Bearer {daemon.token}"}
    found = []
    for _ in range(6):
        async with aiohttp.ClientSession(daemon.url, headers=headers) as session:
            path = "/v1/agents/busy/entrypoints/count_stream:invoke"
            async with session.post(path, json={"to": 5}, headers={"Accept": "text/event-stream"}) as answer:
                text = await answer.text()
            events = [int(data) for data in re.findall(r"event: chunk\ndata: (\d+)", text)]
            assert text.endswith('event: done\ndata: {"chunks":5}\n\n')
            frames = []
            async with session.ws_connect("/api/v1/agents/busy/run-stream") as ws:
                await ws.send_json({"entrypoint_tag": "count_stream", "input_kwargs": {"to": 5}})
                async for message in ws:
                    frame = json.loads(message.data)
                    if frame["type"] == "data":
                        frames.append(json.loads(frame["content"])["payload"])
                    elif frame.get("status") == "stream_completed":
                        break
            found.append((events, [int(payload) for payload in frames]))
    return found


@pytest.mark.parametrize(
    ("tag", "arguments", "accept"),
    [("nap", {"seconds": 60}, "application/json"), ("count_stream", {"to": 100_000}, "text/event-stream")],
    ids=["call", "stream"],
)
def test_a_client_that_goes_away_ends_the_function(
    daemon: Daemon, tag: str, arguments: dict[str, Any], accept: str
) -> None:
    """Through worker and gateway."""
    parts = urllib.parse.urlsplit(daemon.url)
    body = json.dumps(arguments).encode()
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20) as client:
        client.sendall(
            b"POST /v1/agents/busy/entrypoints/%b:invoke HTTP/1.1\r\nHost: x\r\n"
            b"Authorization: Bearer %b\r\nAccept: %b\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (tag.encode(), daemon.token.encode(), accept.encode(), len(body), body)
        )
        under_way(daemon, 1)
    end = time.monotonic() + SECONDS
    while daemon.call("busy", "endings")[1] != [tag]:
        assert time.monotonic() < end
        time.sleep(0.01)
    wait_for(daemon, "outcome=CANCELLED cause=client")


def test_limits_are_those_of_one_gateway(tmp_path: Path) -> None:
    """A rate and a number of connections, spent over both workers at the same time."""
    text = (
        '[limits.principal]\nrate = "1/h"\nburst = 25\n[limits.address]\nconnections = 12\n[limits]\nloopback = true\n'
    )
    with served(tmp_path, text) as daemon:
        parts = urllib.parse.urlsplit(daemon.url)
        with clients_of_both(daemon) as clients:
            every = [client for both in clients.values() for client in both]
            assert len(every) <= 12
            statuses: list[int] = []
            threads = [
                threading.Thread(target=lambda client=client: statuses.extend(client.echo()[0] for _ in range(20)))
                for client in every
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert statuses.count(200) == 25
            assert set(statuses) == {200, 429}
            told = []
            for _ in range(20 - len(every)):
                more = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=SECONDS)
                more.settimeout(0.5)
                with contextlib.suppress(TimeoutError):
                    told.append(more.recv(13))
                clients[0] = [*clients.get(0, ()), _Closing(more)]
            assert told == [b"HTTP/1.1 429 "] * 8


class _Closing(Client):
    """A bare connection, closed with the others."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw

    def close(self) -> None:
        self._raw.close()


def test_kill_9_of_a_worker(tmp_path: Path) -> None:
    """Its calls are cancelled, and recorded so; the other's clients notice nothing; its places are free again."""
    text = "[limits.address]\nconnections = 40\n[limits]\nloopback = true\n"
    with served(tmp_path, text) as daemon, clients_of_both(daemon) as clients:
        (killed, of_killed), (other, of_other) = clients.items()
        assert other != killed
        answers: list[object] = []
        threads = [sleeping(of_killed[0], answers)]
        others: list[object] = []
        threads.append(sleeping(of_other[0], others, 1.0))
        under_way(daemon, 2)
        gateway = daemon.gateway_pid()
        os.kill(killed, signal.SIGKILL)
        for thread in threads:
            thread.join(20)
        assert answers in ([http.client.RemoteDisconnected], [ConnectionResetError])
        assert others == [(200, "slept", None)]
        assert of_other[1].echo() == (200, "there")
        wait_for(daemon, "outcome=CANCELLED cause=worker-lost")
        wait_for(daemon, "a worker is lost worker=[12] exchanges=1")
        wait_for(daemon, "the gateway worker [12] ended and is started again")
        assert daemon.call("busy", "endings")[1].count("nap") == 2
        assert daemon.gateway_pid() == gateway
        end = time.monotonic() + SECONDS
        while len(daemon.worker_pids()) < 2 or killed in daemon.worker_pids():
            assert time.monotonic() < end
            time.sleep(0.01)
        for client in of_killed:
            client.close()
        with clients_of_both(daemon) as again:
            assert other in again
            assert {client.echo() for both in again.values() for client in both} == {(200, "there")}
            there = sum(metric(daemon, "runagentd_worker_connections").values())
            assert there == 1 + len(of_other) + sum(map(len, again.values()))


def test_kill_9_of_the_gateway(daemon: Daemon) -> None:
    """What was under way is answered with 503; connections stay, and their next requests are answered."""
    gateway, workers = daemon.gateway_pid(), daemon.worker_pids()
    with clients_of_both(daemon) as clients:
        every = [client for both in clients.values() for client in both]
        assert {client.echo() for client in every} == {(200, "there")}
        answers: list[object] = []
        threads = [sleeping(both[0], answers) for both in clients.values()]
        under_way(daemon, 2)
        began = time.monotonic()
        os.kill(gateway, signal.SIGKILL)
        for thread in threads:
            thread.join(20)
        assert answers == [(503, "gateway-lost", "1")] * 2
        wait_until_it_answers(daemon, "busy")
        assert in_time(time.monotonic() - began)
        assert {client.echo() for client in every} == {(200, "there")}
        assert daemon.worker_pids() == workers
        assert daemon.gateway_pid() != gateway
        connections = metric(daemon, "runagentd_worker_connections")
        assert sum(connections.values()) == 1 + len(every)


def test_kill_9_of_the_foreman(tmp_path: Path) -> None:
    """The workers end, too."""
    with served(tmp_path) as daemon:
        family = traces.family(daemon.process.pid, traces.identity(daemon.state_dir))
        assert {process.pid for process in family} > set(daemon.worker_pids())
        daemon.process.kill()
        daemon.process.wait()
        assert traces.wait_until_gone(family, 20) == set()
    with served(tmp_path, "", "--state-dir", str(daemon.state_dir)) as again:
        assert again.call("busy", "echo", {"text": "there"}) == (200, "there")


def test_what_is_under_way_is_answered_before_the_end(daemon: Daemon) -> None:
    """SIGTERM: a call that ends within the grace has its answer, and nothing is left."""
    family = traces.family(daemon.process.pid, traces.identity(daemon.state_dir))
    with clients_of_both(daemon) as clients:
        answers: list[object] = []
        threads = [sleeping(both[0], answers, 1.0) for both in clients.values()]
        under_way(daemon, 2)
        assert daemon.stop() == 0
        for thread in threads:
            thread.join(20)
    assert answers == [(200, "slept", None)] * 2
    assert traces.left(daemon.state_dir, family) == {}


def test_another_certificate_reaches_both_and_another_number_waits_for_a_restart(tmp_path: Path) -> None:
    """SIGHUP; so do other origins. Only workers have the key."""
    certificates.write(tmp_path, serial=1)
    tls = '[tls]\ncertificate = "certificate.pem"\nkey = "key.pem"\n'
    with served(tmp_path, tls) as daemon:
        assert {serial_of(daemon) for _ in range(8)} == {1}
        certificates.write(tmp_path, serial=2)
        pages = '[http]\ncors_origins = ["https://app.example"]\n'
        (tmp_path / "runagentd.toml").write_text("[gateway]\nworkers = 3\n" + tls + pages)
        os.kill(daemon.process.pid, signal.SIGHUP)
        wait_for(daemon, "new connections get the certificate", 2)
        wait_for(daemon, "another number of workers takes a restart; all else was taken over workers=2")
        assert {serial_of(daemon) for _ in range(8)} == {2}
        assert {allowed_origin(daemon) for _ in range(8)} == {"https://app.example"}
        assert len(daemon.worker_pids()) == 2
        key = b"".join((tmp_path / "key.pem").read_bytes().splitlines()[1:3])[8:72]
        assert [has(pid, key) for pid in (daemon.gateway_pid(), *daemon.worker_pids())] == [False, True, True]


def allowed_origin(daemon: Daemon) -> str | None:
    with connect(daemon, unverified()) as connection:
        connection.request("GET", "/livez", headers={"Origin": "https://app.example"})
        answer = connection.getresponse()
        answer.read()
        return answer.headers["Access-Control-Allow-Origin"]


def serial_of(daemon: Daemon) -> int:
    with connect(daemon, unverified()) as connection:
        return serial(connection)


def has(pid: int, secret: bytes) -> bool:
    """Whether one of its open memfds holds these bytes of a PEM file."""
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        with contextlib.suppress(OSError):
            if "memfd:" in os.readlink(path) and secret in Path(path).read_bytes().replace(b"\n", b""):
                return True
    return False


def test_a_worker_has_no_file_no_capability_and_a_uid_of_its_own(daemon: Daemon) -> None:
    """As the kernel says."""
    pids = [daemon.gateway_pid(), *daemon.worker_pids()]
    assert len({status(pid)["Uid"] for pid in pids}) == 3
    for pid in daemon.worker_pids():
        found = status(pid)
        assert int(found["Uid"].split()[0]) > 1_000_000
        assert [found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == ["0" * 16] * 5
        assert (found["NoNewPrivs"], found["Seccomp"], found["Threads"]) == ("1", "2", "1")
        assert os.listdir(f"/proc/{pid}/root") == ["proc"]
        assert os.listdir(f"/proc/{pid}/root/proc") == ["self"]
        mounts = sorted(line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
        assert mounts == ["/", "/proc/self"]


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.partition(":")[0]: line.partition(":")[2].strip() for line in lines}
