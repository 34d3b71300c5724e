"""What makes a version another one: each part of what decides how an instance behaves, and nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from runagentd.supervise.identity import identity, made_for
from runagentd.wire.manifest import Variable
from tests.plan.facts import DEBIAN
from tests.policy.texts import loaded
from tests.supervise.test_store import MANIFEST

POLICY = loaded("version = 1\n")
PYTHON = DEBIAN.python
ONE = identity(code="a", environment="", manifest=MANIFEST, policy=POLICY, runtime=PYTHON)


def test_the_same_is_the_same() -> None:
    """Whatever the author is told by a hint, and whatever the policy's file is called."""
    hinted = dataclasses.replace(MANIFEST, hints=("a word for the author",))
    renamed = dataclasses.replace(POLICY, name="other")
    assert identity(code="a", environment="", manifest=hinted, policy=renamed, runtime=PYTHON) == ONE


def test_each_part_makes_another_version() -> None:
    variables = dataclasses.replace(MANIFEST, environment=(Variable(name="KEY", value="1"),))
    elsewhere = dataclasses.replace(PYTHON, interpreter="/opt/python3.11/bin/python3.11")
    wider = loaded('version = 1\n[resources]\nmemory_max = "512MiB"\n')
    others = {
        "code": identity(code="b", environment="", manifest=MANIFEST, policy=POLICY, runtime=PYTHON),
        "environment": identity(code="a", environment="e", manifest=MANIFEST, policy=POLICY, runtime=PYTHON),
        "configuration": identity(code="a", environment="", manifest=variables, policy=POLICY, runtime=PYTHON),
        "policy": identity(code="a", environment="", manifest=MANIFEST, policy=wider, runtime=PYTHON),
        "runtime": identity(code="a", environment="", manifest=MANIFEST, policy=POLICY, runtime=elsewhere),
    }
    assert {part: other.changes(ONE) for part, other in others.items()} == {
        "code": ("code",),
        "environment": ("environment",),
        "configuration": ("configuration",),
        "policy": ("policy",),
        "runtime": ("runtime",),
    }
    assert len({ONE.digest, *(other.digest for other in others.values())}) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"version": "3.12"},
        {"release": "3.11.9"},
        {"build": "3.11.2 (main, Jun  1 2025, 09:00:00) [GCC 12.2.0]"},
        {"abi": "cpython-311 3.11.2 x86_64 glibc-2.41"},
        {"prefix": "/opt/python3.11"},
        {"interpreter": "/opt/python3.11/bin/python3.11"},
    ],
)
def test_whatever_an_agent_could_tell_two_runtimes_apart_by_makes_another(change: dict[str, Any]) -> None:
    """An update in the same place among it."""
    other = dataclasses.replace(PYTHON, **change)
    assert identity(code="a", environment="", manifest=MANIFEST, policy=POLICY, runtime=other).digest != ONE.digest


def test_a_runtime_is_its_release_and_a_digest() -> None:
    """So that it can be told for which minor version packages were installed."""
    release, digest = ONE.runtime.split(" ")
    assert (release, len(digest), made_for(ONE.runtime), made_for("")) == ("3.11.2", 64, "3.11", "")
