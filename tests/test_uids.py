"""Leases of uids, on a lock directory, an /etc and a /proc of the test's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runagentd.errors import HostError
from runagentd.uids import Leases

FIRST = 1879048192

Open = Callable[[str], Leases]


@pytest.fixture
def places(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (tmp_path / "etc" / "subuid").write_text("alice:100000:65536\n")
    (tmp_path / "proc").mkdir()
    return tmp_path


@pytest.fixture
def open_leases(places: Path) -> Iterator[Open]:
    """Leases on two blocks only, so that running out is near."""
    opened: list[Leases] = []

    def open_one(state_id: str) -> Leases:
        leases = Leases.open(
            state_id, directory=str(places / "run"), uid_count=512, accounts=places / "etc", proc=places / "proc"
        )
        opened.append(leases)
        return leases

    yield open_one
    for leases in opened:
        leases.close()


def process(places: Path, pid: int, uid: int) -> None:
    folder = places / "proc" / str(pid)
    folder.mkdir()
    (folder / "status").write_text(f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t{uid}\t{uid}\t{uid}\t{uid}\n")


def test_the_first_uid_is_the_first_of_the_range(open_leases: Open) -> None:
    leases = open_leases("aaaa")
    assert [leases.lease() for _ in range(3)] == [1879048192, 1879048193, 1879048194]


def test_a_released_uid_is_leased_again_last(open_leases: Open) -> None:
    """A stale use of it has the longest time to show."""
    leases = open_leases("aaaa")
    first = leases.lease()
    leases.release(first)
    others = [leases.lease() for _ in range(255)]
    assert first not in others
    assert leases.lease() == first


def test_a_uid_that_is_not_leased_cannot_be_released(open_leases: Open) -> None:
    leases = open_leases("aaaa")
    with pytest.raises(ValueError, match="uid 1879048192 is not leased"):
        leases.release(FIRST)


def test_two_daemons_never_share_a_uid(open_leases: Open) -> None:
    mine, theirs = open_leases("aaaa"), open_leases("bbbb")
    assert {mine.lease() for _ in range(256)}.isdisjoint({theirs.lease() for _ in range(256)})


def test_two_processes_of_one_daemon_never_share_a_uid(open_leases: Open) -> None:
    assert open_leases("aaaa").lease() != open_leases("aaaa").lease()


def test_a_further_block_is_taken_when_the_first_is_used_up(open_leases: Open) -> None:
    leases = open_leases("aaaa")
    assert len({leases.lease() for _ in range(512)}) == 512


def test_when_all_uids_are_leased_the_error_says_so(open_leases: Open) -> None:
    leases = open_leases("aaaa")
    for _ in range(512):
        leases.lease()
    with pytest.raises(HostError, match="no uid is free: each of the 2 blocks from 1879048192 on is in use"):
        leases.lease()


def test_a_daemon_that_ended_leaves_its_block_to_others(open_leases: Open) -> None:
    open_leases("aaaa").close()
    assert open_leases("bbbb").lease() == FIRST


def test_a_daemon_finds_its_own_block_again(open_leases: Open) -> None:
    other = open_leases("aaaa")
    mine = open_leases("bbbb")
    second_block = mine.lease()
    mine.close()
    other.close()
    assert open_leases("bbbb").lease() == second_block


def test_a_block_with_another_daemons_leftovers_is_not_taken(open_leases: Open, places: Path) -> None:
    open_leases("aaaa").close()
    process(places, 4242, FIRST + 17)
    assert open_leases("bbbb").lease() == FIRST + 256


def test_of_ones_own_block_only_the_uids_in_use_are_passed_over(open_leases: Open, places: Path) -> None:
    open_leases("aaaa").close()
    process(places, 4242, FIRST)
    assert open_leases("aaaa").lease() == FIRST + 1


@pytest.mark.parametrize(
    ("file", "line", "who"),
    [
        ("passwd", "mallory:x:1879048200:100::/:/bin/sh", "'mallory' has ids from 1879048200 on"),
        ("group", "crowd:x:1879048703:", "'crowd' has ids from 1879048703 on"),
        ("subuid", "bob:1879000000:65536", "'bob' has ids from 1879000000 on"),
        ("subgid", "bob:1879048000:1000", "'bob' has ids from 1879048000 on"),
    ],
)
def test_a_range_that_is_somebody_elses_is_refused(
    open_leases: Open, places: Path, file: str, line: str, who: str
) -> None:
    (places / "etc" / file).write_text(f"{line}\n")
    with pytest.raises(HostError) as caught:
        open_leases("aaaa")
    assert str(caught.value).splitlines() == [
        f"{places}/etc/{file}: {who}, which instances need (1879048192 to 1879048703)",
        "hint: give that account or range other ids",
    ]


@pytest.mark.parametrize("line", ["next:x:1879048704:100::/:/bin/sh", "before:x:1879048191:100::/:/bin/sh", "x", "::"])
def test_ids_beside_the_range_and_lines_that_are_none_do_no_harm(open_leases: Open, places: Path, line: str) -> None:
    (places / "etc" / "passwd").write_text(f"{line}\n")
    assert open_leases("aaaa").lease() == FIRST


def test_the_directory_is_made_private(open_leases: Open, places: Path) -> None:
    open_leases("aaaa")
    assert (places / "run").stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_may_enter_is_refused(open_leases: Open, places: Path) -> None:
    (places / "run").mkdir()
    os.chmod(places / "run", 0o755)
    with pytest.raises(HostError, match="run: must belong to uid"):
        open_leases("aaaa")


def test_a_symbolic_link_in_place_of_the_directory_is_refused(open_leases: Open, places: Path) -> None:
    (places / "elsewhere").mkdir(mode=0o700)
    (places / "run").symlink_to(places / "elsewhere")
    with pytest.raises(HostError, match="run: cannot open the directory of uid leases"):
        open_leases("aaaa")


def test_a_symbolic_link_in_place_of_a_lock_file_is_refused(open_leases: Open, places: Path) -> None:
    (places / "run").mkdir(mode=0o700)
    (places / "run" / "block-000").symlink_to(places / "elsewhere")
    with pytest.raises(OSError, match="block-000"):
        open_leases("aaaa")
    assert not (places / "elsewhere").exists()


def test_the_real_processes_of_this_machine_are_seen(places: Path) -> None:
    """With /proc as it is: the block that holds our own uid is not free."""
    with pytest.raises(HostError, match="no uid is free"):
        Leases.open(
            "aaaa",
            directory=str(places / "run"),
            uid_base=os.getuid() - os.getuid() % 256,
            uid_count=256,
            accounts=places / "proc",
        )
