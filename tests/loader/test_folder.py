"""A folder on the disk: what is in it is read, what it points to is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runagentd.loader.folder import OpenFolder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[OpenFolder]:
    inside = tmp_path / "agent"
    (inside / "src").mkdir(parents=True)
    (inside / "src" / "app.py").write_text("x = 1\n")
    (tmp_path / "outside.py").write_text("secret")
    (inside / "link.py").symlink_to("src/app.py")
    (inside / "out.py").symlink_to("../outside.py")
    (inside / "up").symlink_to("..")
    os.mkfifo(inside / "pipe")
    descriptor = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
    yield OpenFolder(descriptor)
    os.close(descriptor)


def test_a_file_is_read_up_to_one_byte_more_than_asked(folder: OpenFolder) -> None:
    assert folder.read("src/app.py", 100) == b"x = 1\n"
    assert folder.read("src/app.py", 2) == b"x ="


@pytest.mark.parametrize(
    "path", ["link.py", "out.py", "up/outside.py", "../outside.py", "/etc/passwd", "pipe", "src", "none", "a\0b", ""]
)
def test_anything_else_is_not(folder: OpenFolder, path: str) -> None:
    assert folder.read(path, 100) is None
    assert folder.is_file(path) is False


def test_files_and_directories_are_told_apart(folder: OpenFolder) -> None:
    assert (folder.is_file("src/app.py"), folder.is_directory("src/app.py")) == (True, False)
    assert (folder.is_file("src"), folder.is_directory("src")) == (False, True)
    assert (folder.is_directory("up"), folder.is_directory("..")) == (False, False)


def test_names_are_sorted(folder: OpenFolder) -> None:
    assert folder.names("") == ["link.py", "out.py", "pipe", "src", "up"]
    assert folder.names("src") == ["app.py"]
    assert folder.names("up") == []
