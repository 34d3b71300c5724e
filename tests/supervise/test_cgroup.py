"""Limits that act (real kernel), and what a v2 directory asks of a daemon before it has limited children (fake)."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runagentd.errors import HostError
from runagentd.plan.facts import CgroupLayout, Hierarchy
from runagentd.supervise import cgroup
from runagentd.supervise.cgroup import CgroupHost, Group
from runagentd.supervise.cgroup_delegation import descends_from
from tests.supervise.cgroup_fake import FakeV2

_MIB = 1024 * 1024


@pytest.fixture
def host() -> Iterator[CgroupHost]:
    made = cgroup.open_host(f"7e57{secrets.token_hex(6)}")
    yield made
    assert made.sweep() == []
    assert made.remove()


def run_inside(group: Group, code: str) -> int:
    """The exit status of `code`, run in a process that joined by writing "0", as a launch does."""
    descriptors = group.procs_fds()
    join = "import os\n" + "".join(f"os.write({number}, b'0')\n" for number in descriptors)
    try:
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", join + code], pass_fds=descriptors, timeout=30, check=False
        ).returncode
    finally:
        for number in descriptors:
            os.close(number)


@pytest.mark.root
@pytest.mark.kernel
def test_more_memory_than_the_limit_ends_the_process_and_is_counted(host: CgroupHost) -> None:
    group = host.create("one")
    group.write_limits(memory_max=48 * _MIB, pids_max=16, cpu_max=1.0, cpu_weight=100)
    assert run_inside(group, "x = bytearray(24 << 20)") == 0
    assert group.oom_kills() == 0
    assert run_inside(group, "x = bytearray(96 << 20)") == -9
    assert group.oom_kills() >= 1


@pytest.mark.root
@pytest.mark.kernel
def test_more_processes_than_the_limit_are_refused(host: CgroupHost) -> None:
    group = host.create("one")
    group.write_limits(memory_max=64 * _MIB, pids_max=3, cpu_max=1.0, cpu_weight=100)
    code = """
import os, time
made = 0
try:
    for _ in range(10):
        if os.fork() == 0:
            time.sleep(60)
        made += 1
except BlockingIOError:
    os._exit(made)
"""
    assert run_inside(group, code) == 2
    assert group.pids_current() == 2
    assert group.end()


@pytest.mark.root
@pytest.mark.kernel
@pytest.mark.slow
def test_more_processor_time_than_the_limit_is_not_had(host: CgroupHost) -> None:
    group = host.create("one")
    group.write_limits(memory_max=64 * _MIB, pids_max=4, cpu_max=0.2, cpu_weight=100)
    began = time.monotonic()
    assert run_inside(group, "import time\nwhile time.process_time() < 0.2: pass") == 0
    assert time.monotonic() - began > 0.6
    assert 0.15 <= group.cpu_seconds() < 2.0


@pytest.mark.root
@pytest.mark.kernel
def test_a_fork_bomb_ends(host: CgroupHost) -> None:
    """Every process forks again as soon as it can; killing them one after the other would not keep up."""
    group = host.create("one")
    group.write_limits(memory_max=256 * _MIB, pids_max=64, cpu_max=1.0, cpu_weight=100)
    bomb = "pid = os.fork()\nif pid: os._exit(0)\nwhile True:\n try: os.fork()\n except OSError: pass\n"
    assert run_inside(group, bomb) == 0
    assert group.populated()
    assert group.end()
    assert not group.populated()


@pytest.mark.root
@pytest.mark.kernel
def test_a_fork_bomb_ends_without_a_v2_hierarchy_too() -> None:
    layout = cgroup.own_layout()
    v1 = CgroupLayout(hierarchies=tuple(one for one in layout.hierarchies if one.controllers))
    host = CgroupHost(v1, f"7e57{secrets.token_hex(6)}", is_ours=lambda pid: False)
    group = host.create("one")
    group.write_limits(memory_max=256 * _MIB, pids_max=64, cpu_max=1.0, cpu_weight=100)
    bomb = "pid = os.fork()\nif pid: os._exit(0)\nwhile True:\n try: os.fork()\n except OSError: pass\n"
    assert run_inside(group, bomb) == 0
    assert group.end()
    assert host.remove()


@pytest.mark.root
@pytest.mark.kernel
def test_a_closed_descriptor_is_the_only_thing_a_group_costs_the_daemon(host: CgroupHost) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        group = host.create(f"g{number}")
        group.write_limits(memory_max=64 * _MIB, pids_max=4, cpu_max=1.0, cpu_weight=100)
        assert group.remove()
    assert len(os.listdir("/proc/self/fd")) == before


def contents(path: Path, *files: str) -> list[str]:
    return [(path / file).read_text().strip() for file in files]


def test_v2_limits_are_written_as_the_kernel_documents_them(tmp_path: Path) -> None:
    fake = FakeV2(tmp_path)
    host = CgroupHost(fake.layout(), "abc123", files=fake, is_ours=lambda pid: False)
    host.create("one").write_limits(memory_max=100_000_000, pids_max=64, cpu_max=1.5, cpu_weight=200)
    path = fake.own / "runagentd-abc123" / "one"
    memory = ("memory.max", "memory.high", "memory.swap.max", "memory.oom.group")
    assert contents(path, *memory) == ["100000000", "max", "0", "1"]
    assert contents(path, "pids.max", "cpu.max", "cpu.weight") == ["64", "150000 100000", "200"]
    host.close()


def test_on_v2_the_daemons_own_processes_move_to_a_leaf_first(tmp_path: Path) -> None:
    """A cgroup with controllers for its children may hold no process (cgroup-v2.rst, no internal processes)."""
    fake = FakeV2(tmp_path)
    (fake.own / "cgroup.procs").write_text(f"{os.getpid()}\n")
    host = CgroupHost(fake.layout(), "abc123", files=fake, is_ours=lambda pid: pid == os.getpid())
    assert contents(fake.own / "supervisor", "cgroup.procs") == [str(os.getpid())]
    assert contents(fake.own, "cgroup.procs", "cgroup.subtree_control") == ["", "memory pids cpu"]
    assert contents(fake.own / "runagentd-abc123", "cgroup.subtree_control") == ["memory pids cpu"]
    host.close()


def test_on_v2_a_process_that_is_not_the_daemons_is_never_moved(tmp_path: Path) -> None:
    fake = FakeV2(tmp_path)
    (fake.own / "cgroup.procs").write_text(f"{os.getpid()}\n")
    with pytest.raises(HostError) as caught:
        CgroupHost(fake.layout(), "abc123", files=fake, is_ours=lambda pid: False)
    assert str(caught.value) == (
        f"{fake.own}: processes that are not the daemon's live in this cgroup too ({os.getpid()}), so it cannot have "
        "limited children\n"
        "hint: start the daemon in a cgroup of its own: by 'systemd-run --scope -p Delegate=yes runagentd serve …', "
        "by a unit with 'Delegate=yes', or as the first process of a container"
    )
    assert contents(fake.own, "cgroup.procs") == [str(os.getpid())]


class Late(FakeV2):
    """A process appears in our own cgroup after the others were moved: the child of one that was."""

    def __init__(self, root: Path, pid: int, times: int) -> None:
        super().__init__(root)
        self._pid, self._times = pid, times

    def write(self, directory: int, name: str, text: str) -> None:
        if name == "cgroup.subtree_control" and self._times:
            self._times -= 1
            (self.own / "cgroup.procs").write_text(f"{self._pid}\n")
        super().write(directory, name, text)


def test_on_v2_a_process_that_starts_meanwhile_moves_too(tmp_path: Path) -> None:
    """The gateway starts while the supervisor divides the cgroup that both were born in."""
    fake = Late(tmp_path, os.getpid(), times=2)
    CgroupHost(fake.layout(), "abc123", files=fake, is_ours=lambda pid: pid == os.getpid()).close()
    assert contents(fake.own / "supervisor", "cgroup.procs") == [str(os.getpid())]
    assert contents(fake.own, "cgroup.procs", "cgroup.subtree_control") == ["", "memory pids cpu"]


def test_on_v2_a_cgroup_that_never_empties_is_one_sentence(tmp_path: Path) -> None:
    """It does not wait for ever."""
    fake = Late(tmp_path, os.getpid(), times=100)
    with pytest.raises(HostError, match=f"{fake.own}: cannot enable \\+memory \\+pids \\+cpu"):
        CgroupHost(fake.layout(), "abc123", files=fake, is_ours=lambda pid: pid == os.getpid())


def test_everything_descends_from_the_first_process() -> None:
    """Where that one is the foreman, in a container, all that it started is the daemon's."""
    assert descends_from(os.getpid(), os.getppid())
    assert not descends_from(os.getppid(), os.getpid())
    assert descends_from(1, 1)


def test_on_v2_a_controller_that_was_not_delegated_is_named(tmp_path: Path) -> None:
    fake = FakeV2(tmp_path, controllers="memory pids")
    with pytest.raises(HostError, match=f"{fake.own}: no cgroup controller cpu here"):
        CgroupHost(fake.layout(), "abc123", files=fake, is_ours=lambda pid: True)


def test_sweeping_finds_what_an_earlier_daemon_left_in_another_place(tmp_path: Path) -> None:
    """It may have run in another login session or unit; the name says whose it is."""
    fake = FakeV2(tmp_path)
    top = os.open(tmp_path, os.O_RDONLY)
    for name in ("session", "session/runagentd-abc123", "session/runagentd-abc123/old", "session/runagentd-other"):
        fake.make(top, name)
    host = CgroupHost(fake.layout(), "abc123", files=fake, is_ours=lambda pid: False)
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        fake.write(top, "session/runagentd-abc123/old/cgroup.procs", str(sleeper.pid))
        assert host.sweep() == []
        assert sleeper.wait(5) == -9
    os.close(top)
    assert sorted(path.name for path in (tmp_path / "session").iterdir() if path.is_dir()) == ["runagentd-other"]
    host.close()


def test_a_cgroup_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """Root does not mean that /sys/fs/cgroup is writable (langbot-plugin-sdk#69)."""
    hierarchy = Hierarchy(version=1, controllers=("memory",), mount="/proc", own="/proc")
    with pytest.raises(HostError, match="/proc: cannot make a cgroup here"):
        CgroupHost(CgroupLayout(hierarchies=(hierarchy,)), "abc123", is_ours=lambda pid: False)


@pytest.mark.parametrize("state_id", ["", "../up", "a b", "x" * 65])
def test_a_state_id_is_plain(tmp_path: Path, state_id: str) -> None:
    fake = FakeV2(tmp_path)
    with pytest.raises(ValueError, match="is not a state id"):
        CgroupHost(fake.layout(), state_id, files=fake, is_ours=lambda pid: False)
