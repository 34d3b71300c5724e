"""A digest stands for what a policy decides: all of it, and nothing else."""

from __future__ import annotations

import dataclasses

import pytest

from runagentd.policy.digest import policy_digest
from runagentd.policy.files import find
from tests.policy.texts import loaded


def test_the_digest_of_base() -> None:
    """It changes only with the defaults or with what is hashed: both are worth a look."""
    assert policy_digest(find("base")) == "e6f55b016c55c6565dc134bc902eec112a50a86db747efbb034ce6d8f54fe84a"


def test_name_and_origins_are_not_part_of_it() -> None:
    """The defaults, said by base.toml or by nobody, are the same decision."""
    assert policy_digest(loaded("version = 1")) == policy_digest(find("base"))


@pytest.mark.parametrize(
    "setting", ["process.exec = true", 'files.read = ["/srv"]', "calls.queue = 63", "resources.cpu_max = 1.01"]
)
def test_every_decision_is_part_of_it(setting: str) -> None:
    """Also those that only the gateway applies."""
    assert policy_digest(loaded(f"version = 1\n{setting}")) != policy_digest(loaded("version = 1"))


def test_an_optional_folder_is_another_decision_than_a_required_one() -> None:
    """They differ where the host lacks it."""
    required = loaded('version = 1\nfiles.read = ["/srv"]')
    optional = loaded('version = 1\nfiles.read = [{ path = "/srv", optional = true }]')
    assert policy_digest(required) != policy_digest(optional)


def test_the_same_policy_has_the_same_digest_twice() -> None:
    """Canonical: no hash order, no identity."""
    base = find("base")
    assert policy_digest(dataclasses.replace(base, name="x", origins=())) == policy_digest(base)
