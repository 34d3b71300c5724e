"""The state directory: whose it is, before root writes anything there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from runagentd import state
from runagentd.errors import HostError


def test_an_empty_directory_becomes_a_private_one_and_is_the_same_the_next_time(tmp_path: Path) -> None:
    place = tmp_path / "new" / "state"
    made = state.create_or_open(place)
    assert sorted(os.listdir(place)) == ["agents", "format", "gateway", "id", "jail", "keys", "scratch"]
    folders = [path for path in (place, *place.iterdir()) if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    assert state.create_or_open(place).id == made.id


@pytest.mark.parametrize(("owner", "mode"), [(1000, 0o700), (0, 0o777), (0, 0o1777), (0, 0o770)])
@pytest.mark.root
def test_where_others_can_write_nothing_is_written(tmp_path: Path, owner: int, mode: int) -> None:
    """Between a look at an empty folder and a write to it they could put a link there, to a file of root's."""
    place = tmp_path / "state"
    place.mkdir()
    os.chown(place, owner, 0)
    place.chmod(mode)
    with pytest.raises(HostError, match="must belong to root alone"):
        state.create_or_open(place)
    assert os.listdir(place) == []
    assert stat.S_IMODE(place.stat().st_mode) == mode


@pytest.mark.root
def test_what_somebody_puts_there_meanwhile_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, secret = tmp_path / "state", tmp_path / "shadow"
    secret.write_text("root:x")
    place.mkdir(mode=0o700)
    (place / "id").symlink_to(secret)
    monkeypatch.setattr(os, "listdir", lambda _: [])  # as it was when it was looked at
    with pytest.raises(HostError, match=r"cannot make the state directory .*: File exists"):
        state.create_or_open(place)
    assert secret.read_text() == "root:x"
