"""A folder that is watched: what is noticed, and what is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runagentd.foreman import watch
from runagentd.foreman.watch import Watch


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Watch, Path]]:
    """A folder with a folder in it, and one that tools write in."""
    (tmp_path / "below" / "deeper").mkdir(parents=True)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "a.py").write_text("1")
    one = Watch(tmp_path)
    yield one, tmp_path
    one.close()


def test_every_kind_of_change_is_noticed_once_it_is_done(watched: tuple[Watch, Path]) -> None:
    """Written, made, renamed, removed; in the folder and in those below it."""
    one, folder = watched
    assert not one.taken()
    (folder / "a.py").write_text("2")
    assert one.taken()
    assert not one.taken()
    (folder / "below" / "deeper" / "b.py").write_text("1")
    assert one.taken()
    (folder / "a.py").rename(folder / "c.py")
    assert one.taken()
    (folder / "c.py").unlink()
    assert one.taken()


def test_to_read_is_no_change_and_neither_is_what_tools_write(watched: tuple[Watch, Path]) -> None:
    """An import writes __pycache__: that must not start another one."""
    one, folder = watched
    (folder / "a.py").read_text()
    os.listdir(folder / "below")
    (folder / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"x")
    assert not one.taken()


def test_what_comes_later_is_watched_after_a_renewal(watched: tuple[Watch, Path]) -> None:
    """A folder that is made is a change, and what is written in it afterwards is one, too."""
    one, folder = watched
    (folder / "new").mkdir()
    assert one.taken()
    one.renew()
    (folder / "new" / "a.py").write_text("1")
    assert one.taken()


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    """A link to a folder elsewhere is not followed, so that what happens there is no change here."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    one = Watch(inside)
    try:
        (outside / "a.py").write_text("1")
        assert not one.taken()
    finally:
        one.close()


def test_too_many_folders_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watches are the kernel's to give: a folder of thousands is watched in part, and that is said."""
    monkeypatch.setattr(watch, "DIRECTORIES_MAX", 2)
    for name in "abc":
        (tmp_path / name).mkdir()
    one = Watch(tmp_path)
    assert one.complete is False
    one.close()
