"""calls.isolation = "principal": an instance serves one caller until it ends, in a real daemon."""

from __future__ import annotations

import collections
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from runagentd.foreman import admin_client
from runagentd.wire import admin
from tests.system.daemon import Daemon, serve
from tests.system.folders import agent, policy
from tests.system.test_metrics import scrape
from tests.system.test_scaling import control

pytestmark = [pytest.mark.root, pytest.mark.slow]

SOURCE = """
    import os, time
    from pathlib import Path
    from runagent_call import caller as principal

    WHO = os.urandom(8).hex()
    callers = set()
    calls = 0

    def leave() -> None:
        os._exit(3)

    def look(seconds: float = 0.0) -> dict:
        global calls
        calls += 1
        callers.add(principal.get())
        for folder in ("/tmp", "/dev/shm", "/app"):
            Path(folder, "left-by-" + principal.get()).touch()
        left = {name for folder in ("/tmp", "/dev/shm", "/app") for name in os.listdir(folder) if "left-by" in name}
        if callers != {principal.get()} or left != {"left-by-" + principal.get()}:
            raise RuntimeError(f"another caller was here: {callers} {left}")
        time.sleep(seconds)
        return {"instance": WHO, "calls": calls, "caller": principal.get()}
"""


def principals(place: Path, name: str, text: str = "") -> str:
    return policy(place, name, f'[calls]\nisolation = "principal"\nqueue = 256\n{text}')


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("principals")
    texts = {
        "one": '[scaling]\nfreeze = "1s"\n',
        "four": "[scaling]\ninstances_max = 4\n",
        "quick": '[scaling]\ninstances_max = 4\nidle = "1s"\n',
        "killed": "[scaling]\ninstances_max = 4\n",
    }
    policies = [f"{name}={principals(place, name, text)}" for name, text in texts.items()]
    with serve([agent(place, name, SOURCE, "look", "leave") for name in texts], policies=policies) as running:
        yield running


def look(daemon: Daemon, name: str, token: str, seconds: float = 0.0) -> Any:
    """What the agent says. Any: JSON."""
    path = f"/v1/agents/{name}/entrypoints/look:invoke"
    status, answer = daemon.request("POST", path, body={"seconds": seconds}, token=token)
    assert status == 200, answer
    return answer


def rows(daemon: Daemon, name: str) -> list[str]:
    """The instances of an agent that are ready."""
    return [row.instance for row in daemon.instances() if row.agent_name == name and row.state in ("ready", "frozen")]


def wait_until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not become so in time"
        time.sleep(0.02)


def test_a_caller_finds_its_own_state_and_never_anothers(daemon: Daemon) -> None:
    """A counter of the module goes up for each of two callers by itself, by turns."""
    a, b = daemon.token_of("a"), daemon.token_of("b")
    found = [(look(daemon, "four", a), look(daemon, "four", b)) for _ in range(3)]
    assert [(one["calls"], other["calls"]) for one, other in found] == [(1, 1), (2, 2), (3, 3)]
    assert len({one["instance"] for one, _ in found}) == 1
    assert len({other["instance"] for _, other in found}) == 1


def test_where_there_is_one_place_another_caller_gets_it_by_an_end_and_a_start(daemon: Daemon) -> None:
    a, b = daemon.token_of("a"), daemon.token_of("b")
    said = [look(daemon, "one", each)["calls"] for each in (a, a, b, b, a)]
    assert said == [1, 2, 1, 2, 1]
    assert "evicted" in daemon.log.read_text()


def test_one_is_always_ready_for_a_caller_who_has_none(daemon: Daemon) -> None:
    """The minimum is of instances that nobody has: it is filled up again, and what its caller does not use ends."""
    wait_until(lambda: len(rows(daemon, "quick")) == 1)
    (first,) = rows(daemon, "quick")
    look(daemon, "quick", daemon.token_of("a"))
    wait_until(lambda: len(rows(daemon, "quick")) == 2)
    wait_until(lambda: first not in rows(daemon, "quick"))
    wait_until(lambda: len(rows(daemon, "quick")) == 1)
    # It is gone from the rows when it is told to end; the line comes when it has ended.
    ends = [f"instance={first}", "cause=scale-down"]
    wait_until(lambda: any(all(word in line for word in ends) for line in daemon.log.read_text().splitlines()))


def test_a_frozen_instance_wakes_for_its_caller_and_ends_for_another(daemon: Daemon) -> None:
    """Where nothing is frozen, it is idle all the same."""
    a, b = daemon.token_of("c"), daemon.token_of("d")
    assert look(daemon, "one", a)["calls"] == 1
    time.sleep(1.3)
    assert look(daemon, "one", a)["calls"] == 2
    time.sleep(1.3)
    assert look(daemon, "one", b)["calls"] == 1


def test_a_restart_ends_what_has_callers_as_well(daemon: Daemon) -> None:
    a = daemon.token_of("a")
    before = look(daemon, "four", a)
    known = {row.instance for row in daemon.instances() if row.agent_name == "four"}
    daemon.restart("four")
    wait_until(lambda: not known & {row.instance for row in daemon.instances()})
    after = look(daemon, "four", a)
    assert after["calls"] == 1
    assert after["instance"] != before["instance"]


def test_fifty_callers_at_once_share_four_places_and_nothing_else(daemon: Daemon) -> None:
    """Everybody is answered; the agent itself raises where it finds a trace of another caller."""
    tokens = [daemon.token_of(f"flood {number}") for number in range(50)]
    most = 0

    def three(mine: str) -> list[Any]:
        nonlocal most
        found = [look(daemon, "four", mine, 0.01) for _ in range(3)]
        alive = [row for row in daemon.instances() if row.agent_name == "four" and row.state in ("importing", "ready")]
        most = max(most, len(alive))
        return found

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(three, tokens))
    served = collections.defaultdict(set)
    for found in answers:
        assert len({one["caller"] for one in found}) == 1
        for one in found:
            served[one["instance"]].add(one["caller"])
    assert len({found[0]["caller"] for found in answers}) == 50
    assert {len(callers) for callers in served.values()} == {1}
    assert most <= 4


def test_a_caller_who_floods_keeps_others_waiting_for_a_turn_only(daemon: Daemon) -> None:
    """A hundred calls of a tenth of a second are ahead, two and a half seconds for four instances: not so for b."""
    a, b = daemon.token_of("flood"), daemon.token_of("single")
    with ThreadPoolExecutor(101) as threads:
        flood = [threads.submit(look, daemon, "four", a, 0.1) for _ in range(100)]
        wait_until(lambda: sum(each.done() for each in flood) > 8)
        single = threads.submit(look, daemon, "four", b)
        assert single.result()["calls"] == 1
        left = sum(not each.done() for each in flood)
        assert all(each.result()["caller"] != single.result()["caller"] for each in flood)
    assert left > 40


def test_who_ends_their_own_instance_again_and_again_keeps_nobody_out(daemon: Daemon) -> None:
    """Twelve ends in a row would delay the next start of an agent by half a minute: not here."""
    a, b = daemon.token_of("leaver"), daemon.token_of("patient")
    for _ in range(12):
        status, _ = daemon.request("POST", "/v1/agents/one/entrypoints/leave:invoke", body={}, token=a)
        assert status == 502
    told = admin_client.ask(daemon.state_dir / "admin.sock", admin.DescribeAsk(agent="one"))
    assert isinstance(told, admin.Described)
    assert told.retry_after_ms <= 1000
    assert look(daemon, "one", b)["calls"] == 1


def test_an_operator_sees_how_many_instances_have_a_caller_and_not_whom(daemon: Daemon) -> None:
    look(daemon, "four", daemon.token_of("somebody with a name"))
    told = control(daemon, "describe", "four").stdout
    assert "calls apart by principal" in told
    assert " with a caller, " in told
    assert "ready, has a caller" in told
    assert scrape(daemon)['runagentd_instances_bound{agent="four"}'] >= 1
    caller = look(daemon, "four", daemon.token_of("somebody with a name"))["caller"]
    for text in (told, control(daemon, "describe", "four", "--json").stdout, control(daemon, "ps").stdout):
        assert "somebody" not in text
        assert caller not in text


def test_after_the_end_of_a_gateway_no_instance_is_taken_for_nobodys(daemon: Daemon) -> None:
    """kill -9 while two callers call: what they had is not given to a third, nor to one of them."""
    a, b = daemon.token_of("a"), daemon.token_of("b")
    before = [look(daemon, "killed", each) for each in (a, b)]
    known = set(rows(daemon, "killed"))
    gateway = daemon.gateway_pid()
    with ThreadPoolExecutor(2) as threads:
        lost = [threads.submit(look, daemon, "killed", each, 2.0) for each in (a, b)]
        time.sleep(0.5)
        os.kill(gateway, signal.SIGKILL)
        for each in lost:
            with pytest.raises((HTTPException, OSError)):
                each.result()
    wait_until(lambda: daemon.gateway_pid() not in (0, gateway))
    wait_until(lambda: daemon.request("GET", "/readyz")[0] == 200)
    after = [look(daemon, "killed", daemon.token_of(subject)) for subject in ("c", "b", "a")]
    assert [one["calls"] for one in after] == [1, 1, 1]
    assert not {one["instance"] for one in after} & {one["instance"] for one in before}
    wait_until(lambda: not known & set(rows(daemon, "killed")))
    assert "gateway-lost" in daemon.log.read_text()


def test_a_policy_and_an_agent_that_change_meanwhile_keep_callers_apart(tmp_path: Path) -> None:
    """From one instance for all to one for each caller, and to other code: no call fails, nothing is carried over."""
    folder = agent(tmp_path, "live", SOURCE.replace("raise RuntimeError", "pass  #"), "look", "leave")
    file = Path(policy(tmp_path, "rules", "[scaling]\ninstances_max = 4\n"))
    with serve([folder], policies=[str(file)], options=["--reload"]) as running:
        a, b = running.token_of("a"), running.token_of("b")
        assert [look(running, "live", each)["calls"] for each in (a, b)] == [1, 2]
        principals(tmp_path, "rules", "[scaling]\ninstances_max = 4\n")
        running.wait_for_log("live: reloaded in ")
        assert [look(running, "live", each)["calls"] for each in (a, b, a, b)] == [1, 1, 2, 2]
        source = folder / "agent.py"
        with ThreadPoolExecutor(8) as threads:
            calls = [threads.submit(look, running, "live", each, 0.02) for each in (a, b) * 20]
            source.write_text(source.read_text().replace("pass  #", "raise RuntimeError"))
            calls += [threads.submit(look, running, "live", each, 0.02) for each in (a, b) * 20]
            found = [each.result() for each in calls]
        served = collections.defaultdict(set)
        for one in found:
            served[one["instance"]].add(one["caller"])
        assert {len(callers) for callers in served.values()} == {1}
        wait_until(lambda: running.log.read_text().count("live: reloaded in ") == 2)
        assert look(running, "live", a)["calls"] < look(running, "live", a)["calls"]
