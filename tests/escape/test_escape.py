"""The escape suite: hostile code inside two served agents under the policy base, through the whole product.

Runs as: the test process, as root.
Reads from strangers: what the agents report. A sandbox that was left could lie; the tests of `tests/protections` look
from outside as well.
"""

from __future__ import annotations

import collections
import http.client
import json
import os
import re
import socket
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests import tried
from tests.escape import folder
from tests.escape.attempts import channel, ends, siblings
from tests.escape.attempts.channel import Breach
from tests.escape.attempts.ends import End
from tests.escape.attempts.everything import ATTEMPTS
from tests.escape.attempts.frame import Attempt, Observation
from tests.system.daemon import Daemon, serve
from tests.system.folders import policy

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow]

PAIR = ("escape one", "escape two")
FRESH = "escape fresh"
"""Under a policy with process.spawn = "exec": the same attempts in an interpreter that was exec'd in its jail."""
FORKED = "escape forked"
"""Under a policy with calls.isolation = "call": in a fork for each call, or in what that starts."""
OBSERVED = (*PAIR, FRESH, FORKED)
IN_A_FORK = {
    # /app cannot be written to at all.
    "fill_app": r"EROFS: ",
    "use_up_inodes_of_app": r"EROFS: ",
    "map_code_from_app": r"EROFS: ",
    # What forks is process 2, and not the agent itself; it is in reach, as SECURITY.md says, and nobody else.
    "find_somebody_to_signal": r"open: 1, for example 2$",
    # A call's only socket leads there, and no channel to the gateway does: so it may be the children's as well.
    "reach_the_gateway_by_pidfd": r"open: descriptor \d: the other end is process 2 of uid 65532$",
    "find_a_forgotten_descriptor": r"open: {0: '/dev/null', 1: 'pipe', 2: 'pipe', \d: 'socket'}$",
    "find_a_descriptor_in_a_child": r"open: {\d: 'pipe', \d: 'socket'}$",
}
"""Where what is observed in FORKED must be another thing: word and detail."""
EACH = 3
"""How many destructive attempts one agent is for: each end in a row costs a longer wait for the next instance."""


def _group(kind: str, names: list[str]) -> dict[str, str]:
    """Which agent each of these is tried in."""
    return {name: f"{kind} {number // EACH}" for number, name in enumerate(names)}


BREACHERS = _group("breach", list(channel.BREACHES))
ENDERS = _group("end", list(ends.ENDS))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("escape")
    names = [*OBSERVED, *dict.fromkeys([*BREACHERS.values(), *ENDERS.values()])]
    with socket.socket(socket.AF_UNIX) as listener:
        at = f"runagentd-escape-{os.getpid()}"
        listener.bind(f"\0{at}")
        listener.listen()
        fresh = policy(place, "fresh", 'extends = "base"\n[process]\nspawn = "exec"\n')
        folders = [folder.make(place, name, listener=at) for name in names]
        forked = policy(place, "forked", 'extends = "base"\n[calls]\nisolation = "call"\n')
        policies = [f"{FRESH}={fresh}", f"{FORKED}={forked}"]
        with serve(folders, policies=policies, options=tried.options(place)) as running:
            assert {bool(row.python) for row in running.instances()} == {tried.OTHER}
            yield running
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):  # nobody has come
                listener.accept()


Found = dict[str, dict[str, Observation]]


@pytest.fixture(scope="module")
def observed(daemon: Daemon) -> Found:
    """What all of them observed, at the same time: by agent, then by attempt."""

    def all_areas(agent: str) -> dict[str, Observation]:
        found = {}
        for area in dict.fromkeys(one.area for one in ATTEMPTS.values()):
            status, answer = daemon.call(agent, "run_area", {"area": area}, timeout=240)
            assert status == 200, answer
            found.update({name: Observation(**said) for name, said in answer.items()})
        return found

    with ThreadPoolExecutor(len(OBSERVED)) as threads:
        found = dict(zip(OBSERVED, threads.map(all_areas, OBSERVED), strict=True))
    _print_table(found)
    return found


def _print_table(found: Found) -> None:
    rows: dict[str, collections.Counter[str]] = {}
    for one in ATTEMPTS.values():
        row = rows.setdefault(one.area, collections.Counter())
        row["attempts"] += 1
        row["blocked"] += all(found[agent][one.name].word in one.expect for agent in OBSERVED if agent != FORKED)
        row["control"] += one.control is not None
    print(f"\n{'area':<14}{'attempts':>9}{'blocked':>9}{'with control':>14}")
    for area, row in rows.items():
        print(f"{area:<14}{row['attempts']:>9}{row['blocked']:>9}{row['control']:>14}")
    total = sum(rows.values(), collections.Counter())
    print(f"{'all':<14}{total['attempts']:>9}{total['blocked']:>9}{total['control']:>14}")
    print(f"and {len(siblings.PAIRS)} of siblings, {len(channel.BREACHES) + 1} of the channel, {len(ends.ENDS)} ends")


def test_there_are_enough_attempts() -> None:
    """The suite must not shrink unseen."""
    assert len(ATTEMPTS) >= 300
    assert len(siblings.PAIRS) + len(channel.BREACHES) + len(ends.ENDS) >= 60


@pytest.mark.parametrize("one", list(ATTEMPTS.values()), ids=lambda one: one.name)
def test_the_attempt_is_blocked(one: Attempt, observed: Found) -> None:
    """In each agent, in the way that is expected."""
    for agent in OBSERVED:
        found = observed[agent][one.name]
        if agent == FORKED and one.name in IN_A_FORK:
            assert re.match(IN_A_FORK[one.name], f"{found.word}: {found.detail}"), f"{one.idea}: {found}"
        else:
            assert found.word in one.expect, f"{one.idea}: {found.detail}"


def test_landlock_is_a_second_layer(observed: Found) -> None:
    """With Landlock's scopes (Linux 6.12) a signal to the reaper is refused, and not only without effect."""
    if _landlock_abi() >= 6:
        assert observed[PAIR[0]]["kill_process_1"].word == "EPERM"


def _landlock_abi() -> int:
    from runagentd import kernel

    return kernel.landlock_abi()


# ---- two agents


@pytest.mark.parametrize("name", list(siblings.PAIRS))
def test_a_sibling_finds_nothing(daemon: Daemon, name: str) -> None:
    """What one agent leaves, the other does not find; residual channels are recorded with the reason."""
    pair = siblings.PAIRS[name]
    status, _ = daemon.call(PAIR[0], "plant", {"name": name})
    # A plant may be refused itself; then there is nothing to be found either.
    assert status in (200, 502)
    status, found = daemon.call(PAIR[1], "look", {"name": name})
    assert status == 200, found
    if pair.residual and found["word"] == "open":
        print(f"\naccepted: {name}: {pair.residual}")
        return
    assert found["word"] in pair.expect, found["detail"]


def test_no_two_instances_draw_the_same_random_number(daemon: Daemon) -> None:
    """Instances are forks of one zygote: random, secrets, ssl, uuid and X25519 must differ all the same."""
    drawn = [daemon.call(agent, "draw") for agent in (*OBSERVED, *sorted({*BREACHERS.values()}))]
    assert {status for status, _ in drawn} == {200}
    sources = drawn[0][1]
    assert set(sources) >= {"random", "secrets", "urandom", "ssl", "uuid4"}
    for source in sources:
        values = [numbers[source] for _, numbers in drawn]
        assert len(set(values)) == len(values), source


def test_an_agent_cannot_change_what_its_next_instance_starts_from(daemon: Daemon) -> None:
    """What is written into the agent's folder, its own code included, is gone with the instance."""
    agent = sorted({*ENDERS.values()})[-1]
    former = daemon.wait_until_ready(agent).instance
    assert daemon.call(agent, "plant", {"name": "shared_file_in_app"})[0] == 200
    assert _code(daemon.call(agent, "end", {"name": "exit_at_once"})) == "INSTANCE_DIED"
    daemon.wait_until_ready(agent, other_than=former)
    status, found = daemon.call(agent, "look", {"name": "shared_file_in_app"})
    assert (status, found["word"]) == (200, "ENOENT")


# ---- the channel, and ends


def _code(answer: tuple[int, Any]) -> str:
    """The error's code, or "" for an ordinary answer."""
    status, body = answer
    return "" if status == 200 else str(body["code"])


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _wait(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("breach", list(channel.BREACHES.values()), ids=lambda breach: breach.name)
def test_a_breach_costs_its_own_instance_only(daemon: Daemon, breach: Breach) -> None:
    """The call ends in a known way, the instance is replaced for the true cause, and everything else goes on."""
    agent, gateway = BREACHERS[breach.name], daemon.gateway_pid()
    before, held = daemon.wait_until_ready(agent), _descriptors(gateway)
    code = _code(_run(daemon, agent, "break_protocol", breach.name, 2 if "TIMEOUT_ERROR" in breach.codes else 0))
    assert code in breach.codes
    if "" not in breach.causes:
        after = daemon.wait_until_ready(agent, other_than=before.instance)
        assert after.last_cause in breach.causes
    assert daemon.call(agent, "echo", {"text": "well again"}) == (200, "well again")
    assert daemon.call(PAIR[0], "echo", {"text": "unharmed"}) == (200, "unharmed")
    assert daemon.gateway_pid() == gateway
    assert _wait(lambda: _descriptors(gateway) <= held + 2), "the gateway keeps descriptors"


def test_chunks_beyond_the_credits_are_a_breach(daemon: Daemon) -> None:
    """A stream that sends more than was asked for ends with an error, and so does its instance."""
    agent = BREACHERS["garbage"]
    before = daemon.wait_until_ready(agent)
    parts = urllib.parse.urlsplit(daemon.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    headers = {"Authorization": f"Bearer {daemon.token}", "Accept": "text/event-stream"}
    path = f"/v1/agents/{urllib.parse.quote(agent)}/entrypoints/send_more_than_was_asked_stream:invoke"
    connection.request("POST", path, b"{}", {**headers, "Content-Type": "application/json"})
    answer = connection.getresponse()
    text = b""
    try:
        while piece := answer.read1(65536):
            text += piece
    except http.client.IncompleteRead as cut:  # an error after the first byte aborts the body
        text += cut.partial
    connection.close()
    assert b"PROTOCOL_ERROR" in text
    assert daemon.wait_until_ready(agent, other_than=before.instance).last_cause == "protocol"


@pytest.mark.parametrize("end", list(ends.ENDS.values()), ids=lambda end: end.name)
def test_an_end_is_the_instances_own(daemon: Daemon, end: End) -> None:
    """The caller learns the true cause, the next instance answers, and the sibling has noticed nothing."""
    agent = ENDERS[end.name]
    before, neighbour = daemon.wait_until_ready(agent), daemon.row(PAIR[1])
    assert _code(_run(daemon, agent, "end", end.name, end.timeout_seconds)) == end.code
    after = daemon.wait_until_ready(agent, other_than=before.instance)
    assert after.last_cause == end.cause
    assert daemon.call(agent, "echo", {"text": "well again"}) == (200, "well again")
    assert daemon.row(PAIR[1]).instance == neighbour.instance
    assert daemon.call(PAIR[1], "echo", {"text": "unharmed"}) == (200, "unharmed")


def _run(daemon: Daemon, agent: str, tag: str, name: str, timeout_seconds: int) -> tuple[int, Any]:
    """A call, over RunAgent's door where it needs a deadline, which that door takes in the body."""
    if not timeout_seconds:
        return daemon.call(agent, tag, {"name": name})
    body = {"entrypoint_tag": tag, "input_kwargs": {"name": name}, "timeout_seconds": timeout_seconds}
    path = f"/api/v1/agents/{urllib.parse.quote(agent)}/run"
    status, answer = daemon.request("POST", path, body=body)
    if status == 200 and answer["success"]:
        return 200, json.loads(json.loads(answer["data"])["payload"])
    return 502, answer["error"]


# ---- too much at once


def test_a_giant_argument_is_refused_before_it_reaches_the_agent(daemon: Daemon) -> None:
    """base takes a mebibyte."""
    assert _code(daemon.call(PAIR[0], "echo", {"text": "x" * (2 << 20)})) == "PAYLOAD_TOO_LARGE"


def test_deeply_nested_arguments_do_no_harm(daemon: Daemon) -> None:
    """The gateway does not parse arguments, and the runner's parser has a limit of its own."""
    parts = urllib.parse.urlsplit(daemon.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    path = f"/v1/agents/{urllib.parse.quote(PAIR[0])}/entrypoints/echo:invoke"
    body = b'{"text":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    headers = {"Authorization": f"Bearer {daemon.token}", "Content-Type": "application/json"}
    connection.request("POST", path, body, headers)
    status = connection.getresponse().status
    connection.close()
    assert 400 <= status < 500
    assert daemon.call(PAIR[0], "echo", {"text": "unharmed"}) == (200, "unharmed")


def test_the_log_of_a_forger_cannot_be_taken_for_the_daemons(daemon: Daemon) -> None:
    """Control characters that an agent prints reach no terminal and no line of the daemon's as they are."""
    assert daemon.call(PAIR[1], "break_protocol", {"name": "forge_the_log"})[0] == 200
    assert _wait(lambda: any(b"owned" in text for text in _logs(daemon).values()))
    for path, text in _logs(daemon).items():
        assert not set(text) & {0x00, 0x07, 0x1B}, path
        assert not any(line.startswith(b"2026-01-01 error supervisor") for line in text.splitlines()), path


def test_a_flood_of_output_is_bounded(daemon: Daemon) -> None:
    """Sixteen mebibytes are printed; base keeps one in a minute, and the next line says how much was dropped."""
    agent = BREACHERS["flood_standard_output"]
    for _ in range(2):
        assert daemon.call(agent, "break_protocol", {"name": "flood_standard_output"})[0] == 200
    assert _wait(lambda: any(b"bytes dropped" in text for text in _logs(daemon).values()))
    assert max(len(text) for text in _logs(daemon).values()) < 8 << 20


def _logs(daemon: Daemon) -> dict[Path, bytes]:
    """All that was logged: the agents' files, and what the daemon itself prints."""
    return {path: path.read_bytes() for path in (*daemon.state_dir.rglob("*.log"), daemon.log) if path.is_file()}


def test_the_suite_is_what_the_agents_run(daemon: Daemon) -> None:
    """The served copy knows the same attempts as the tests do."""
    status, listed = daemon.call(PAIR[0], "list_attempts")
    assert (status, sorted(one["name"] for one in listed)) == (200, sorted(ATTEMPTS))


def test_nothing_of_the_suite_reaches_the_host(daemon: Daemon, observed: Found) -> None:
    """After all of it no file with the suite's mark is outside of the daemon's own folders."""
    assert observed
    places = [Path("/tmp"), Path("/dev/shm"), Path("/usr/lib"), Path("/etc"), Path("/")]
    assert [path for place in places for path in place.glob("*escape-attempt*")] == []
    assert [path for place in places for path in place.glob(f"{siblings.MARK}*")] == []
