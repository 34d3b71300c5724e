"""files.read: what is missing, what leads elsewhere, and what would show the daemon's own secrets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from runagentd.errors import ConfigurationError
from runagentd.policy.files import find
from runagentd.policy.model import HostFolder, Policy
from runagentd.supervise.host_folders import absent


def _reading(path: Path, *, optional: bool = False) -> Policy:
    base = find("base")
    folder = HostFolder(path=str(path), optional=optional)
    return dataclasses.replace(base, files=dataclasses.replace(base.files, read=(folder,)))


def test_a_missing_optional_folder_is_absent_and_any_other_is_a_problem(tmp_path: Path) -> None:
    """optional = true says that the agent can do without it."""
    state = tmp_path / "state"
    assert absent(_reading(tmp_path / "gone", optional=True), state) == frozenset({str(tmp_path / "gone")})
    with pytest.raises(ConfigurationError, match=r"files\.read\[0\]: .*no such file or directory"):
        absent(_reading(tmp_path / "gone"), state)


def test_a_symbolic_link_is_named_with_the_place_it_leads_to(tmp_path: Path) -> None:
    """What an operator reads in the policy is what the agent gets."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigurationError, match="leads over a symbolic link"):
        absent(_reading(tmp_path / "link"), tmp_path / "state")


@pytest.mark.parametrize("inside", ["state", "state/agents", ""])
def test_the_state_directory_can_never_be_read(tmp_path: Path, inside: str) -> None:
    """Neither itself, nor a part of it, nor a folder around it: it holds the signing key."""
    (tmp_path / "state" / "agents").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="would show the state directory"):
        absent(_reading(tmp_path / inside if inside else tmp_path), tmp_path / "state")
