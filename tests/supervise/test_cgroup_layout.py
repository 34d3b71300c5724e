"""Which hierarchies are used, from literal texts of /proc/self/mountinfo and /proc/self/cgroup."""

from __future__ import annotations

import pytest

from runagentd.errors import HostError
from runagentd.supervise.cgroup_layout import detect

V2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
HYBRID_SELF = """\
9:name=systemd:/
8:pids:/
4:memory:/service/one
2:cpu,cpuacct:/
0::/
"""


def places(mountinfo: str, self_cgroup: str) -> list[tuple[int, tuple[str, ...], str]]:
    return [(one.version, one.controllers, one.own) for one in detect(mountinfo, self_cgroup).hierarchies]


def test_a_unified_host_has_one_hierarchy_for_everything() -> None:
    assert places(V2, "0::/system.slice/runagentd.service\n") == [
        (2, ("memory", "pids", "cpu"), "/sys/fs/cgroup/system.slice/runagentd.service")
    ]


def test_a_hybrid_host_has_each_v1_hierarchy_and_the_v2_one_for_kill() -> None:
    assert places(HYBRID, HYBRID_SELF) == [
        (1, ("memory",), "/sys/fs/cgroup/memory/service/one"),
        (1, ("pids",), "/sys/fs/cgroup/pids"),
        (1, ("cpu", "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct"),
        (2, (), "/sys/fs/cgroup/unified"),
    ]


def test_a_daemon_in_its_own_leaf_makes_its_groups_beside_the_leaf() -> None:
    """A cgroup with limited children may hold no process, so the daemon itself lives in a leaf below the unit's."""
    assert places(V2, "0::/system.slice/runagentd.service/supervisor\n") == [
        (2, ("memory", "pids", "cpu"), "/sys/fs/cgroup/system.slice/runagentd.service")
    ]


def test_without_a_v2_mount_the_v1_hierarchies_do() -> None:
    v1_only = "".join(line for line in HYBRID.splitlines(keepends=True) if "cgroup2" not in line)
    assert [version for version, _, _ in places(v1_only, HYBRID_SELF)] == [1, 1, 1]


def test_a_mount_that_shows_a_part_only_is_entered_below_its_root() -> None:
    """A container without a cgroup namespace: the mount's root is the container's own cgroup."""
    mountinfo = "29 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
    assert places(mountinfo, "0::/docker/abc/inner\n") == [(2, ("memory", "pids", "cpu"), "/sys/fs/cgroup/inner")]


def test_a_mount_that_does_not_show_our_own_cgroup_is_of_no_use() -> None:
    mountinfo = "29 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
    with pytest.raises(HostError):
        detect(mountinfo, "0::/docker/other\n")


def test_a_name_with_a_common_beginning_is_not_below() -> None:
    mountinfo = "29 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
    with pytest.raises(HostError):
        detect(mountinfo, "0::/docker/abcdef\n")


def test_a_mount_point_with_a_space_is_unescaped() -> None:
    mountinfo = "29 23 0:26 / /sys/fs/c\\040group rw - cgroup2 cgroup rw\n"
    assert places(mountinfo, "0::/\n")[0][2] == "/sys/fs/c group"


def test_a_read_only_mount_is_passed_over() -> None:
    mountinfo = V2.replace(" rw,nosuid", " ro,nosuid", 1) + "50 23 0:26 / /mnt/cg rw - cgroup2 cgroup2 rw\n"
    assert places(mountinfo, "0::/\n") == [(2, ("memory", "pids", "cpu"), "/mnt/cg")]


def test_a_controller_of_v1_that_is_not_mounted_is_named() -> None:
    """The v2 hierarchy cannot have it, for it is bound to a v1 hierarchy (cgroups(7))."""
    mountinfo = "".join(line for line in HYBRID.splitlines(keepends=True) if "rw,memory" not in line)
    with pytest.raises(HostError) as caught:
        detect(mountinfo, HYBRID_SELF)
    assert str(caught.value).splitlines()[0] == (
        "the cgroup controller 'memory' is missing: it belongs to a v1 hierarchy that is not mounted, or not writable"
    )


def test_a_host_without_cgroups_says_so() -> None:
    with pytest.raises(HostError, match="the cgroup controller 'memory' is missing: no hierarchy with it is mounted"):
        detect("", "")


def test_the_layout_is_described_in_one_line() -> None:
    assert detect(HYBRID, HYBRID_SELF).describe() == "memory on v1; pids on v1; cpu,cpuacct on v1; kill on v2"
