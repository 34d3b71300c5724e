"""One suite for every kind of cgroup tree: the real one of this machine, and the fake v2 directory.

The real one needs root. It is v1, hybrid or v2: whatever this machine has.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runagentd.supervise import cgroup
from runagentd.supervise.cgroup import CgroupHost, Group
from runagentd.supervise.cgroup_files import CgroupFiles
from tests.supervise.cgroup_fake import FakeV2

_MIB = 1024 * 1024


@dataclass
class Tree:
    """A tree to test, and how a process joins a group of it."""

    host: CgroupHost
    open: Callable[[str], CgroupHost]
    join: Callable[[Group, int], None]


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=[pytest.param("real", marks=[pytest.mark.root, pytest.mark.kernel]), "fake-v2"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tree]:
    if request.param == "real":
        made = Tree(cgroup.open_host(_state_id()), cgroup.open_host, _join_by_descriptors)
    else:
        fake = FakeV2(tmp_path)

        def reopen(state_id: str) -> CgroupHost:
            return CgroupHost(fake.layout(), state_id, files=fake, is_ours=lambda pid: False)

        def join(group: Group, pid: int) -> None:
            directory = os.open(fake.own / made.host.name, os.O_RDONLY)
            fake.write(directory, f"{group.name}/cgroup.procs", str(pid))
            os.close(directory)

        made = Tree(reopen(_state_id()), reopen, join)
    yield made
    made.host.sweep()
    made.host.remove()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_a_new_group_is_empty(tree: Tree) -> None:
    group = tree.host.create("one")
    assert (group.populated(), group.pids_current(), group.oom_kills()) == (False, 0, 0)


def test_a_process_that_joined_is_counted(tree: Tree, sleeper: subprocess.Popen[bytes]) -> None:
    group = tree.host.create("one")
    tree.join(group, sleeper.pid)
    assert group.populated()


def test_kill_ends_what_joined_and_nothing_else(tree: Tree, sleeper: subprocess.Popen[bytes]) -> None:
    one, two = tree.host.create("one"), tree.host.create("two")
    with subprocess.Popen(["sleep", "60"]) as other:
        tree.join(one, sleeper.pid)
        tree.join(two, other.pid)
        one.kill()
        assert sleeper.wait(5) == -9
        assert other.poll() is None
        two.kill()
        assert other.wait(5) == -9


def test_a_busy_group_is_not_removed_and_says_so(tree: Tree, sleeper: subprocess.Popen[bytes]) -> None:
    group = tree.host.create("one")
    tree.join(group, sleeper.pid)
    assert group.remove() is False
    group.kill()
    sleeper.wait(5)
    assert _soon(group.remove)


def test_a_group_that_is_gone_is_removed_already(tree: Tree) -> None:
    group = tree.host.create("one")
    assert group.remove()
    assert group.remove()
    assert not group.populated()
    group.kill()


def test_a_name_can_be_used_again_after_its_removal(tree: Tree) -> None:
    assert tree.host.create("one").remove()
    tree.host.create("one")
    with pytest.raises(FileExistsError):
        tree.host.create("one")


def test_limits_are_written_to_a_group_with_processes_too(tree: Tree, sleeper: subprocess.Popen[bytes]) -> None:
    group = tree.host.create("one")
    tree.join(group, sleeper.pid)
    group.write_limits(memory_max=64 * _MIB, pids_max=7, cpu_max=0.5, cpu_weight=50)
    group.write_limits(memory_max=128 * _MIB, pids_max=9, cpu_max=1.0, cpu_weight=100)


def test_a_host_with_groups_is_not_removed(tree: Tree) -> None:
    group = tree.host.create("one")
    again = tree.open(tree.host.state_id)
    assert again.remove() is False
    assert group.remove()


def test_sweeping_ends_what_an_earlier_daemon_left(tree: Tree, sleeper: subprocess.Popen[bytes]) -> None:
    """The same state id: the same daemon, in a later life."""
    group = tree.host.create("left-over")
    tree.join(group, sleeper.pid)
    again = tree.open(tree.host.state_id)
    assert again.sweep() == []
    assert sleeper.wait(5) == -9
    assert again.groups() == []
    again.close()


def test_sweeping_never_touches_the_groups_of_another_state_directory(
    tree: Tree, sleeper: subprocess.Popen[bytes]
) -> None:
    group = tree.host.create("mine")
    tree.join(group, sleeper.pid)
    neighbour = tree.open(_state_id())
    assert neighbour.sweep() == []
    assert neighbour.remove()
    assert sleeper.poll() is None
    assert group.populated()


@pytest.mark.parametrize("name", ["", "..", "a/b", "UPPER", "a\n", "x" * 65])
def test_only_plain_names_become_directories(tree: Tree, name: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a group"):
        tree.host.create(name)


def _join_by_descriptors(group: Group, pid: int) -> None:
    for descriptor in group.procs_fds():
        os.write(descriptor, str(pid).encode())
        os.close(descriptor)


def _state_id() -> str:
    return f"7e57{secrets.token_hex(6)}"


def _soon(claim: Callable[[], bool], *, seconds: float = 5.0) -> bool:
    """The kernel takes a moment to let go of a process that has ended."""
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


@pytest.mark.root
@pytest.mark.kernel
def test_a_group_holds_a_process_only_once_it_has_joined_every_hierarchy(sleeper: subprocess.Popen[bytes]) -> None:
    """A runner that is limited in memory and not in tasks would otherwise pass for one in its cgroups."""
    host = cgroup.open_host(_state_id())
    group = host.create("one")
    seen = [group.holds(sleeper.pid)]
    for descriptor in group.procs_fds():
        os.write(descriptor, str(sleeper.pid).encode())
        os.close(descriptor)
        seen.append(group.holds(sleeper.pid))
    host.sweep()
    host.remove()
    assert seen == [False] * (len(seen) - 1) + [True]


@pytest.mark.root
@pytest.mark.kernel
def test_a_process_that_is_born_in_its_group_and_enters_the_others_has_joined_all() -> None:
    """The way of a spare: no move of a whole process, for which the kernel would wait for every processor."""
    host = cgroup.open_host(_state_id())
    group = host.create("one")
    code = f"""
        import os, sys, threading
        sys.path.insert(0, {str(ROOT)!r})
        from runagentd import kernel
        *entrances, v2 = [int(number) if number != "-" else None for number in sys.argv[1:]]
        pid, pidfd = (os.fork(), -1) if v2 is None else kernel.fork_alone(cgroup=v2)
        if pid == 0:
            for entrance in entrances:
                os.write(entrance, b"0")
            thread = threading.Thread(target=os.getpid)
            thread.start()
            thread.join()
            print(os.getpid(), flush=True)
            sys.stdin.read()
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    """
    entrances, v2 = group.entrances()
    passed = [*entrances, *([] if v2 is None else [v2])]
    words = [*map(str, entrances), "-" if v2 is None else str(v2)]
    with subprocess.Popen(
        [sys.executable, "-I", "-c", textwrap.dedent(code), *words],
        pass_fds=passed,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        child = int(process.stdout.readline())
        held = group.holds(child), group.holds(process.pid)
        process.stdin.close()
        ended = process.stdout.read()
    for descriptor in passed:
        os.close(descriptor)
    host.sweep()
    host.remove()
    assert (held, ended) == ((True, False), "7\n")


@pytest.mark.root
@pytest.mark.kernel
def test_what_processes_wait_for_is_accounted() -> None:
    """Two that want all of one processor wait for it; a v2 hierarchy without controllers is enough to see that."""
    host = cgroup.open_host(_state_id())
    group = host.create("one")
    code = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\nwhile True: pass"
    assert group.pressure() == {"cpu": 0, "memory": 0, "io": 0}
    busy = [subprocess.Popen([sys.executable, "-I", "-c", code]) for _ in range(2)]
    try:
        for process in busy:
            _join_by_descriptors(group, process.pid)
        # The kernel adds up every two seconds (psi.rst), and less often where the processors have other work.
        assert _soon(lambda: group.pressure()["cpu"] > 10_000, seconds=20.0)
        assert group.pressure()["io"] >= 0
    finally:
        group.kill()
        for process in busy:
            process.wait()
        host.sweep()
        host.remove()


@pytest.mark.root
@pytest.mark.kernel
def test_what_is_frozen_does_nothing_and_can_go_on_or_be_killed() -> None:
    """All but the one that is kept, children of the frozen too; SIGKILL ends them, and nothing is left."""
    host = cgroup.open_host(_state_id())
    group = host.create("one")
    assert host.freezes, "this machine has no v2 hierarchy: docs/cgroups.md says what to mount"
    code = "import os, sys\nsys.stdin.read(1)\nos.fork()\nwhile True: sys.stdout.write('x'); sys.stdout.flush()"
    with (
        subprocess.Popen([sys.executable, "-I", "-c", "import time; time.sleep(60)"]) as kept,
        subprocess.Popen(
            [sys.executable, "-I", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        ) as busy,
    ):
        try:
            for process in (kept, busy):
                _join_by_descriptors(group, process.pid)
            assert busy.stdout is not None
            assert busy.stdin is not None
            busy.stdin.write(b"x")  # it forks only now, so that its child is born in the group
            busy.stdout.read(1)
            group.freeze(keep=kept.pid)
            assert _soon(lambda: not _writes(busy))
            assert Path(f"/proc/{kept.pid}/cgroup").read_text().count("/frozen\n") == 0
            group.thaw()
            assert _soon(lambda: _writes(busy))
            group.freeze(keep=kept.pid)
            group.thaw()
            group.freeze(keep=kept.pid)
        finally:
            group.kill()
    assert _soon(group.remove)
    assert host.remove()


@pytest.mark.root
@pytest.mark.kernel
def test_a_process_that_ended_meanwhile_is_not_moved_by_its_number() -> None:
    """Somebody else's may have it by then, and would be frozen, and killed with the group."""

    class Watched(CgroupFiles):
        """The process that is not moved first ends as soon as the other one has been."""

        def __init__(self) -> None:
            self.moved: list[int] = []

        def write(self, directory: int, name: str, text: str) -> None:
            if name == "one/frozen/cgroup.procs":
                self.moved.append(int(text))
            super().write(directory, name, text)
            for process in those if self.moved else ():
                if process.pid not in self.moved:
                    process.kill()
                    process.wait()

    files = Watched()
    host = cgroup.CgroupHost(cgroup.own_layout(), _state_id(), files=files, is_ours=lambda pid: pid == os.getpid())
    group = host.create("one")
    sleep = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
    those = [subprocess.Popen(sleep), subprocess.Popen(sleep)]
    try:
        for process in those:
            _join_by_descriptors(group, process.pid)
        group.freeze(keep=0)
        assert len(files.moved) == 1
    finally:
        group.kill()
        for process in those:
            process.wait()
    assert _soon(group.remove)
    assert host.remove()


def _writes(process: subprocess.Popen[bytes]) -> bool:
    """Whether it writes anything for a while, what was in the pipe already taken out."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    while process.stdout.read(1 << 20):
        pass
    time.sleep(0.05)
    return bool(process.stdout.read(1))
