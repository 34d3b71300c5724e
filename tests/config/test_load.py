"""runagentd.toml: what it says, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from runagentd.config import load
from runagentd.config.roles import SCOPE_HINT
from runagentd.errors import ConfigurationError
from runagentd.wire.settings import RoleSettings


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        load.parse(text.encode(), "runagentd.toml", Path())
    return [str(problem) for problem in raised.value.problems]


def test_an_empty_file_is_the_defaults() -> None:
    """As no file is."""
    assert load.parse(b"", "runagentd.toml", Path()) == load.Document()


def test_roles_are_named_sets_of_scopes() -> None:
    """Allowed and denied."""
    text = b"""
        [roles.support]
        allow = ["agents:invoke:support-*/*", "agents:read"]
        deny = ["agents:invoke:support-billing/refund"]
    """
    assert load.parse(text, "x", Path()).settings.roles == (
        RoleSettings(
            name="support",
            allow=("agents:invoke:support-*/*", "agents:read"),
            deny=("agents:invoke:support-billing/refund",),
        ),
    )


def test_every_problem_is_told_with_its_place() -> None:
    """Not only the first."""
    found = problems(
        """
        rolls = 1
        [roles.support]
        allowed = []
        deny = "x"
        [roles.clerk]
        allow = ["agents:invoke:b*nk/x"]
        """
    )
    assert found == [
        "runagentd.toml: roles.support.deny: must be an array of texts",
        "runagentd.toml: roles.support.allowed: there is no such key\nhint: did you mean 'allow'?",
        f"runagentd.toml: roles.clerk.allow: 'agents:invoke:b*nk/x' is not a scope\nhint: {SCOPE_HINT}",
        "runagentd.toml: rolls: there is no such key\nhint: did you mean 'roles'?",
    ]


def test_what_is_no_toml_is_told_with_its_line() -> None:
    """In one sentence."""
    assert problems("a = [")[0].startswith("runagentd.toml: this is not TOML: ")
    # Which tomllib does not refuse in its own words.
    assert problems(f"a = {'1' * 5000}")[0].startswith("runagentd.toml: this is not TOML: ")
    assert problems("a = 1\nb\nc = 2")[0].endswith("(at line 2, column 2)")


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    """With its name."""
    with pytest.raises(ConfigurationError) as raised:
        load.load(tmp_path / "none.toml")
    assert str(raised.value) == f"{tmp_path}/none.toml: no such file or directory"
