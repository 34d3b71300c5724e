"""`make protections` itself: its table is complete, SECURITY.md shows it, and taking a protection away does show.

The whole run takes minutes and is a command of its own; three rows of it run here.
"""

from __future__ import annotations

import dataclasses

import pytest

from runagentd.plan.build import spare_steps
from runagentd.plan.model import Step, Verb
from runagentd.plan.syscalls import shipped_table
from runagentd.policy.files import find
from tests.escape.attempts import siblings
from tests.escape.attempts.everything import ATTEMPTS
from tests.plan.facts import DEBIAN
from tests.plan.test_build import plan_of
from tests.protections import egress, worker
from tests.protections.__main__ import END, SECURITY, START, run, with_table
from tests.protections.probes import PROBES
from tests.protections.table import PROTECTIONS
from tests.protections.traces import TRACES
from tests.protections.weakenings import (
    ARGUMENTS,
    BAITS,
    EGRESS,
    FAMILIES,
    WEAKENINGS,
    WORKER,
    agent_name,
    drops_of,
)

NOT_A_PROTECTION = {
    Verb.LOOPBACK: "gives the agent something",
    Verb.DIRECTORY: "gives the agent something",
    Verb.LINK: "gives the agent something",
    Verb.FILE: "gives the agent something",
    Verb.NEW_ROOT: "nothing can be mounted without it; its owner and its read-only flag have rows",
    Verb.REAPER: "makes pid 1; each of its own steps has a row",
    Verb.WAIT_FOR_REAPER: "the look finds a reaper that is not confined",
    Verb.STAND_BY: "reports",
    Verb.REHEARSE: "makes a start faster; what it must leave as it was is tested in tests/runner/test_rehearsal.py",
    Verb.MOUNT: "gives the agent something; what each mount must not allow has rows",
}


def test_each_step_of_a_launch_has_a_row() -> None:
    """A step that nobody would miss should not be there; a new one comes with its row."""
    steps = {step.verb for step in (*spare_steps(DEBIAN, in_advance=True), *plan_of(find("base")).steps)}
    weakened = {one.weakening for one in PROTECTIONS}
    touched = {step.verb for name in weakened for step in _steps_changed_by(name)}
    assert steps - touched - NOT_A_PROTECTION.keys() == set()
    assert touched & NOT_A_PROTECTION.keys() == {Verb.NEW_ROOT}


def test_each_limit_and_each_namespace_has_a_row() -> None:
    """Steps of one verb are told apart by their first argument."""
    steps = (*spare_steps(DEBIAN, in_advance=True), *plan_of(find("base")).steps)
    named = {(step.verb, step.arguments[0]) for step in steps if step.verb in (Verb.RLIMIT, Verb.UNSHARE, Verb.TMPFS)}
    touched = {
        (step.verb, step.arguments[0])
        for one in PROTECTIONS
        for step in _steps_changed_by(one.weakening)
        if step.arguments
    }
    assert named - touched == set()


def _steps_changed_by(name: str) -> list[Step]:
    before, plan = spare_steps(DEBIAN, in_advance=True), plan_of(find("base")).steps
    after = (*WEAKENINGS[name].spare(before), *WEAKENINGS[name].steps(plan))
    return [step for step in (*before, *plan) if step not in after]


def test_each_rule_of_the_filter_has_a_row() -> None:
    """Each call with argument rules, each one that is refused by name, each one with a condition, each group."""
    table = shipped_table()
    always = [entry for group in table.groups if group.always for entry in group.entries]
    assert {entry.name for entry in always if entry.alternatives} == set(ARGUMENTS)
    rows = {one.name for one in PROTECTIONS}
    for entry in always:
        if entry.errno is not None or entry.needs is not None:
            assert f"filter: {entry.name}" in rows
    for group in table.selectable():
        assert f"filter: group {group}" in rows
    allowed = {entry.name for group in table.groups for entry in group.entries}
    assert {call for calls in FAMILIES.values() for call in calls} & allowed == set()


def test_each_row_names_weakenings_and_a_test_that_exist() -> None:
    """A renamed attempt is noticed here and not after minutes."""
    known = {*ATTEMPTS, *PROBES, *(f"siblings: {name}" for name in siblings.PAIRS)}
    known |= {f"two calls: {name}" for name in TRACES}
    for one in PROTECTIONS:
        assert {one.weakening, *one.beneath} <= WEAKENINGS.keys()
        assert one.test.name.partition(",")[0] in known or " " in one.test.name
    assert len({one.name for one in PROTECTIONS}) == len(PROTECTIONS)


def test_each_weakening_is_used() -> None:
    """What no row takes away, or needs, is left over."""
    used = {name for one in PROTECTIONS for name in (one.weakening, *one.beneath)}
    assert WEAKENINGS.keys() - used - {"bait: slow look", "descriptors: close", "descriptors: check"} == set()


def test_each_weakening_of_egress_and_of_a_worker_is_carried_out_there() -> None:
    """They have no part in a launch, so a forgotten one would change nothing."""
    assert egress.WEAKEN.keys() - {"look"} == EGRESS.keys()
    assert worker.WEAKEN.keys() - {"look"} == WORKER.keys()
    assert {one.name for one in PROTECTIONS if one.test.alone} == EGRESS.keys() | WORKER.keys()


def test_an_agents_name_says_how_its_launch_is_weakened() -> None:
    """The name is all that a weakened supervisor goes by."""
    drops = frozenset({"landlock", "look"})
    assert agent_name(drops, 7) == "7: landlock + look"
    assert drops_of("7: landlock + look") == (WEAKENINGS["landlock"], WEAKENINGS["look"])
    assert drops_of(agent_name(frozenset(), 1)) == ()
    longest = max((one.gone_without for one in PROTECTIONS), key=lambda drops: len(agent_name(drops, 1000)))
    assert len(agent_name(longest, 1000)) <= 200


def test_no_weakening_renames_the_host() -> None:
    """Without a UTS namespace sethostname(2) names the machine itself."""
    for name in WEAKENINGS:
        verbs = [(step.verb, step.arguments) for step in WEAKENINGS[name].spare(spare_steps(DEBIAN, in_advance=True))]
        if (Verb.UNSHARE, ("uts",)) not in verbs:
            assert Verb.HOSTNAME not in [verb for verb, _ in verbs]


def test_security_md_shows_every_protection() -> None:
    """Its table is written by `python -m tests.protections --write`, after a run in which every row was shown."""
    table = SECURITY.read_text().partition(START)[2].partition(END)[0]
    names = [line.split(" | ")[0].removeprefix("| ") for line in table.strip().splitlines()[2:]]
    assert names == [one.name for one in PROTECTIONS]
    assert "NONE" not in table


def test_the_table_is_put_between_its_markers() -> None:
    """Nothing else of the page changes."""
    text = f"before\n{START}\nold\n{END}\nafter\n"
    assert with_table(text, "| new |\n") == f"before\n{START}\n\n| new |\n\n{END}\nafter\n"
    with pytest.raises(ValueError, match="does not have"):
        with_table("before\n", "| new |\n")


@pytest.mark.root
@pytest.mark.kernel
@pytest.mark.slow
def test_a_protection_that_is_away_is_noticed() -> None:
    """One that the look from outside sees, one that only an attempt notices, and one beneath another."""
    rows = [one for one in PROTECTIONS if one.name in ("seccomp", "oom-score", "landlock: programs")]
    shown = {one.protection.name: one for one in run(rows, said=lambda one: None)}
    assert {name: (one.seen, one.failure, one.problem) for name, one in shown.items()} == {
        "oom-score": ("no", "nothing → open", ""),
        "landlock: programs": ("no", "EACCES → open", ""),
        "seccomp": ("yes: Seccomp of the runner", "EPERM → open", ""),
    }


@pytest.mark.root
@pytest.mark.kernel
@pytest.mark.slow
def test_a_row_without_a_test_that_fails_is_a_problem() -> None:
    """The command's own failure: a bait alone takes nothing away, so nothing may be noticed."""
    row = dataclasses.replace(next(one for one in PROTECTIONS if one.name == "oom-score"), drop="bait: dumpable")
    (shown,) = run([row], said=lambda one: None)
    assert (
        shown.problem == "learn_our_oom_score does not notice: nothing: 500: an agent goes before the host's services"
    )
    assert BAITS.keys() >= {row.weakening}
