"""calls.isolation = "principal": an instance serves one caller until it ends, in a real daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runagentd import signing, state
from tests.system.daemon import Daemon, serve
from tests.system.folders import agent, policy

pytestmark = [pytest.mark.root, pytest.mark.slow]

SOURCE = """
    import os, time
    from pathlib import Path
    from runagent_call import caller as principal

    WHO = os.urandom(8).hex()
    callers = set()
    calls = 0

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
    with serve([agent(place, name, SOURCE, "look") for name in texts], policies=policies) as running:
        yield running


def token(daemon: Daemon, subject: str, tenant: str | None = None) -> str:
    directory = state.open_existing(daemon.state_dir)
    return signing.mint(
        signing.create_or_open(str(directory.keys)),
        issuer=directory.issuer,
        audience=directory.audience,
        subject=subject,
        agents=None,
        ttl_seconds=600,
        tenant=tenant,
    )


def look(daemon: Daemon, name: str, token: str, seconds: float = 0.0) -> Any:
    """What the agent says. Any: JSON."""
    path = f"/v1/agents/{name}/entrypoints/look:invoke"
    status, answer = daemon.request("POST", path, body={"seconds": seconds}, token=token)
    assert status == 200, answer
    return answer


def test_a_caller_finds_its_own_state_and_never_anothers(daemon: Daemon) -> None:
    """A counter of the module goes up for each of two callers by itself, by turns."""
    a, b = token(daemon, "a"), token(daemon, "b")
    found = [(look(daemon, "four", a), look(daemon, "four", b)) for _ in range(3)]
    assert [(one["calls"], other["calls"]) for one, other in found] == [(1, 1), (2, 2), (3, 3)]
    assert len({one["instance"] for one, _ in found}) == 1
    assert len({other["instance"] for _, other in found}) == 1


def test_where_there_is_one_place_another_caller_gets_it_by_an_end_and_a_start(daemon: Daemon) -> None:
    a, b = token(daemon, "a"), token(daemon, "b")
    said = [look(daemon, "one", each)["calls"] for each in (a, a, b, b, a)]
    assert said == [1, 2, 1, 2, 1]
    assert "evicted" in daemon.log.read_text()
