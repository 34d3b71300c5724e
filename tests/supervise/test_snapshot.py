"""Snapshots of folders whose owners are not to be trusted. Owners are changed, so nearly all of it needs root."""

from __future__ import annotations

import dataclasses
import os
import socket
import stat
import threading
from pathlib import Path
from typing import Protocol

import pytest

from runagentd.errors import ConfigurationError, HostError
from runagentd.supervise import snapshot
from runagentd.supervise.snapshot import Snapshot

pytestmark = pytest.mark.root

ALICE, BOB = 61001, 61002


class Take(Protocol):
    def __call__(self, folder: Path, rules: snapshot.Rules = snapshot.FOLDER) -> Snapshot: ...


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "agent"
    path.mkdir(mode=0o755)
    return path


@pytest.fixture
def take(tmp_path: Path) -> Take:
    copies = tmp_path / "copies"
    copies.mkdir()

    def take_one(folder: Path, rules: snapshot.Rules = snapshot.FOLDER) -> Snapshot:
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            return snapshot.take(descriptor, copies, rules=rules)
        finally:
            os.close(descriptor)

    return take_one


def refused(take: Take, folder: Path, rules: snapshot.Rules = snapshot.FOLDER) -> str:
    with pytest.raises(ConfigurationError) as caught:
        take(folder, rules)
    assert list((folder.parent / "copies").iterdir()) == []
    return str(caught.value).splitlines()[0]


def tree(path: Path) -> list[str]:
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*"))


def test_files_and_directories_are_copied_with_their_content(folder: Path, take: Take) -> None:
    (folder / "src" / "empty").mkdir(parents=True)
    (folder / "main.py").write_text("def run(): ...\n")
    (folder / "src" / "app.py").write_bytes(b"x" * 3_000_000)
    taken = take(folder)
    assert tree(taken.path) == ["main.py", "src", "src/app.py", "src/empty"]
    assert (taken.path / "main.py").read_text() == "def run(): ...\n"
    assert (taken.path / "src" / "app.py").read_bytes() == b"x" * 3_000_000
    assert (taken.files, taken.size, taken.skipped) == (2, 3_000_015, ())


def test_everything_belongs_to_the_agents_id_and_has_a_plain_mode(folder: Path, take: Take) -> None:
    for name, mode in (("plain", 0o600), ("program", 0o700), ("root-program", 0o6755), ("open", 0o666)):
        (folder / name).write_text("")
        os.chmod(folder / name, mode)
    (folder / "directory").mkdir()
    os.chmod(folder / "directory", 0o2777)
    path = take(folder).path
    modes = {entry.name: oct(stat.S_IMODE(entry.stat().st_mode)) for entry in path.iterdir()}
    assert modes == {
        "directory": "0o755", "open": "0o644", "plain": "0o644", "program": "0o755", "root-program": "0o755",
    }  # fmt: skip
    assert {(entry.stat().st_uid, entry.stat().st_gid) for entry in (path, *path.iterdir())} == {(65532, 65532)}


def test_the_time_of_the_last_change_stays(folder: Path, take: Take) -> None:
    (folder / "main.py").write_text("")
    os.utime(folder / "main.py", (1_000_000_000, 1_000_000_000))
    assert (take(folder).path / "main.py").stat().st_mtime == 1_000_000_000


def test_caches_and_git_are_left_out_without_a_word(folder: Path, take: Take) -> None:
    for name in (".git/objects", "__pycache__", "src/__pycache__"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text("")
    taken = take(folder)
    assert (tree(taken.path), taken.skipped) == (["src"], ())


def test_what_is_neither_a_file_nor_a_directory_is_left_out_and_told(folder: Path, take: Take) -> None:
    (folder / "secret").symlink_to("/etc/shadow")
    os.mkfifo(folder / "pipe")
    os.mknod(folder / "disk", stat.S_IFBLK | 0o666, os.makedev(8, 0))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "docker.sock"))
        taken = take(folder)
    assert tree(taken.path) == []
    assert taken.skipped == (
        "disk (a device)", "docker.sock (a socket)", "pipe (a FIFO)", "secret (a symbolic link)",
    )  # fmt: skip


def test_a_link_to_a_folder_is_not_followed(folder: Path, take: Take) -> None:
    (folder / "etc").symlink_to("/etc")
    assert tree(take(folder).path) == []


def test_the_links_of_a_virtual_environment_are_not_told(folder: Path, take: Take) -> None:
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "pyvenv.cfg").write_text("version = 3.11.2\n")
    (folder / ".venv" / "bin" / "python").symlink_to("/usr/bin/python3")
    (folder / ".venv" / "lib64").symlink_to("lib")
    assert take(folder).skipped == ()


def test_many_things_left_out_are_counted(folder: Path, take: Take) -> None:
    for number in range(60):
        (folder / f"link{number:02}").symlink_to("nowhere")
    skipped = take(folder).skipped
    assert (len(skipped), skipped[-1]) == (51, "10 more")


def test_what_is_told_can_be_printed(folder: Path, take: Take) -> None:
    os.symlink("x", os.fsencode(folder) + b"/\x1b[2J\xff\n")
    assert take(folder).skipped == ("\\x1b[2J\\xff\\n (a symbolic link)",)


def test_another_file_system_in_the_folder_is_left_out(take: Take, tmp_path: Path) -> None:
    """/dev has mounts of its own below it: shm, pts."""
    taken_names = {text.partition(" ")[0] for text in take(Path("/dev")).skipped}
    assert "shm" in taken_names


def test_equal_folders_have_equal_digests(tmp_path: Path, take: Take) -> None:
    for name, owner, mode in (("one", 0, 0o644), ("two", ALICE, 0o600)):
        path = tmp_path / name / "src"
        path.mkdir(parents=True)
        (path / "b.py").write_text("b")
        (path.parent / "a.py").write_text("a")
        for entry in (path.parent, path, path / "b.py", path.parent / "a.py"):
            os.chown(entry, owner, owner)
        os.chmod(path / "b.py", mode)
    assert take(tmp_path / "one").digest == take(tmp_path / "two").digest


@pytest.mark.parametrize("change", ["content", "name", "mode", "directory"])
def test_any_difference_that_an_agent_could_see_changes_the_digest(folder: Path, take: Take, change: str) -> None:
    (folder / "a.py").write_text("a")
    before = take(folder).digest
    match change:
        case "content":
            (folder / "a.py").write_text("b")
        case "name":
            (folder / "a.py").rename(folder / "b.py")
        case "mode":
            os.chmod(folder / "a.py", 0o755)
        case "directory":
            (folder / "empty").mkdir()
    assert take(folder).digest != before


def test_the_digest_is_a_fixed_function_of_the_content(folder: Path, take: Take) -> None:
    (folder / "main.py").write_text("def run():\n    return 1\n")
    assert take(folder).digest == ("c4f12b194b40b593050b860dd057d2efb47d1c533a372521d35efd9a15d131cc")


def test_a_file_of_anothers_in_a_tenants_folder_is_refused(folder: Path, take: Take) -> None:
    """A hard link to a file that the tenant may not read, where fs.protected_hardlinks is 0."""
    os.chown(folder, ALICE, ALICE)
    secret = folder.parent / "shadow"
    secret.write_text("root:$y$…")
    os.chmod(secret, 0o640)
    os.link(secret, folder / "notes.txt")
    assert refused(take, folder) == (
        "notes.txt: belongs to uid 0 and is not readable by everybody, in a folder that belongs to uid 61001: "
        "it could be another's secret, brought here by a hard link"
    )


def test_a_file_of_anothers_is_copied_where_everybody_may_read_it(folder: Path, take: Take) -> None:
    os.chown(folder, ALICE, ALICE)
    (folder / "config").write_text("x")
    os.chmod(folder / "config", 0o644)
    assert tree(take(folder).path) == ["config"]


def test_a_directory_of_roots_that_a_tenant_moved_in_is_refused(folder: Path, take: Take) -> None:
    """Who owns a directory may rename what lies in it, directories of root's too."""
    os.chown(folder, ALICE, ALICE)
    (folder / "taken").mkdir(mode=0o700)
    (folder / "taken" / "key").write_text("x")
    assert refused(take, folder).startswith("taken: belongs to uid 0 and is not readable by everybody")


def test_below_a_tenants_folder_even_roots_own_private_files_in_roots_own_directories_are_refused(
    folder: Path, take: Take
) -> None:
    os.chown(folder, ALICE, ALICE)
    (folder / "taken").mkdir(mode=0o755)
    (folder / "taken" / "key").write_text("x")
    os.chmod(folder / "taken" / "key", 0o600)
    assert refused(take, folder).startswith("taken/key: belongs to uid 0 and is not readable by everybody")


def test_a_tenants_folder_within_roots_is_the_tenants(folder: Path, take: Take) -> None:
    (folder / "data").mkdir()
    os.chown(folder / "data", ALICE, ALICE)
    (folder / "data" / "key").write_text("x")
    os.chmod(folder / "data" / "key", 0o600)
    assert refused(take, folder).startswith("data/key: belongs to uid 0")


def test_roots_own_folder_may_hold_private_files_of_anybody(folder: Path, take: Take) -> None:
    """Only root can have put them there."""
    for name, owner in (("mine", 0), ("alices", ALICE), ("bobs", BOB)):
        (folder / name).write_text("x")
        os.chmod(folder / name, 0o600)
        os.chown(folder / name, owner, owner)
    assert tree(take(folder).path) == ["alices", "bobs", "mine"]


def test_in_a_folder_that_everybody_may_write_to_private_files_are_refused(folder: Path, take: Take) -> None:
    os.chmod(folder, 0o1777)
    (folder / "key").write_text("x")
    os.chmod(folder / "key", 0o600)
    assert refused(take, folder).startswith(
        "key: belongs to uid 0 and is not readable by everybody, in a folder that anybody may write to"
    )


def test_a_file_that_is_swapped_for_a_link_during_the_walk_is_never_followed(
    folder: Path, take: Take, tmp_path: Path
) -> None:
    """Another thread swaps a file and a directory for symbolic links, as fast as it can."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("SECRET")
    (folder / "inner").mkdir()
    (folder / "inner" / "secret").write_text("harmless")
    (folder / "secret").write_text("harmless")
    (tmp_path / "link").symlink_to(tmp_path / "outside" / "secret")
    (tmp_path / "folder-link").symlink_to(tmp_path / "outside")
    stop = threading.Event()

    def swap() -> None:
        here, there = str(folder), str(tmp_path)
        while not stop.is_set():
            for name, link in (("secret", "link"), ("inner", "folder-link")):
                os.rename(f"{here}/{name}", f"{there}/aside")
                os.rename(f"{there}/{link}", f"{here}/{name}")
                os.rename(f"{here}/{name}", f"{there}/{link}")
                os.rename(f"{there}/aside", f"{here}/{name}")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(200):
            taken = take(folder)
            copied = [path.read_text() for path in taken.path.rglob("*") if path.is_file()]
            assert "SECRET" not in copied
            snapshot.discard(taken.path)
    finally:
        stop.set()
        swapper.join()


def test_a_file_that_grows_while_it_is_copied_has_an_end(folder: Path, take: Take) -> None:
    file = folder / "log"
    file.write_bytes(b"x" * 1_000_000)
    stop = threading.Event()

    def grow() -> None:
        with file.open("ab") as writer:
            while not stop.is_set():
                writer.write(b"y" * 65536)

    grower = threading.Thread(target=grow)
    grower.start()
    try:
        taken = take(folder)
    finally:
        stop.set()
        grower.join()
    assert taken.size == (taken.path / "log").stat().st_size


def test_too_many_files_are_refused(folder: Path, take: Take) -> None:
    for number in range(4):
        (folder / f"file{number}").write_text("")
    assert refused(take, folder, dataclasses.replace(snapshot.FOLDER, entries_max=3)) == (
        "file3: the folder has more than 3 files and directories, the most it may have"
    )


def test_too_much_data_is_refused(folder: Path, take: Take) -> None:
    with (folder / "huge").open("wb") as file:
        file.truncate(2 * 1024**3 + 1)  # a hole: it takes no space
    assert refused(take, folder) == "huge: with this file the folder is larger than 2 GiB, the most it may be"


def test_too_deep_a_tree_is_refused(folder: Path, take: Take) -> None:
    (folder / "/".join("d" * 65)).mkdir(parents=True)
    assert refused(take, folder).endswith("/d: lies more than 64 directories deep")


def test_a_copy_that_cannot_be_written_is_the_hosts_fault(folder: Path) -> None:
    (folder / "main.py").write_text("")
    descriptor = os.open(folder, os.O_RDONLY)
    with pytest.raises(HostError, match="cannot write a snapshot"):
        snapshot.take(descriptor, Path("/proc"))
    os.close(descriptor)
