"""What is found out about this machine: whatever kernel it has, as far as it can run the other tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runagentd.supervise import hostfacts


@pytest.mark.root
@pytest.mark.kernel
@pytest.mark.slow
def test_the_facts_of_a_machine_that_can_run_the_tests() -> None:
    facts = hostfacts.gather()
    assert facts.release >= (5, 15, 0)
    assert facts.machine == os.uname().machine
    assert facts.last_capability >= 40
    assert facts.landlock_abi >= 1
    assert facts.overlay
    assert facts.user_namespaces
    assert facts.idmapped_mounts
    assert "errno" in facts.seccomp_actions
    assert facts.libseccomp is not None
    assert facts.cgroups is not None
    assert facts.cgroup_problem == ""
    assert facts.python.interpreter in facts.python.paths


@pytest.mark.root
@pytest.mark.kernel
@pytest.mark.slow
def test_gathering_leaves_nothing_behind() -> None:
    hostfacts.gather()
    descriptors = len(os.listdir("/proc/self/fd"))
    # Not "no child": fixtures of other tests keep some.
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text()
    hostfacts.gather()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert children.read_text() == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [("6.1.0-28-amd64", (6, 1, 0)), ("6.18.44-fc-v669", (6, 18, 44)), ("5.15", (5, 15, 0)), ("odd", (0, 0, 0))],
)
def test_a_kernels_release_is_three_numbers(text: str, expected: tuple[int, int, int]) -> None:
    assert hostfacts.release(text) == expected
