"""Every end has its true cause, and the caller is told which; every limit ends what exceeds it, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from runagentd.names import storage_name
from tests.system.daemon import Daemon, serve
from tests.system.folders import agent, policy

pytestmark = [pytest.mark.root, pytest.mark.slow]

WAYS_TO_END = """
    import ctypes, os, signal, time
    from pathlib import Path

    if Path("kept/crash").exists():
        raise RuntimeError("the crash file is there")

    def echo(text: str) -> str:
        return text

    def raise_it() -> None:
        raise LookupError("the shelf is empty")

    def eat(mebibytes: int) -> int:
        return len(b"x" * (mebibytes << 20))

    def leave(status: int) -> None:
        os._exit(status)

    def kill(number: int) -> None:
        os.kill(os.getpid(), number)

    def call_as_x32() -> int:
        return ctypes.CDLL(None).syscall(0x40000000 | 39)

    def sleep(seconds: float) -> str:
        time.sleep(seconds)
        return "slept"

    def sleep_whatever_happens(seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                time.sleep(seconds)
            except BaseException:
                pass

    def crash_at_the_next_import() -> None:
        Path("kept/crash").touch()
        os._exit(1)

    def told() -> list:
        from runagent_call import caller, remaining, request_id
        return [len(request_id.get()), len(caller.get()), remaining()]

    async def anap(seconds: float) -> str:
        import asyncio
        await asyncio.sleep(seconds)
        return "slept"

    async def refuse_to_stop(seconds: float) -> None:
        import asyncio
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                pass
"""
TAGS = (
    "echo", "raise_it", "eat", "leave", "kill", "call_as_x32", "sleep", "sleep_whatever_happens",
    "crash_at_the_next_import", "anap", "refuse_to_stop", "told",
)  # fmt: skip
AGENTS = ("oom", "left", "killed", "segment", "x32", "stubborn", "refusing", "crashing", "plain", "door")
"""One for each way to end, so that no test waits for the delays that another one has earned."""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("causes")
    folders = [agent(place, name, WAYS_TO_END, *TAGS, persistent_folders=["kept"]) for name in AGENTS]
    short = policy(place, "short", 'extends = "persistent"\n[calls]\ndeadline = "2s"\ncancel_grace = "500ms"\n')
    with serve(folders, policies=[short]) as running:
        yield running


def answer(daemon: Daemon, name: str, tag: str, **arguments: Any) -> tuple[int, str, str | None]:
    """Status, code and cause."""
    status, body = daemon.call(name, tag, arguments)
    return (status, body["code"], body.get("cause")) if status != 200 else (status, repr(body), None)


def is_well_again(daemon: Daemon, name: str, former: str) -> str:
    """Another instance answers; gives the cause of the former one's end, as `ps` shows it."""
    row = daemon.wait_until_ready(name, other_than=former)
    assert daemon.call(name, "echo", {"text": "here"}) == (200, "here")
    return row.last_cause


@pytest.mark.parametrize(
    ("name", "tag", "arguments", "code", "cause"),
    [
        ("oom", "eat", {"mebibytes": 400}, "OUT_OF_MEMORY", "oom"),
        ("left", "leave", {"status": 3}, "INSTANCE_DIED", "exit"),
        ("killed", "kill", {"number": 9}, "INSTANCE_DIED", "signal"),
        ("segment", "kill", {"number": 11}, "INSTANCE_DIED", "signal"),
        ("x32", "call_as_x32", {}, "INSTANCE_DIED", "seccomp"),
    ],
)
def test_the_caller_learns_how_the_instance_ended(
    daemon: Daemon, name: str, tag: str, arguments: dict[str, Any], code: str, cause: str
) -> None:
    """As 502 with the cause; the next instance is there at once."""
    former = daemon.row(name).instance
    assert answer(daemon, name, tag, **arguments) == (502, code, cause)
    assert is_well_again(daemon, name, former) == cause


def test_an_exception_is_the_functions_and_costs_nothing(daemon: Daemon) -> None:
    """Its type and its message reach the caller; the instance goes on."""
    instance = daemon.row("plain").instance
    status, body = daemon.call("plain", "raise_it")
    assert (status, body["code"], body["exception"]) == (502, "FUNCTION_ERROR", "LookupError")
    assert "the shelf is empty" in body["detail"]
    assert "traceback" not in body
    assert daemon.call("plain", "echo", {"text": "here"}) == (200, "here")
    assert daemon.row("plain").instance == instance
    # The traceback is the author's to read: in the agent's log, whatever the policy says of callers.
    log = next((daemon.state_dir / "gateway" / "logs").glob(f"{storage_name(daemon.row('plain').agent)}.log"))
    deadline = time.monotonic() + 5
    while "Traceback (most recent call last):" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_function_is_told_of_its_call(daemon: Daemon) -> None:
    """Its id, who calls, and how much of the policy's two seconds is left."""
    status, (request_id, caller, left) = daemon.call("plain", "told")
    assert (status, request_id, caller) == (200, 36, 32)
    assert 0 < left <= 2


@pytest.mark.parametrize("tag", ["anap", "sleep"])
def test_a_deadline_answers_in_time(daemon: Daemon, tag: str) -> None:
    """The policy's; the caller has its answer then, whatever the function does."""
    began = time.monotonic()
    assert answer(daemon, "plain", tag, seconds=30) == (504, "TIMEOUT_ERROR", "deadline")
    assert 1.9 < time.monotonic() - began < 3
    daemon.wait_until_ready("plain")
    assert daemon.call("plain", "echo", {"text": "here"}) == (200, "here")


def test_a_caller_can_only_bring_the_deadline_nearer(daemon: Daemon) -> None:
    """RunAgent's clients send 300 s; the policy says 2 s. One that sends 0.3 s gets that."""
    path = f"/api/v1/agents/{daemon.row('plain').agent}/run"
    for seconds, expected in ((300, 2.0), (0.3, 0.3)):
        body = {"entrypoint_tag": "anap", "input_kwargs": {"seconds": 30}, "timeout_seconds": seconds}
        began = time.monotonic()
        status, answered = daemon.request("POST", path, body=body)
        assert expected - 0.1 < time.monotonic() - began < expected + 1
        assert (status, answered["success"], answered["error"]["code"]) == (200, False, "TIMEOUT_ERROR")


@pytest.mark.parametrize(
    ("name", "tag"), [("stubborn", "sleep_whatever_happens"), ("refusing", "refuse_to_stop")], ids=["sync", "async"]
)
def test_a_call_that_will_not_stop_costs_the_instance(daemon: Daemon, name: str, tag: str) -> None:
    """It keeps its place until its grace is over, and then it is the instance that ends: the bound never does."""
    former = daemon.row(name).instance
    assert answer(daemon, name, tag, seconds=60) == (504, "TIMEOUT_ERROR", "deadline")
    assert is_well_again(daemon, name, former) == "deadline"


def test_a_crash_while_importing_again_is_told_as_such(daemon: Daemon) -> None:
    """What worked at the first start need not work at the second: callers hear of the import."""
    former = daemon.row("crashing").instance
    assert answer(daemon, "crashing", "crash_at_the_next_import") == (502, "INSTANCE_DIED", "exit")
    deadline = time.monotonic() + 10
    while daemon.row("crashing").last_cause != "import":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    status, body = daemon.call("crashing", "echo", {"text": "here"})
    assert (status, body["code"], body["cause"]) == (503, "IMPORT_ERROR", "import")
    assert daemon.row("crashing").instance != former


def test_runagents_door_tells_the_same_inside_its_envelope(daemon: Daemon) -> None:
    """HTTP 200 and success false: the only form of which its clients keep the code."""
    identity = daemon.row("door").agent
    former = daemon.row("door").instance
    wrong: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("raise_it", {}, "FUNCTION_ERROR"),
        ("echo", {"text": ["no", "text"]}, "VALIDATION_ERROR"),
        ("eat", {"mebibytes": 400}, "OUT_OF_MEMORY"),
    )
    for tag, kwargs, code in wrong:
        body = {"entrypoint_tag": tag, "input_args": [], "input_kwargs": kwargs}
        status, answered = daemon.request("POST", f"/api/v1/agents/{identity}/run", body=body)
        assert (status, answered["success"], answered["error"]["code"]) == (200, False, code)
    is_well_again(daemon, "door", former)
