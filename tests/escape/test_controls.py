"""Every attempt works where no sandbox is: otherwise "blocked" would say nothing.

Runs as: the test process, as root; each control in a throwaway process, see `outside`.
Reads from strangers: nothing.
"""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.escape import outside
from tests.escape.attempts import siblings
from tests.escape.attempts.everything import ATTEMPTS
from tests.escape.attempts.frame import Attempt, Observation

pytestmark = [pytest.mark.root, pytest.mark.kernel]

ROOT = Path(__file__).resolve().parents[2]
WITH_CONTROL = [one for one in ATTEMPTS.values() if one.control is not None]
WITHOUT_CONTROL = [one for one in ATTEMPTS.values() if one.control is None]


@pytest.fixture(scope="module")
def controls() -> dict[str, Observation]:
    """All controls, run once, from a fresh process with one thread."""
    finished = subprocess.run(
        [sys.executable, "-m", "tests.escape.outside"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=True,
    )
    found = {}
    for line in finished.stdout.splitlines():
        name, word, detail = json.loads(line)
        found[name] = Observation(word=word, detail=detail)
    return found


@pytest.mark.parametrize("one", WITH_CONTROL, ids=lambda one: one.name)
def test_the_attempt_works_outside(one: Attempt, controls: dict[str, Observation]) -> None:
    """As root and without a sandbox it succeeds, or this kernel was built without what it attacks."""
    observed = controls[one.name]
    assert outside.judge(one, observed) in ("works", "lacking"), f"{observed.word}: {observed.detail}"


def test_most_attempts_work_on_this_kernel(controls: dict[str, Observation]) -> None:
    """A kernel that lacks half of what is attacked would make the suite worth little."""
    judged = collections.Counter(outside.judge(one, controls[one.name]) for one in WITH_CONTROL)
    print(f"\ncontrols: {dict(judged)}, without a control: {len(WITHOUT_CONTROL)}")
    for one in WITH_CONTROL:
        if outside.judge(one, controls[one.name]) == "lacking":
            print(f"  this kernel has no target for {one.name}: {controls[one.name].detail}")
    assert judged["works"] >= 150


@pytest.mark.parametrize("one", WITHOUT_CONTROL, ids=lambda one: one.name)
def test_the_reason_for_no_control_is_recorded(one: Attempt) -> None:
    """A sentence says why nothing outside can show that the attempt would work."""
    assert len(one.no_control.split()) >= 5


def test_every_attempt_has_its_idea() -> None:
    """Whoever reads a failure must learn what was tried."""
    assert [one.name for one in ATTEMPTS.values() if len(one.idea) < 4] == []


@pytest.mark.parametrize("name", list(siblings.PAIRS))
def test_what_is_planted_can_be_found_outside(name: str, controls_of_pairs: dict[str, Observation]) -> None:
    """Two processes that share everything find what the other has left."""
    assert controls_of_pairs[name].word == "open", controls_of_pairs[name].detail


@pytest.fixture(scope="module")
def controls_of_pairs() -> dict[str, Observation]:
    finished = subprocess.run(
        [sys.executable, "-m", "tests.escape.outside", "--pairs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = {}
    for line in finished.stdout.splitlines():
        name, word, detail = json.loads(line)
        found[name] = Observation(word=word, detail=detail)
    return found


def test_careless_forks_draw_the_same_random_numbers() -> None:
    """The raw system call reseeds nothing, so `random` repeats in two children: what `draw` is there to notice."""
    program = (
        "import random; from tests.escape.attempts import siblings; "
        "print(*siblings.twins(lambda: f'{random.getrandbits(128):x}'))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True
    )
    first, second = said.stdout.split()
    assert first == second
