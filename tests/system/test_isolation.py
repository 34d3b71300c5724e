"""calls.isolation = "call": each call in a process of its own, in a place where no other call has been."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.daemon import ROOT, Daemon, serve
from tests.system.folders import agent, policy

pytestmark = [pytest.mark.root, pytest.mark.slow]

SOURCE = """
    import asyncio, ctypes, fcntl, json, os, random, signal, ssl, struct, sys, threading, time
    from pathlib import Path

    calls_here = []

    def echo(text: str) -> str:
        return text

    def look() -> dict:
        calls_here.append(1)
        found = {
            "calls": len(calls_here),
            "drawn": [random.random(), ssl.RAND_bytes(8).hex()],
            "pid": os.getpid(),
            "files": [name for folder in ("/tmp", "/dev/shm") for name in os.listdir(folder)],
            "modes": [oct(os.stat(folder).st_mode & 0o7777) for folder in ("/tmp", "/dev/shm")],
            "blocking": [os.get_blocking(number) for number in (0, 1, 2)],
            "others": [pid for pid in range(3, 500) if pid != os.getpid() and exists(pid)],
            "descriptors": sorted(os.readlink(f"/proc/self/fd/{n}").partition(":")[0]
                                  for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")),
        }
        for folder in ("/tmp", "/dev/shm"):
            Path(folder, "left").write_text("left")
        os.set_blocking(1, False)
        return found

    def exists(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    def leave_processes() -> int:
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                while True:
                    time.sleep(0.01)
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        return 3

    def fork_without_end() -> str:
        while True:
            try:
                if os.fork() == 0:
                    time.sleep(60)
            except OSError:
                return "no more"

    def litter() -> int:
        folder = "/tmp/deep"
        os.mkdir(folder)
        os.chdir(folder)
        for number in range(600):
            Path("file").write_text("x")
            os.mkdir(".1")
            os.chdir(".1")
        os.symlink("/app", "/tmp/link")
        Path("/dev/shm/.1").mkdir()
        for path in ("/tmp/deep/.1", "/tmp/deep", "/dev/shm/.1", "/dev/shm", "/tmp"):
            os.chmod(path, 0)
        return os.getpid()

    def change_the_agent() -> None:
        Path("/app/agent.py").write_text("")

    def leave(status: int) -> None:
        os._exit(status)

    def kill(number: int) -> None:
        os.kill(os.getpid(), number)

    def call_as_x32() -> int:
        return ctypes.CDLL(None).syscall(0x40000000 | 39)

    def eat(mebibytes: int) -> int:
        return len(b"x" * (mebibytes << 20))

    def sleep_whatever_happens(seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                time.sleep(seconds)
            except BaseException:
                pass

    async def nap(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    def count_stream(to: int):
        for number in range(to):
            yield [number, os.getpid()]

    async def count_later_stream(to: int):
        for number in range(to):
            await asyncio.sleep(0)
            yield [number, os.getpid()]

    def search(one: str, two: str, whole: str = "") -> int:
        # Two halves, so that what is searched for stands nowhere but where somebody has put it.
        one, two = one.encode(), two.encode()
        found = 0
        for line in open("/proc/self/maps"):
            fields = line.split()
            if not fields[1].startswith("rw"):
                continue
            start, end = (int(text, 16) for text in fields[0].split("-"))
            memory = (ctypes.c_char * (end - start)).from_address(start)
            place = -1
            view = bytes(memory)
            while (place := view.find(one, place + 1)) >= 0:
                found += view[place + len(one):place + len(one) + len(two)] == two
        return found

    def own_number() -> int:
        frame = sys._getframe()
        while "call" not in frame.f_locals:
            frame = frame.f_back
        return frame.f_locals["call"].number

    def own_socket() -> int:
        return next(int(n) for n in os.listdir("/proc/self/fd")
                    if os.path.exists(f"/proc/self/fd/{n}") and os.readlink(f"/proc/self/fd/{n}").startswith("socket:"))

    def result(number: int, body: bytes) -> bytes:
        header = b'{"type":"string"}'
        return struct.pack("!IBIH", 7 + len(header) + len(body), 32, number, len(header)) + header + body

    def forge(how: str) -> str:
        number, descriptor = own_number(), own_socket()
        forged = {
            "for the next": result(number + 1, b'"forged"'),
            "twice": result(number, b'"forged"') * 2,
            "garbage": b"\\xff" * 64,
            "of another type": struct.pack("!IBIH", 7, 16, 0, 0),
        }[how]
        os.write(descriptor, forged)
        time.sleep(60)

    def answer_and_go_on(count: int) -> str:
        number, descriptor = own_number(), own_socket()
        if os.fork() == 0:
            while True:
                try:
                    os.write(descriptor, result(number + 1, b'"forged"'))
                except OSError:
                    pass
        os.write(descriptor, result(number, b'"its own"'))
        time.sleep(60)
"""
TAGS = (
    "echo", "look", "leave_processes", "fork_without_end", "litter", "change_the_agent", "leave", "kill", "call_as_x32",
    "eat", "sleep_whatever_happens", "nap", "count_stream", "count_later_stream", "search", "forge", "answer_and_go_on",
)  # fmt: skip
CALL = '[calls]\nisolation = "call"\ndeadline = "3s"\ncancel_grace = "1s"\n'
NAMES = ("plain", "fresh", "memory", "killed", "forger", "doubled")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("isolation")
    each = policy(place, "each", CALL)
    fresh = policy(place, "fresh", f'{CALL}[process]\nspawn = "exec"\n')
    with serve([agent(place, name, SOURCE, *TAGS) for name in NAMES], policies=[each, f"fresh={fresh}"]) as running:
        yield running


def ask(daemon: Daemon, name: str, tag: str, **arguments: Any) -> Any:
    """The result of a call. Any: JSON."""
    status, answer = daemon.call(name, tag, arguments)
    assert status == 200, answer
    return answer


def refused(daemon: Daemon, name: str, tag: str, **arguments: Any) -> tuple[int, str, str | None]:
    status, body = daemon.call(name, tag, arguments)
    assert status != 200, body
    return status, body["code"], body.get("cause")


@pytest.mark.parametrize("name", ["plain", "fresh"])
def test_a_call_finds_everything_as_if_it_were_the_first(daemon: Daemon, name: str) -> None:
    """Globals, /tmp, /dev/shm, flags of the pipes that all share; and its random numbers are its own."""
    one, other = ask(daemon, name, "look"), ask(daemon, name, "look")
    for found in (one, other):
        assert (found["calls"], found["files"], found["others"]) == (1, [], [])
        assert (found["modes"], found["blocking"]) == (["0o700", "0o700"], [True, True, True])
        assert found["descriptors"] == ["/dev/null", "pipe", "pipe", "socket"]
    assert one["pid"] != other["pid"]
    assert not set(one["drawn"]) & set(other["drawn"])


def test_what_a_call_has_started_ends_with_it(daemon: Daemon) -> None:
    """Processes in sessions of their own, threads, and as many forks as there may be."""
    instance = daemon.row("plain").instance
    assert ask(daemon, "plain", "leave_processes") == 3
    assert ask(daemon, "plain", "look")["others"] == []
    assert ask(daemon, "plain", "fork_without_end") == "no more"
    assert ask(daemon, "plain", "look")["others"] == []
    assert daemon.row("plain").instance == instance


def test_what_a_call_has_written_is_gone_however_it_lies(daemon: Daemon) -> None:
    """600 folders deep, without permissions, behind links; /app cannot be written to at all."""
    instance = daemon.row("plain").instance
    ask(daemon, "plain", "litter")
    found = ask(daemon, "plain", "look")
    assert (found["files"], found["modes"]) == ([], ["0o700", "0o700"])
    assert daemon.call("plain", "change_the_agent")[1]["exception"] == "OSError"
    assert daemon.row("plain").instance == instance


@pytest.mark.parametrize(
    ("tag", "arguments", "cause"),
    [
        ("leave", {"status": 0}, "exit"),
        ("leave", {"status": 3}, "exit"),
        ("kill", {"number": int(signal.SIGSEGV)}, "signal"),
        ("kill", {"number": int(signal.SIGTERM)}, "signal"),
        ("call_as_x32", {}, "seccomp"),
    ],
)
def test_an_end_costs_the_call_alone(daemon: Daemon, tag: str, arguments: dict[str, Any], cause: str) -> None:
    """Its caller learns the cause; the instance goes on, and the next call is as good as any."""
    instance = daemon.row("plain").instance
    assert refused(daemon, "plain", tag, **arguments) == (502, "INSTANCE_DIED", cause)
    assert ask(daemon, "plain", "look")["calls"] == 1
    assert daemon.row("plain").instance == instance


@pytest.mark.parametrize(
    ("name", "tag", "arguments", "code", "cause"),
    [
        ("memory", "eat", {"mebibytes": 400}, "OUT_OF_MEMORY", "oom"),
        ("killed", "kill", {"number": int(signal.SIGKILL)}, "INSTANCE_DIED", "signal"),
    ],
)
def test_an_end_that_may_be_the_kernels_is_the_instances(
    daemon: Daemon, name: str, tag: str, arguments: dict[str, Any], code: str, cause: str
) -> None:
    """SIGKILL that nobody of ours sent: for want of memory the whole instance ends, with its true cause."""
    former = daemon.row(name).instance
    assert refused(daemon, name, tag, **arguments) == (502, code, cause)
    assert daemon.wait_until_ready(name, other_than=former).last_cause == cause
    assert ask(daemon, name, "echo", text="here") == "here"


def test_a_call_that_will_not_stop_is_stopped_and_the_instance_goes_on(daemon: Daemon) -> None:
    """Its caller has the answer at the deadline, and its place is free before the grace is over."""
    instance = daemon.row("plain").instance
    assert refused(daemon, "plain", "sleep_whatever_happens", seconds=60) == (504, "TIMEOUT_ERROR", "deadline")
    assert ask(daemon, "plain", "look")["others"] == []
    assert daemon.row("plain").instance == instance


def test_coroutines_and_streams_are_as_ever(daemon: Daemon) -> None:
    """All of a stream comes from one process, and more of it than there are credits at first."""
    assert ask(daemon, "plain", "nap", seconds=0.01) == "slept"
    for tag in ("count_stream", "count_later_stream"):
        chunks = _stream(daemon, tag, 100)
        assert [number for number, _ in chunks] == list(range(100))
        assert len({pid for _, pid in chunks}) == 1


def _stream(daemon: Daemon, tag: str, to: int) -> list[list[int]]:
    parts = urllib.parse.urlsplit(daemon.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    headers = {"Authorization": f"Bearer {daemon.token}", "Accept": "text/event-stream"}
    path = f"/v1/agents/plain/entrypoints/{tag}:invoke"
    connection.request("POST", path, json.dumps({"to": to}), {**headers, "Content-Type": "application/json"})
    text = connection.getresponse().read().decode()
    connection.close()
    events = [event.split("\n") for event in text.split("\n\n")]
    return [
        json.loads(line.removeprefix("data: "))
        for lines in events
        if "event: chunk" in lines
        for line in lines
        if line.startswith("data: ")
    ]


def test_nothing_of_another_call_is_in_the_memory_of_one(daemon: Daemon) -> None:
    """Neither arguments nor results of those before it; in its own memory it does find its own."""
    one, two = "canary-of-another-", "caller-48151623"
    assert ask(daemon, "plain", "search", one=one, two=two, whole=one + two) > 0
    for _ in range(3):
        assert ask(daemon, "plain", "echo", text=(one + two) * 1000) == (one + two) * 1000
        assert ask(daemon, "plain", "search", one=one, two=two) == 0


@pytest.mark.parametrize("how", ["for the next", "twice", "garbage", "of another type"])
def test_a_call_can_answer_itself_and_once(daemon: Daemon, how: str) -> None:
    """Anything else costs the instance, as a broken protocol always does."""
    former = daemon.wait_until_ready("forger").instance
    assert refused(daemon, "forger", "forge", how=how)[:2] == (502, "PROTOCOL_ERROR")
    assert daemon.wait_until_ready("forger", other_than=former).last_cause == "protocol"
    assert ask(daemon, "forger", "echo", text="well again") == "well again"


def test_a_call_cannot_answer_the_next_one(daemon: Daemon) -> None:
    """However long it goes on writing: what comes after its closing frame reaches nobody."""
    for _ in range(3):
        daemon.wait_until_ready("doubled")
        status, answer = daemon.call("doubled", "answer_and_go_on", {"count": 1})
        assert (status, answer) == (200, "its own") or answer["code"] == "PROTOCOL_ERROR"
        status, answer = daemon.call("doubled", "echo", {"text": "the next"})
        assert (status, answer) == (200, "the next") or status in (502, 503), answer


def test_a_gateway_that_dies_costs_its_calls_and_no_instance(daemon: Daemon) -> None:
    """The process that forks has the next channel, too."""
    row = daemon.row("plain")
    gateway = daemon.gateway_pid()
    os.kill(gateway, signal.SIGKILL)
    end = time.monotonic() + 15
    while True:
        try:
            if daemon.call("plain", "echo", {"text": "here"}) == (200, "here"):
                break
        except OSError:
            pass
        assert time.monotonic() < end
        time.sleep(0.05)
    assert daemon.row("plain").instance == row.instance


def refusal_of(folder: Path, policy: str) -> str:
    """What `serve` says of an agent that it does not serve."""
    with tempfile.TemporaryDirectory() as place:  # a short path: unix(7)
        command = [sys.executable, "-m", "runagentd.cli.runagentd", "serve", str(folder), "--policy", policy]
        done = subprocess.run(
            [*command, "--port", "0", "--state-dir", f"{place}/state"],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode != 0
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
         "the import started 1 threads, which a fork for each call would not have"),
        ("import os, time\nif os.fork() == 0:\n    time.sleep(60)",
         "the import started a process, which would be ended after the first call"),
        ("open('/tmp/table', 'w').write('x')",
         "the import left 'table' in /tmp, which is emptied after each call"),
    ],
)  # fmt: skip
def test_an_import_that_cannot_be_forked_is_refused_with_the_reason(tmp_path: Path, start: str, words: str) -> None:
    """When the agent is deployed, and not at some call."""
    (tmp_path / "agents").mkdir()
    folder = agent(tmp_path / "agents", "unfit", "def run() -> int:\n    return 1\n", "run")
    (folder / "agent.py").write_text(f"{start}\n{(folder / 'agent.py').read_text()}")
    assert words in refusal_of(folder, policy(tmp_path, "each", CALL))


def test_answers_cannot_be_shared_where_calls_share_nothing(tmp_path: Path) -> None:
    """A cache for a tenant or for all is refused when the agent is deployed; a private one is not."""
    each = policy(tmp_path, "each", CALL)
    for scope, words in (("tenant", '"tenant" shares answers among callers'), ("public", '"public" shares')):
        (tmp_path / scope).mkdir()
        entrypoints = [
            {"file": "agent.py", "module": "run", "tag": "run", "cache": {"ttl": 60, "scope": scope}},
        ]
        folder = agent(
            tmp_path / scope, "sharing", "def run() -> int:\n    return 1\n",
            agent_architecture={"entrypoints": entrypoints},
        )  # fmt: skip
        said = refusal_of(folder, each)
        assert words in said
        assert 'calls.isolation = "call"' in said
