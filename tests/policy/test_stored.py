"""A policy that was written out with all its keys is the same one when it is read again."""

from __future__ import annotations

import pytest

from runagentd.errors import ConfigurationError
from runagentd.policy.digest import policy_digest
from runagentd.policy.files import find, shipped_names
from runagentd.policy.stored import from_text, to_text
from tests.policy.texts import loaded


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_policies_are_the_same_again(name: str) -> None:
    """Without the files that they extend."""
    policy = find(name)
    again = from_text(policy.name, to_text(policy))
    assert (policy_digest(again), again.name) == (policy_digest(policy), name)


def test_what_an_operator_wrote_is_the_same_again() -> None:
    """Sizes that are no round number, lists, and folders that may be missing."""
    policy = loaded(
        """
        version = 1
        [files]
        read = ["/srv/words", { path = '/srv/a "b" \\ ü', optional = true }]
        tmp_size = "68KiB"
        [resources]
        cpu_max = 0.33
        [calls]
        deadline = "61s"
        request_bytes = 1234567
        [scaling]
        instances_min = 0
        """
    )
    again = from_text("./web.toml", to_text(policy))
    assert policy_digest(again) == policy_digest(policy)


def test_a_text_that_is_no_policy_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no such key"):
        from_text("base", "version = 1\n[files]\nnonsense = 1\n")
