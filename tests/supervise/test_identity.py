"""What makes a version another one: each part of what decides how an instance behaves, and nothing else."""

from __future__ import annotations

import dataclasses

from runagentd.supervise.identity import identity
from runagentd.wire.manifest import Variable
from tests.policy.texts import loaded
from tests.supervise.test_store import MANIFEST

POLICY = loaded("version = 1\n")
ONE = identity(code="a", environment="", manifest=MANIFEST, policy=POLICY)


def test_the_same_is_the_same() -> None:
    """Whatever the author is told by a hint, and whatever the policy's file is called."""
    hinted = dataclasses.replace(MANIFEST, hints=("a word for the author",))
    renamed = dataclasses.replace(POLICY, name="other")
    assert identity(code="a", environment="", manifest=hinted, policy=renamed) == ONE


def test_each_part_makes_another_version() -> None:
    variables = dataclasses.replace(MANIFEST, environment=(Variable(name="KEY", value="1"),))
    wider = loaded('version = 1\n[resources]\nmemory_max = "512MiB"\n')
    others = {
        "code": identity(code="b", environment="", manifest=MANIFEST, policy=POLICY),
        "environment": identity(code="a", environment="e", manifest=MANIFEST, policy=POLICY),
        "configuration": identity(code="a", environment="", manifest=variables, policy=POLICY),
        "policy": identity(code="a", environment="", manifest=MANIFEST, policy=wider),
    }
    assert {part: other.changes(ONE) for part, other in others.items()} == {
        "code": ("code",),
        "environment": ("environment",),
        "configuration": ("configuration",),
        "policy": ("policy",),
    }
    assert len({ONE.digest, *(other.digest for other in others.values())}) == 5
