"""The gateway's folder under another uid: what was its own stays, and no file of anybody else's becomes its own."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from runagentd.foreman.gateway_folder import own

pytestmark = pytest.mark.root

OLD, NEW, OTHER = 1879048192, 1879048448, 1879048704


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "gateway"
    own(found, OLD)
    return found


def made(path: Path, uid: int, content: bytes = b"kept") -> Path:
    path.write_bytes(content)
    os.chown(path, uid, uid)
    return path


def owner(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def test_a_new_folder_belongs_to_its_gateway(folder: Path) -> None:
    """And nobody else gets in."""
    assert owner(folder) == (OLD, OLD, 0o700)


def test_what_the_gateway_before_wrote_stays(folder: Path) -> None:
    """Databases and logs: a daemon that comes back with other uids has not forgotten which calls have run."""
    database = made(folder / "idempotency.db", OLD)
    logs = folder / "logs"
    logs.mkdir()
    os.chown(logs, OLD, OLD)
    log = made(logs / "a.log", OLD, b"line\n")
    log.chmod(0o4755)
    own(folder, NEW)
    assert [owner(path) for path in (folder, database, logs, log)] == [
        (NEW, NEW, 0o700), (NEW, NEW, 0o600), (NEW, NEW, 0o700), (NEW, NEW, 0o600),
    ]  # fmt: skip
    assert (database.read_bytes(), log.read_bytes()) == (b"kept", b"line\n")


def test_under_the_same_uid_nothing_is_touched(folder: Path) -> None:
    """Which is how it nearly always is."""
    there = made(folder / "anything", OTHER)
    own(folder, OLD)
    assert owner(there)[0] == OTHER


def test_links_lead_to_no_file_of_anybody_elses(folder: Path, tmp_path: Path) -> None:
    """Neither symbolic nor hard ones, not to files and not to folders."""
    secret = made(tmp_path / "secret", 0)
    place = tmp_path / "place"
    place.mkdir()
    inner = made(place / "inner", 0)
    elsewhere = made(tmp_path / "elsewhere", OLD)
    (folder / "symbolic.db").symlink_to(secret)
    (folder / "own.db").symlink_to(elsewhere)
    (folder / "logs").symlink_to(place)
    os.link(secret, folder / "hard.db")
    twice = made(tmp_path / "twice", OLD)
    os.link(twice, folder / "twice.db")
    own(folder, NEW)
    assert list(folder.iterdir()) == []
    assert [owner(path)[0] for path in (secret, place, inner, twice, elsewhere)] == [0, 0, 0, OLD, OLD]
    assert (secret.read_bytes(), inner.read_bytes()) == (b"kept", b"kept")


def test_what_is_no_file_of_the_gateways_goes(folder: Path) -> None:
    """Files of others, FIFOs, sockets, folders in folders."""
    made(folder / "others.db", OTHER)
    os.mkfifo(folder / "fifo")
    os.chown(folder / "fifo", OLD, OLD)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    listener.close()
    deep = folder / "logs" / "deep"
    deep.mkdir(parents=True)
    for path in (folder / "logs", deep):
        os.chown(path, OLD, OLD)
    made(deep / "x", OLD)
    own(folder, NEW)
    assert sorted(path.name for path in folder.rglob("*")) == ["logs"]


def test_a_folder_of_roots_is_emptied(tmp_path: Path) -> None:
    """No gateway ever was root: whoever put files there, it was none."""
    folder = tmp_path / "gateway"
    folder.mkdir()
    made(folder / "history.db", 0)
    own(folder, NEW)
    assert (owner(folder), list(folder.iterdir())) == ((NEW, NEW, 0o700), [])
