"""Folders that were made to do harm: each is refused by name, or copied as what it is, and nothing outside is touched.

The copy is made by root, of a folder that somebody else owns and goes on changing.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runagentd import kernel
from runagentd.errors import ConfigurationError
from runagentd.supervise import snapshot
from runagentd.supervise.snapshot import Snapshot

pytestmark = [pytest.mark.root]

SECRET = "a secret of the host's"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An agent's folder, beside a secret and a place for copies."""
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "copies").mkdir()
    path = tmp_path / "agent"
    path.mkdir(mode=0o755)
    (path / "main.py").write_text("def run(): ...\n")
    return path


def take(folder: Path, rules: snapshot.Rules = snapshot.FOLDER) -> Snapshot:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return snapshot.take(descriptor, folder.parent / "copies", rules=rules, complete=True)
    finally:
        os.close(descriptor)


def refusal(folder: Path, rules: snapshot.Rules = snapshot.FOLDER) -> str:
    """Why it is refused; nothing of it stays."""
    with pytest.raises(ConfigurationError) as caught:
        take(folder, rules)
    assert list((folder.parent / "copies").iterdir()) == []
    text = str(caught.value)
    assert SECRET not in text
    assert all(line.isprintable() for line in text.splitlines())
    return text


def link(folder: Path) -> None:
    (folder / "out").symlink_to("../secret")


def absolute_link(folder: Path) -> None:
    (folder / "out").symlink_to("/etc/shadow")


def link_to_a_folder(folder: Path) -> None:
    (folder / "out").symlink_to("/etc")


def link_to_itself(folder: Path) -> None:
    (folder / "out").symlink_to("out")


def link_in_a_folder(folder: Path) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "out").symlink_to("../../../secret")


def fifo(folder: Path) -> None:
    os.mkfifo(folder / "out")


def unix_socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / "out"))


def character_device(folder: Path) -> None:
    os.mknod(folder / "out", 0o020666, os.makedev(1, 5))  # /dev/zero: it has no end


def block_device(folder: Path) -> None:
    os.mknod(folder / "out", 0o060666, os.makedev(7, 0))


def strange_name(folder: Path) -> None:
    os.symlink("x", os.fsencode(folder) + b"/out\n\x1b[2J\xff")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (link, "out: is a symbolic link, and is not copied\nhint: put there what it leads to, or remove it"),
        (absolute_link, "out: is a symbolic link, and is not copied"),
        (link_to_a_folder, "out: is a symbolic link, and is not copied"),
        (link_to_itself, "out: is a symbolic link, and is not copied"),
        (link_in_a_folder, "deep/er/out: is a symbolic link, and is not copied"),
        (fifo, "out: is a FIFO, and is not copied\nhint: remove it"),
        (unix_socket, "out: is a socket, and is not copied"),
        (character_device, "out: is a device, and is not copied"),
        (block_device, "out: is a device, and is not copied"),
        (strange_name, "out\\n\\x1b[2J\\xff: is a symbolic link, and is not copied"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_neither_a_file_nor_a_directory_is_refused_by_name(
    folder: Path, make: Callable[[Path], None], words: str
) -> None:
    make(folder)
    assert refusal(folder).startswith(words)


def test_everything_that_is_wrong_is_said_at_once(folder: Path) -> None:
    """Up to fifty names, and how many more."""
    for number in range(60):
        (folder / f"link{number:02}").symlink_to("nowhere")
    lines = [line for line in refusal(folder).splitlines() if not line.startswith("hint")]
    assert (len(lines), lines[0][:6], lines[-1]) == (51, "link00", "and 10 more")


def test_a_virtual_environments_links_are_left_out(folder: Path) -> None:
    """They lead to the author's interpreter, and nobody misses them: many a folder has such an environment."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "pyvenv.cfg").write_text("")
    (folder / ".venv" / "bin" / "python").symlink_to("/usr/bin/python3")
    (folder / ".venv" / "lib64").symlink_to("lib")
    names = sorted(path.name for path in take(folder).path.rglob("*"))
    assert names == [".venv", "bin", "main.py", "pyvenv.cfg"]


def test_of_a_million_names_in_one_directory_no_more_are_read_than_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor fewer: what is left out without a word hides none of them."""
    rules = dataclasses.replace(snapshot.FOLDER, entries_max=500)
    (folder / "many").mkdir()
    for name in (*map(str, range(600)), ".git", "__pycache__"):
        (folder / "many" / name).mkdir()
    assert "the folder has more than 500 files and directories" in refusal(folder, rules)
    read: list[int] = []
    scandir = os.scandir

    class Counted:
        def __init__(self, descriptor: int) -> None:
            self._entries = scandir(descriptor)

        def __enter__(self) -> Counted:
            return self

        def __exit__(self, *_: object) -> None:
            self._entries.close()

        def __iter__(self) -> Iterator[os.DirEntry[str]]:
            read.append(0)
            for entry in self._entries:
                read[-1] += 1
                yield entry

    monkeypatch.setattr("runagentd.supervise.snapshot.os.scandir", Counted)
    refusal(folder, rules)
    assert max(read) == 503


def test_long_paths_cannot_fill_the_supervisors_memory(folder: Path) -> None:
    """All of them together are bounded, however few files there are."""
    rules = dataclasses.replace(snapshot.FOLDER, path_bytes_max=100_000)
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(60):  # deeper than PATH_MAX: step by step, as whoever attacks would
        os.mkdir("d" * 250, dir_fd=at)
        below = os.open("d" * 250, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    for number in range(20):
        os.close(os.open(f"file{number}", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    assert "the paths in the folder take more than 100,000 bytes together" in refusal(folder, rules)


def test_names_that_differ_in_case_alone_stay_apart(folder: Path) -> None:
    (folder / "Main.py").write_text("upper")
    (folder / "MAIN.PY").write_text("shouted")
    copied = {path.name: path.read_text() for path in take(folder).path.iterdir()}
    assert copied == {"main.py": "def run(): ...\n", "Main.py": "upper", "MAIN.PY": "shouted"}


@pytest.mark.parametrize("name", [b"new\nline.py", b"\x1b[2J.py", b"\xff\xfe.py", b" ", b"-rf", b"..."])
def test_strange_names_are_only_names(folder: Path, name: bytes) -> None:
    with open(os.fsencode(folder) + b"/" + name, "wb") as file:
        file.write(b"here")
    copy = os.fsencode(take(folder).path) + b"/" + name
    with open(copy, "rb") as file:
        assert file.read() == b"here"


def test_code_that_pythons_start_would_run_is_a_file_like_any_other(folder: Path) -> None:
    """Copied by root and looked at by a loader, neither of which imports or executes anything of it."""
    for name in ("sitecustomize.py", "usercustomize.py", "evil.pth", "encodings.py", "os.py", "yaml.py"):
        (folder / name).write_text(f"import os; os.system('touch {folder.parent}/ran')\n")
    take(folder)
    assert not (folder.parent / "ran").exists()


def test_a_set_user_id_program_loses_what_makes_it_one(folder: Path) -> None:
    (folder / "program").write_text("")
    os.chmod(folder / "program", 0o6755)
    assert (take(folder).path / "program").stat().st_mode & 0o7777 == 0o755


def test_a_file_that_changes_while_it_is_read_is_copied_as_it_was_hashed(folder: Path) -> None:
    """Whatever of it was copied, the digest is that of the copy: two looks at it never differ."""
    file = folder / "changing"
    file.write_bytes(b"a" * 4_000_000)
    over = threading.Event()

    def change() -> None:
        letter = 0
        while not over.is_set():
            letter = (letter + 1) % 26
            with file.open("r+b") as opened:
                opened.write(bytes([97 + letter]) * 4_000_000)
                opened.truncate(4_000_000 - 1000 * letter)

    writer = threading.Thread(target=change)
    writer.start()
    try:
        for _ in range(5):
            first = take(folder)
            (folder.parent / "copies" / "again").mkdir()
            descriptor = os.open(first.path, os.O_RDONLY | os.O_DIRECTORY)
            second = snapshot.take(descriptor, folder.parent / "copies" / "again")
            os.close(descriptor)
            assert first.digest == second.digest
            snapshot.discard(folder.parent / "copies" / "again")
    finally:
        over.set()
        writer.join()


def test_a_directory_that_becomes_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    """Swapped all the time, while copies are made: what lies behind the link is never in one."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.py").write_text(SECRET)
    place, link_, real = folder / "place", tmp_path / "link", tmp_path / "real"
    place.mkdir()
    link_.symlink_to(tmp_path / "outside")
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            place.rename(real)
            link_.rename(place)
            place.rename(link_)
            real.rename(place)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(100):
            try:
                taken = take(folder)
            except ConfigurationError:
                continue
            assert not (taken.path / "place" / "secret.py").exists()
            snapshot.discard(taken.path)
    finally:
        over.set()
        swapper.join()


def test_a_million_files_are_refused_early(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Literally a million, ten times what a folder may have: not one of them is opened."""
    place = folder / "many"
    place.mkdir()
    kernel.mount("many", str(place), "tmpfs", 0, "size=1m,nr_inodes=1000100,mode=0755")
    try:
        at = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for number in range(1_000_000):
                os.mknod(f"{number:07}", 0o100644, dir_fd=at)
            opened: list[str] = []
            monkeypatch.setattr(kernel, "openat2", lambda _, name, *__, **___: opened.append(name))
            began = time.monotonic()
            with pytest.raises(ConfigurationError) as caught:
                snapshot.take(at, folder.parent / "copies", complete=True)
        finally:
            os.close(at)
        assert time.monotonic() - began < 20
        [problem] = caught.value.problems
        assert problem.what == "the folder has more than 100,000 files and directories, the most it may have"
        assert problem.hints == ("serve the agent's own folder, not one above it",)
        assert opened == []
        assert list((folder.parent / "copies").iterdir()) == []
    finally:
        kernel.unmount(str(place))


def test_what_is_too_many_over_several_directories_is_refused_where_it_is_reached(folder: Path) -> None:
    rules = dataclasses.replace(snapshot.FOLDER, entries_max=1000)
    for directory in ("a", "b", "c"):
        (folder / directory).mkdir()
        for number in range(400):
            (folder / directory / f"{number:03}").touch()
    # 803 are a, b, c, and what is in the first two; main.py comes later.
    assert refusal(folder, rules).startswith("c/197: the folder has more than 1,000 files and directories")
