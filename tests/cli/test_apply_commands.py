"""`runagentctl apply` where the folder that it reads by itself is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from runagentd.cli import apply_commands
from runagentd.errors import ConfigurationError
from runagentd.state import StateDirectory


def apply(usual: Path, *, dry_run: bool) -> int:
    # Nobody answers in this state directory: it has to be told before anybody is asked.
    nowhere = StateDirectory(usual.parent / "state", "x")
    return apply_commands.apply(
        nowhere, [], usual=usual, dry_run=dry_run, yes=True, prune=True, take_over=False, as_json=False
    )


def test_a_folder_that_is_not_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    """As what it is, and not as the file of an agent that is refused."""
    with pytest.raises(ConfigurationError) as raised:
        apply(tmp_path / "agents", dry_run=False)
    assert str(raised.value).replace(str(tmp_path), "HERE") == (
        "HERE/agents: no such folder, and 'apply' was given no other\n"
        "hint: make it (mkdir --parents HERE/agents) and write a file for each agent into it (docs/files.md)\n"
        "hint: or name folders or files: runagentctl apply DIR|FILE"
    )


def test_a_dry_run_without_the_folder_is_trouble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its status is that of a file which cannot be used."""
    assert apply(tmp_path / "agents", dry_run=True) == 2
    assert capsys.readouterr().err.startswith(f"runagentctl: {tmp_path}/agents: no such folder")
