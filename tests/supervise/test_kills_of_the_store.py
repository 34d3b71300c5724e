"""kill -9 of who deploys, at every step of it and at random: what is deployed is whole, and the last one that was told.

Each time a real process deploys real snapshots and is killed; then another one opens what it left.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runagentd.supervise import snapshot
from runagentd.supervise.homes import Homes
from runagentd.supervise.store import Store
from tests.system.daemon import ROOT

pytestmark = [pytest.mark.root, pytest.mark.slow]

# From the third time on: the first two are those of opening, and of a first deploy.
POINTS = [
    *(("os.rename", number) for number in range(3, 11)),
    *(("INSERT INTO versions", number) for number in (1, 3)),
    *(("UPDATE agents SET former", number) for number in (1, 3)),
    *(("DELETE FROM versions", number) for number in (1, 23)),
    *(("COMMIT", number) for number in (2, 3, 4)),
    *(("served", number) for number in (1, 2, 23)),
    *(("os.remove", number) for number in (1, 3, 7)),
    ("os.rmdir", 2),
]


def deploy_until_killed(place: Path, point: str = "never", times: int = 0, *, after: float | None = None) -> list[str]:
    """The digests that it told, in order."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.supervise.dying", str(place), point, str(times)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    told = []
    if after is not None:
        told.append(process.stdout.readline().strip())
        time.sleep(after)
        process.kill()
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == -9, "it was to be killed, and ended by itself"
    return [digest for digest in [*told, *rest.split()] if digest]


def look(place: Path, told: list[str]) -> None:
    """What the next supervisor finds: whole versions, nothing else, and the last that was told or the one after it."""
    store, homes = Store(place / "state"), Homes(place / "state" / "agents")
    homes.sweep({agent: store.codes(agent) for agent in store.agents()})
    known = store.find("one")
    if known is not None:
        assert known.unread == {}
        for release in known.releases.values():
            assert digest_of(homes, place, release.deployment.code) == release.deployment.code
        serving = known.releases[known.serving].deployment.code
        served = [known.releases[number].deployment.code for number in reversed(known.numbers)]
        assert serving == served[-1]
        if told:
            assert told[-1] in served[-2:]
        assert sorted(path.name for path in place.glob("state/agents/*/versions/*")) == sorted(served)
    else:
        assert told == []
    assert list(homes.incoming().iterdir()) == []
    store.close()


def digest_of(homes: Homes, place: Path, code: str) -> str:
    """Of what lies there, file by file."""
    descriptor = homes.open_snapshot("one", code)
    (place / "again").mkdir(exist_ok=True)
    try:
        taken = snapshot.take(descriptor, place / "again")
    finally:
        os.close(descriptor)
    snapshot.discard(taken.path)
    return taken.digest


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for folder in ("state/agents", "source"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(("point", "times"), POINTS, ids=lambda value: str(value).replace(" ", "-"))
def test_killed_at_this_point(place: Path, point: str, times: int) -> None:
    """Before the rename of the snapshot, before the commit, after it, while an old one is removed."""
    told = deploy_until_killed(place, point, times)
    look(place, told)
    # And what comes after it goes on from there.
    told = deploy_until_killed(place, "served", 2)
    assert len(told) == 1
    look(place, told)


def test_killed_at_random(place: Path) -> None:
    """Twenty times, one after the other, on the same files."""
    chance = random.Random(20261128)
    for _ in range(20):
        look(place, deploy_until_killed(place, after=chance.random() * 0.03))
