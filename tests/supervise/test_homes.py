"""Snapshots and kept data in the state directory: whole or not there, and given to no other folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from runagentd.names import storage_name
from runagentd.supervise.homes import Homes


@pytest.fixture
def homes(tmp_path: Path) -> Homes:
    return Homes(tmp_path)


def snapshot(homes: Homes, name: str) -> Path:
    place = homes.incoming() / name
    place.mkdir()
    (place / "agent.py").write_text(name)
    return place


def test_snapshots_are_kept_for_as_long_as_something_is_made_from_them(homes: Homes, tmp_path: Path) -> None:
    for code in ("a" * 64, "b" * 64):
        homes.adopt(snapshot(homes, code[:4]), "one", code, "/srv/one")
    assert sorted(path.name for path in tmp_path.glob("*/versions/*")) == ["a" * 64, "b" * 64]
    aside = homes.put_aside("one", {"b" * 64})
    assert [path.name for path in tmp_path.glob("*/versions/*")] == ["b" * 64]
    assert [path.parent for path in aside] == [homes.incoming()]
    assert homes.put_aside("nobody", set()) == []


def test_what_has_the_name_of_a_digest_is_whole(homes: Homes, tmp_path: Path) -> None:
    """A snapshot that goes leaves its place in one step: killed at any moment, no half of it can be taken for it."""
    homes.adopt(snapshot(homes, "x"), "one", "a" * 64, "/srv/one")
    (aside,) = homes.put_aside("one", set())
    assert (aside / "agent.py").read_text() == "x"
    homes.adopt(snapshot(homes, "y"), "one", "a" * 64, "/srv/one")
    assert next(tmp_path.glob("*/versions/*/agent.py")).read_text() == "y"


def test_a_start_removes_what_a_killed_supervisor_left(homes: Homes, tmp_path: Path) -> None:
    """Copies that were not finished, snapshots that no version needs, and nothing else."""
    for code in ("a" * 64, "b" * 64):
        homes.adopt(snapshot(homes, code[:4]), "one", code, "/srv/one")
    homes.adopt(snapshot(homes, "other"), "two", "c" * 64, "/srv/two")
    snapshot(homes, "0011.unfinished")
    (tmp_path / storage_name("one") / "data" / "kept").mkdir()
    assert homes.sweep({"one": {"b" * 64}}) == []
    assert [path.name for path in tmp_path.glob("*/versions/*")] == ["b" * 64]
    assert list(homes.incoming().iterdir()) == []
    assert [path.name for path in tmp_path.glob("*/data/*")] == ["kept"]


def test_records_of_an_earlier_version_are_named_and_go(homes: Homes, tmp_path: Path) -> None:
    """They were of a 'serve' that has ended; whose they were is said, so that it can be served again."""
    home = tmp_path / storage_name("one")
    home.mkdir()
    (home / "deployed").write_bytes(b"\xff" * 100)
    assert homes.sweep({}) == [storage_name("one")]
    assert homes.sweep({}) == []


def test_kept_data_is_given_to_the_folder_that_made_it_and_to_no_other(homes: Homes, tmp_path: Path) -> None:
    """An id is what a folder says of itself; whoever knows another's id would get its data otherwise."""
    assert homes.kept_by_another("one", "/srv/one") == ""
    homes.adopt(snapshot(homes, "x"), "one", "a" * 64, "/srv/one")
    assert homes.kept_by_another("one", "/srv/other") == ""  # nothing is kept yet
    next(tmp_path.glob("*/data")).joinpath("kept").mkdir()
    assert homes.kept_by_another("one", "/srv/one") == ""
    assert "'one' has kept data, and it was served from '/srv/one' so far" in homes.kept_by_another("one", "/srv/other")
