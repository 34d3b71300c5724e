"""A folder is empty again, whatever hostile code has made in it, and nothing outside of it was touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runagentd.runner import scratch
from runagentd.runner.scratch import NotEmpty, Scratch, empty


@pytest.fixture
def folder(tmp_path: Path) -> int:
    (tmp_path / "scratch").mkdir()
    return os.open(tmp_path / "scratch", os.O_RDONLY | os.O_DIRECTORY)


def test_files_of_every_kind_go(tmp_path: Path, folder: int) -> None:
    """And what a link leads to stays."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("kept")
    place = tmp_path / "scratch"
    (place / "file").write_text("x")
    (place / "link").symlink_to(tmp_path / "outside")
    (place / "dangling").symlink_to("nowhere")
    os.mkfifo(place / "pipe")
    (place / "inner").mkdir()
    (place / "inner" / "link").symlink_to(tmp_path / "outside")
    (place / "a name\n\udcff").write_text("x")
    empty(folder)
    assert os.listdir(place) == []
    assert (tmp_path / "outside" / "kept").read_text() == "kept"


def test_folders_in_each_other_go_however_deep_and_whatever_they_are_called(tmp_path: Path, folder: int) -> None:
    """Deeper than a path can be long, and under the names that folders get on their way up."""
    at = folder
    for number in range(1500):
        os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=at))
        os.mkdir(f".{number % 7}", dir_fd=at)
        inner = os.open(f".{number % 7}", os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        if at != folder:
            os.close(at)
        at = inner
    os.close(at)
    empty(folder)
    assert os.listdir(tmp_path / "scratch") == []


def test_modes_keep_nothing(tmp_path: Path, folder: int) -> None:
    """For an owner who is not root, to whom a mode means something."""
    if os.geteuid() == 0:
        os.chown(folder, 65532, 65532)
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            os.fchdir(folder)  # the way to it may not be open to everybody
            if os.geteuid() == 0:
                os.setgid(65532)
                os.setuid(65532)
            for path in ("a", "a/b", "a/b/c"):
                os.mkdir(path)
            Path("a/b/c/file").write_text("x")
            for path in ("a/b/c", "a/b", "a"):
                os.chmod(path, 0)
            empty(folder)
            status = len(os.listdir(folder))
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_room_that_does_not_come_back_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without a name that somebody still holds is not there to be listed."""
    rooms = [(100, 50)]
    monkeypatch.setattr(Scratch, "_room", lambda self: rooms[0])
    monkeypatch.setattr(scratch, "_BETWEEN_LOOKS", 0.0)
    place = Scratch(str(tmp_path))
    place.empty()
    rooms[0] = (99, 50)
    with pytest.raises(NotEmpty, match="blocks and inodes free"):
        place.empty()
    place.close()
